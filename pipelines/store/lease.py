"""One run at a time holds an output: an epoch that one run creates, and a heartbeat that shows it is alive.

A wrong takeover costs compute, never a second result: what rows and shards hold is decided by conditional creates.
"""

import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import OutputInUseError, StoreError
from pipelines.store.store import Store
from pipelines.values import from_values, to_values

HEARTBEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
_FOLDER = "_engine/lease"
_HOLDER = re.compile(r"\d{8}\.json")


def _this_machine() -> str:
    """Identifies this machine, boot and container: within one, a process id is unambiguous."""
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
    """When a process of this machine started, which tells it from a later one with the same id; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:  # without /proc the process id is all there is
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return ""
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The run that took an epoch: its host and process, and the machine (boot, container) that the process runs on."""

    run: str
    host: str
    pid: int
    machine: str
    started: str


class Lease:
    """The right to write plans and shards of an output.

    Attributes:
        document: what the heartbeat says besides "alive"; may be replaced at any time.
        lost: set when another run has taken over: stop.
        previous: the last heartbeat of the holder before, without what was that run's own.
    """

    def __init__(
        self,
        store: Store,
        epoch: int,
        holder: Holder,
        document: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
    ) -> None:
        self.store, self.epoch, self.holder, self.document = store, epoch, holder, document
        own = ("run", "time", "released")
        self.previous = {key: value for key, value in (previous or {}).items() if key not in own}
        self.lost = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self.heartbeat()
        self._thread.start()

    def heartbeat(self, **last: Any) -> None:
        """Writes the heartbeat, unless the lease is lost."""
        if _newest_epoch(self.store) > self.epoch:
            self.lost.set()
        if not self.lost.is_set():
            facts = {"run": self.holder.run, "time": time.time(), **self.document, **last}
            self.store.write(_heartbeat_key(self.epoch), json.dumps(facts, default=str).encode())

    def _keep_beating(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            try:
                self.heartbeat()
            except StoreError:  # the store is away, which the run notices by itself
                continue

    def release(self, **last: Any) -> None:
        """Lets the next run in at once."""
        self._over.set()
        self._thread.join()
        self.heartbeat(released=True, **last)


def _newest_epoch(store: Store) -> int:
    names = (key.rpartition("/")[2] for key in store.list(_FOLDER))
    return max((int(name[:8]) for name in names if _HOLDER.fullmatch(name)), default=0)


def _holder_key(epoch: int) -> str:
    return f"{_FOLDER}/{epoch:08d}.json"


def _heartbeat_key(epoch: int) -> str:
    return f"{_FOLDER}/{epoch:08d}.beat"


@dataclass(frozen=True)
class LeaseState:
    """The newest epoch.

    Attributes:
        heartbeat: the last one of its holder; empty if there was none.
        age: of the heartbeat, in seconds by the store's clock.
    """

    epoch: int
    holder: Holder
    heartbeat: dict[str, Any]
    age: float

    @property
    def is_alive(self) -> bool:
        """Whether the holder may still be at work."""
        if self.heartbeat.get("released"):
            return False
        if self.holder.machine == _this_machine() and _started(self.holder.pid) != self.holder.started:
            return False  # killed, and we need not wait for its heartbeat to grow old
        return self.age < EXPIRY_SECONDS


def read_lease(store: Store) -> LeaseState | None:
    """Who holds, or last held, an output; None if no run ever did."""
    epoch = _newest_epoch(store)
    if not epoch:
        return None
    try:
        holder = from_values(json.loads(store.read(_holder_key(epoch))), Holder)
    except FileNotFoundError:  # taken over at this very moment
        return read_lease(store)
    except (ValueError, TypeError):
        holder = Holder(run="unknown", host="unknown", pid=0, machine="", started="")
        return LeaseState(epoch, holder, {"released": True}, 0.0)
    key = _heartbeat_key(epoch) if store.exists(_heartbeat_key(epoch)) else _holder_key(epoch)
    heartbeat = _read_heartbeat(store, key) if key == _heartbeat_key(epoch) else {}
    try:
        age = (store.clock() - store.modified(key)).total_seconds()
    except StoreError:  # the store may be read-only for us: the clocks of the two machines have to do
        age = time.time() - heartbeat.get("time", 0)
    except FileNotFoundError:
        return read_lease(store)
    return LeaseState(epoch, holder, heartbeat, max(0.0, age))


def _read_heartbeat(store: Store, key: str) -> dict[str, Any]:
    """What its holder said last. What cannot be read was said by nobody who is alive."""
    try:
        return dict(json.loads(store.read(key)))
    except (ValueError, TypeError):
        return {"released": True}


def acquire(
    store: Store,
    run: str,
    document: Mapping[str, Any],
    wait: bool = False,
    waiting: Callable[[OutputInUseError], None] = lambda _: None,
) -> Lease:
    """Takes the output for `run`.

    Args:
        document: what the first heartbeat says.
        wait: for as long as another run holds it. Without, only until a silent holder's lease expires.
        waiting: called once, with the run that is waited for.

    Raises:
        OutputInUseError: another run is at work there.
    """
    announced = False
    while True:
        state = read_lease(store)
        if state is None or not state.is_alive:
            if lease := _next_epoch(store, run, document, state):
                return lease
            continue
        error = OutputInUseError(state.holder.run, state.holder.host, state.holder.pid, state.age)
        if not wait and state.age < 2.5 * HEARTBEAT_SECONDS:
            raise error
        if not announced:
            waiting(error)
            announced = True
        time.sleep(min(2.0, HEARTBEAT_SECONDS))


def _next_epoch(store: Store, run: str, document: Mapping[str, Any], state: LeaseState | None) -> Lease | None:
    """The lease of the epoch after `state`, None if another run was first."""
    # One more than what was read: of all that saw the same end, one creates the next epoch.
    epoch = state.epoch + 1 if state else 1
    holder = Holder(
        run=run,
        host=platform.node(),
        pid=os.getpid(),
        machine=_this_machine(),
        started=_started(os.getpid()) or "",
    )
    if not store.create(_holder_key(epoch), json.dumps(to_values(holder)).encode()):
        return None
    lease = Lease(store, epoch, holder, document, state.heartbeat if state else None)
    if lease.lost.is_set():  # we read so long ago that the epoch was used and cleared away since
        lease.release()
        store.delete(_holder_key(epoch))
        return None
    store.delete(key for key in store.list(_FOLDER) if key.rpartition("/")[2] < f"{epoch:08d}")
    return lease


def stop_key(run: str) -> str:
    """The object by which `stop` asks a run to stop."""
    return f"_engine/runs/{run}/stop.json"
