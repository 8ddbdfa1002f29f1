"""Stores training states in the background; two are kept for each fit."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from diffcolor.checkpoint import Checkpoint, from_bytes, to_bytes
from diffcolor.config import STAGES
from diffcolor.errors import CheckpointError
from pipelines.errors import StoreError
from pipelines.store.store import Store

WORK = "_engine/checkpoints"


class Checkpoints:
    """`_engine/checkpoints/<fit key>/0` and `1`, written in turn: if a writer dies or an object is damaged, the other
    one is left.

    Args:
        log: called with an event's name and facts.
    """

    def __init__(self, store: Store, log: Callable[..., None]) -> None:
        self.store, self.log = store, log
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._upload: Future | None = None
        self._slot: dict[str, int] = {}
        self._there: set[str] = set()  # keys of what was loaded or saved here, those that may have gone included

    def load(self, fit_key: str) -> Checkpoint | None:
        """The latest intact state of a fit, None if there is none, whichever worker has stored it."""
        self._there.update(self.store.list(_folder(fit_key)))
        found = {}
        for slot in self._slots(fit_key):
            try:
                found[slot] = from_bytes(self.store.read(_key(fit_key, slot)), fit_key)
            except FileNotFoundError:
                continue
            except CheckpointError as error:
                self.log("checkpoint_refused", fit=fit_key[:12], slot=slot, reason=str(error))
        if not found:
            return None
        slot = max(found, key=lambda slot: (STAGES.index(found[slot].stage), found[slot].step))
        self._slot[fit_key] = 1 - slot
        return found[slot]

    def save(self, states: Sequence[tuple[str, Checkpoint]]) -> bool:
        """Stores (fit key, state) pairs in the background. Skipped (False) while the last ones are being uploaded."""
        if self._upload is not None and not self._upload.done():
            self.log("checkpoint_skipped", reason="the previous one is still being uploaded")
            return False
        self._upload = self._thread.submit(self._put, states)
        return True

    def _put(self, states: Sequence[tuple[str, Checkpoint]]) -> None:
        for fit_key, state in states:
            slot = self._slot.get(fit_key, 0)
            try:
                self.store.write(_key(fit_key, slot), to_bytes(state, fit_key))
            except StoreError as error:  # training continues: at worst more steps are repeated
                self.log("checkpoint_failed", fit=fit_key[:12], reason=str(error))
                continue
            self._slot[fit_key] = 1 - slot
            self._there.add(_key(fit_key, slot))
            self.log("checkpoint", fit=fit_key[:12], stage=state.stage, step=state.step)

    def wait(self) -> None:
        """Waits until everything is stored."""
        if self._upload is not None:
            self._upload.result()

    def drop(self, fit_keys: Sequence[str]) -> None:
        """Deletes the states of finished fits."""
        self.wait()
        if keys := [_key(fit_key, slot) for fit_key in fit_keys for slot in self._slots(fit_key)]:
            self.store.delete(keys)
            self._there.difference_update(keys)
        for fit_key in fit_keys:
            self._slot.pop(fit_key, None)

    def _slots(self, fit_key: str) -> list[int]:
        return [slot for slot in (0, 1) if _key(fit_key, slot) in self._there]


def _folder(fit_key: str) -> str:
    return f"{WORK}/{fit_key[:2]}/{fit_key}"


def _key(fit_key: str, slot: int) -> str:
    return f"{_folder(fit_key)}/{slot}.checkpoint"
