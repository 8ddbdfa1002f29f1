"""One run at a time holds an output: an epoch, created by whoever is first, and a beat that shows the holder is alive.

A wrong takeover costs compute, never a second result: what rows and shards hold is decided by conditional creates.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import OutputInUseError, StoreError
from pipelines.store.store import Store

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
_FOLDER = "_engine/lease"


def _this_machine() -> str:
    """Tells machines, boots and containers apart: within one, a process id means something."""
    parts = [platform.node()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return "/".join(parts)


def _started(pid: int) -> str | None:
    """When a process of this machine started, so that a reused process id is not taken for it; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:  # no /proc: the process id alone has to do
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return ""
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who took an epoch: the run, its host and process, and the machine (boot, container) that the process is of."""

    run: str
    host: str
    pid: int
    machine: str
    started: str


class Lease:
    """The right to write plans and shards of an output. `document` is what the beat says besides "alive".

    Attributes:
        lost: set when another run has taken over: stop.
        previous: what the holder before last said.
    """

    def __init__(
        self,
        store: Store,
        epoch: int,
        holder: Holder,
        document: Callable[[], dict[str, Any]],
        previous: dict[str, Any] | None = None,
    ) -> None:
        self.store, self.epoch, self.holder, self.document = store, epoch, holder, document
        own = ("run", "time", "released")
        self.previous = {key: value for key, value in (previous or {}).items() if key not in own}
        self.lost = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)
        self.beat()
        self._thread.start()

    def beat(self, **last: Any) -> None:
        """Writes the beat, unless the lease is lost."""
        if _newest_epoch(self.store) > self.epoch:
            self.lost.set()
        if not self.lost.is_set():
            facts = {"run": self.holder.run, "time": time.time(), **self.document(), **last}
            self.store.write(_beat_key(self.epoch), json.dumps(facts, default=str).encode())

    def _beat_on(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self.beat()
            except StoreError:  # the store is away: whoever works will notice, too
                continue

    def release(self, **last: Any) -> None:
        """Lets the next run in at once."""
        self._over.set()
        self._thread.join()
        self.beat(released=True, **last)


def _newest_epoch(store: Store) -> int:
    return max(
        (int(key.rpartition("/")[2].split(".")[0]) for key in store.list(_FOLDER) if key.endswith(".json")), default=0
    )


def _holder_key(epoch: int) -> str:
    return f"{_FOLDER}/{epoch:08d}.json"


def _beat_key(epoch: int) -> str:
    return f"{_FOLDER}/{epoch:08d}.beat"


@dataclass(frozen=True)
class Held:
    """The newest epoch as it was found.

    Attributes:
        beat: what its holder last said; empty if he never did.
        age: of the beat, in seconds by the store's clock.
    """

    epoch: int
    holder: Holder
    beat: dict[str, Any]
    age: float

    @property
    def is_alive(self) -> bool:
        """Whether the holder may still be at work."""
        if self.beat.get("released"):
            return False
        if self.holder.machine == _this_machine() and _started(self.holder.pid) != self.holder.started:
            return False  # killed, and we need not wait for its beat to grow old
        return self.age < EXPIRY_SECONDS


def look(store: Store) -> Held | None:
    """Who holds, or last held, an output; None if nobody ever did."""
    epoch = _newest_epoch(store)
    if not epoch:
        return None
    try:
        holder = Holder(**json.loads(store.read(_holder_key(epoch))))
    except FileNotFoundError:  # taken over this moment
        return look(store)
    key = _beat_key(epoch) if store.exists(_beat_key(epoch)) else _holder_key(epoch)
    beat = json.loads(store.read(key)) if key == _beat_key(epoch) else {}
    try:
        age = (store.clock() - store.modified(key)).total_seconds()
    except StoreError:  # may be read-only for who asks: the two machines' clocks have to do
        age = time.time() - beat.get("time", 0)
    except FileNotFoundError:
        return look(store)
    return Held(epoch, holder, beat, max(0.0, age))


def take(
    store: Store,
    run: str,
    document: Callable[[], dict[str, Any]],
    wait: bool = False,
    waiting: Callable[[OutputInUseError], None] = lambda _: None,
) -> Lease:
    """Takes the output for `run`.

    Args:
        wait: for as long as another run holds it. Without, only until a holder that has fallen silent is given up.
        waiting: told once whom we wait for.

    Raises:
        OutputInUseError: another run is at work there.
    """
    told = False
    while True:
        held = look(store)
        if held is None or not held.is_alive:
            # One more than what was looked at: of all that saw the same end, one creates the next epoch.
            epoch = held.epoch + 1 if held else 1
            holder = Holder(
                run=run,
                host=platform.node(),
                pid=os.getpid(),
                machine=_this_machine(),
                started=_started(os.getpid()) or "",
            )
            if store.create(_holder_key(epoch), json.dumps(asdict(holder)).encode()):
                lease = Lease(store, epoch, holder, document, held.beat if held else None)
                if lease.lost.is_set():  # we looked so long ago that the epoch was used and cleared away since
                    lease.release()
                    store.delete(_holder_key(epoch))
                    continue
                store.delete(key for key in store.list(_FOLDER) if key.rpartition("/")[2] < f"{epoch:08d}")
                return lease
            continue
        error = OutputInUseError(held.holder.run, held.holder.host, held.holder.pid, held.age)
        if not wait and held.age < 2.5 * BEAT_SECONDS:
            raise error
        if not told:
            waiting(error)
            told = True
        time.sleep(min(2.0, BEAT_SECONDS))


def stop_key(run: str) -> str:
    """What `stop` writes and a driver looks for."""
    return f"_engine/runs/{run}/stop.json"
