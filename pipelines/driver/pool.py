"""The driver's workers as it sees them: they start, work, stand still, die and come back."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from diffcolor.identity import ModelIdentity
from pipelines.driver import cluster
from pipelines.errors import JobError
from pipelines.job import JobRequest
from pipelines.ledger.task import Task
from pipelines.progress import WorkerProgress
from pipelines.store.events import EventLog

POLL_SECONDS = 1.0
START_SECONDS = 1800.0  # a cluster may have to grow, a large model to be downloaded
_STARTING, _IDLE = WorkerProgress(stage="starting"), WorkerProgress(stage="idle")


@dataclass(eq=False)
class WorkerHandle:
    """One worker actor.

    Attributes:
        call: what it does: starting (no batch) or a batch; None when it is idle.
        batch: empty unless it works.
        question: its progress, asked for and not answered yet.
        moved: when its progress last changed.
        down_since: when it was last told to start.
        killed_pid: a process that we killed; it may answer a last time.
        leaving: its node drains; it comes back on another.
    """

    actor: Any
    call: Any = None
    batch: list[Task] = field(default_factory=list)
    node: str | None = None
    pid: int | None = None
    question: Any = None
    progress: WorkerProgress = _STARTING
    moved: float = 0.0
    down_since: float = field(default_factory=time.monotonic)
    killed_pid: int | None = None
    leaving: bool = False

    @property
    def ids(self) -> list[str]:
        return [task.row.id for task in self.batch]

    def start(self) -> None:
        """Asks for a first sign of life. A worker is given work only once it has answered: a call to one that is still
        down would fail too, and count as a second death of rows that never ran."""
        if self.batch:
            self.down_since = time.monotonic()
        self.batch, self.question, self.progress, self.leaving = [], None, _STARTING, False
        self.call = self.actor.describe.remote()

    def kill(self) -> None:
        """Ends its process; Ray starts another, on another node if this one takes no more work."""
        self.killed_pid = self.pid
        cluster.restart(self.actor)

    def give(self, batch: list[Task]) -> None:
        self.batch, self.moved = batch, time.monotonic()
        self.call = self.actor.process.remote(batch)

    def set_idle(self) -> None:
        self.call, self.batch, self.progress = None, [], _IDLE


class WorkerPool:
    """All workers of a run. As a context manager it ends their processes."""

    def __init__(self, request: JobRequest, log: EventLog) -> None:
        self.request, self.log = request, log
        self.workers: list[WorkerHandle] = []
        self._given_up = 0
        self.control_service = cluster.ControlService()
        self._add(cluster.wanted_workers(request))

    def _add(self, count: int) -> None:
        for actor in cluster.start_workers(self.request, count, len(self.workers) + count):
            worker = WorkerHandle(actor)
            self.workers.append(worker)
            worker.start()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            ray.kill(worker.actor)

    def first_models(self, goes_on: Callable[[], bool]) -> ModelIdentity | None:
        """What the first worker that is up has loaded; the others may still be starting, or never find a place.

        Returns:
            None when `goes_on` said no meanwhile.

        Raises:
            JobError: none was up in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while goes_on():
            if time.monotonic() > deadline:
                raise JobError(f"no worker was up within {START_SECONDS:g} s")
            ready, _ = ray.wait([worker.call for worker in self.workers], timeout=POLL_SECONDS)
            self.control_service.answers()
            for worker in [worker for worker in self.workers if worker.call in ready]:
                try:
                    return ray.get(worker.call)[0]
                except RayError as error:
                    self._on_start_failed(worker, error)
        return None

    @property
    def idle(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.call is None]

    @property
    def busy(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.batch]

    def returned(self, wait: bool) -> list[WorkerHandle]:
        """Those whose batch has ended, well or not; those that have started meanwhile become idle. With `wait`, waits a
        moment for the first."""
        calls = {worker.call: worker for worker in self.workers if worker.call is not None}
        ready = [calls[call] for call in ray.wait(list(calls), timeout=POLL_SECONDS * wait)[0]] if calls else []
        for worker in ready:
            if not worker.batch:
                self._on_ready(worker)
        return [worker for worker in ready if worker.batch]

    def _on_ready(self, worker: WorkerHandle) -> None:
        try:
            _, worker.node, worker.pid = ray.get(worker.call)
        except RayError as error:
            self._on_start_failed(worker, error)
            return
        if worker.pid == worker.killed_pid:  # not dead yet; what it is given now would be lost
            time.sleep(POLL_SECONDS / 4)
            worker.start()
            return
        worker.set_idle()
        self.log("worker_up", pid=worker.pid, node=worker.node)

    def _on_start_failed(self, worker: WorkerHandle, error: RayError) -> None:
        # A process that is loading a large model answers "unavailable" for as long as that takes.
        if not cluster.is_final(error) and time.monotonic() - worker.down_since < START_SECONDS:
            time.sleep(POLL_SECONDS)
            worker.start()
            return
        self.log("worker_given_up", error=cluster.reason(error))
        self._given_up += 1
        self.workers.remove(worker)
        ray.kill(worker.actor)
        if not self.workers:
            cause = getattr(error, "cause", None)
            raise (
                cause if isinstance(cause, JobError) else JobError(f"no worker could start: {cluster.reason(error)}")
            ) from error

    # While they work -----------------------------------------------------------------------------------------------

    def ask_progress(self) -> None:
        """Takes the answers that have come and asks again, without waiting; kills workers that stand still."""
        now = time.monotonic()
        for worker in self.busy:
            if worker.question is None:
                worker.question = worker.actor.progress.remote()
            elif ray.wait([worker.question], timeout=0)[0]:
                self._take_answer(worker, now)
            if now - worker.moved > self.request.stall_seconds:
                self.log("worker_stalled", pid=worker.pid, ids=worker.ids)
                worker.moved = now
                worker.kill()

    def _take_answer(self, worker: WorkerHandle, now: float) -> None:
        try:
            progress = ray.get(worker.question, timeout=0)
        except (RayError, GetTimeoutError):  # its batch will fail, too
            progress = worker.progress
        worker.question = None
        if progress != worker.progress:
            worker.progress, worker.moved = progress, now

    def request_stop(self, seconds: float) -> None:
        """Asks all to end what they do within so many seconds."""
        for worker in self.busy:
            worker.actor.request_stop.remote(seconds)

    def grow(self) -> None:
        """Adds workers for machines that have joined the cluster."""
        if self.request.address is None:
            return
        more = cluster.wanted_workers(self.request) - len(self.workers) - self._given_up
        if more > 0:
            self.log("workers_added", count=more)
            self._add(more)

    def leave_draining_nodes(self, seconds: float) -> None:
        """Asks the workers to end whose node is about to go."""
        draining = cluster.draining_nodes()
        for worker in self.busy:
            if worker.node in draining and not worker.leaving:
                worker.leaving = True
                self.log("node_drains", node=worker.node, ids=worker.ids)
                worker.actor.request_stop.remote(seconds)
