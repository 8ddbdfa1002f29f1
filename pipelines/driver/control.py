"""May a run go on? It ends early when it is asked to, when its lease is lost, or when too many rows fail."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipelines.driver.signals import Signalled
from pipelines.errors import OutputInUseError, ReplanError, StoreError
from pipelines.job import JobRequest
from pipelines.ledger.job_file import Heartbeat
from pipelines.progress import RunState
from pipelines.store.events import EventLog
from pipelines.store.lease import Lease, read_lease, stop_key
from pipelines.store.store import Store

LOOK_SECONDS = 5.0  # between looks at stop requests


class RunControl:
    """The state of a run that holds its output.

    Attributes:
        state, reason: how it stands, and why it ends early.
        deadline: when a stopped run has to leave, by the monotonic clock.
        log: the driver's events.
        on_retry: called when a request to the store is tried again.
    """

    def __init__(self, request: JobRequest, store: Store, lease: Lease, signalled: Signalled) -> None:
        self.request, self.store, self.lease, self.signalled = request, store, lease, signalled
        self.state, self.reason, self.deadline = RunState.running, "", math.inf
        self.log = EventLog(store.with_timeout(), request.spec.run, "driver")
        self._looked = -math.inf
        self.on_retry: Callable[[], None] = lambda: None
        store.on_retry = self._on_store_retry

    @contextmanager
    def held(self) -> Iterator[None]:
        """The lease while the run lasts; at its end the heartbeat says how it ended."""
        did_nothing = self.request.dry_run
        try:
            yield
        except ReplanError:
            did_nothing = True
            raise
        except BaseException as error:
            self.state = RunState.failed if isinstance(error, Exception) else RunState.stopped
            self.log("run_ended", state=self.state, error=str(error))
            raise
        finally:
            self.log.close()
            # One that did nothing leaves what the last real one said.
            last = self.lease.previous if did_nothing else {**self.lease.document, "state": self.state}
            with suppress(StoreError):  # the next run will see the heartbeat grow old
                self.lease.release(**last)

    def says(self, heartbeat: Heartbeat) -> None:
        """What the lease's thread writes from now on."""
        self.lease.document = heartbeat.to_json()

    def goes_on(self) -> bool:
        """Whether rows may be handed out.

        Raises:
            OutputInUseError: another run has taken the output over.
        """
        if self.lease.lost.is_set():
            state = read_lease(self.store)
            holder = state.holder if state else self.lease.holder
            raise OutputInUseError(holder.run, holder.host, holder.pid, state.age if state else 0.0)
        if self.signalled.name:
            self.stop(self.signalled.name)
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            if self.store.exists(stop_key(self.request.spec.run)):
                self.stop("asked to by `stop`")
        return self.state == RunState.running

    def stop(self, why: str) -> None:
        """Ends the run within the grace period: rows end or are checkpointed."""
        if self.state not in (RunState.running, RunState.too_many_failures):
            return
        grace = self.request.grace_seconds
        self.state, self.reason, self.deadline = RunState.stopped, why, time.monotonic() + grace
        self.log("stopping", reason=why, grace=grace)

    def give_up(self, why: str) -> None:
        """Too many rows failed: no more are handed out, running ones end."""
        if self.state == RunState.running:
            self.state, self.reason = RunState.too_many_failures, why
            self.log("stopping", reason=why)

    def _on_store_retry(self, error: BaseException, delay: float) -> None:
        """A store that is unreachable does not hold up a stop for longer than the grace."""
        self.log("store_retry", error=str(error), seconds=delay)
        self.on_retry()
        if self.signalled.name and time.monotonic() > self.signalled.at + self.request.grace_seconds:
            raise StoreError(f"stopped by {self.signalled.name} while the store was unreachable ({error})")
