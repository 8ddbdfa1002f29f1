"""The driver's workers as it sees them: they start, work, stand still, die and come back."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from diffcolor.identity import ModelIdentity
from pipelines.driver import cluster
from pipelines.driver.dispatch import Loss
from pipelines.driver.last_words import LastWords
from pipelines.errors import JobError
from pipelines.job import JobRequest
from pipelines.ledger.task import Task
from pipelines.progress import WorkerProgress
from pipelines.store.events import EventLog

POLL_SECONDS = 1.0
MOST_BYTES = 1 << 30  # of images that rows bring with them, sent to a worker and not back yet
START_SECONDS = 1800.0  # a cluster may have to grow, a large model to be downloaded
_STARTING, _IDLE = WorkerProgress(stage="starting"), WorkerProgress(stage="idle")


@dataclass(frozen=True)
class LostRow:
    """A row whose worker's process was lost."""

    task: Task
    loss: Loss
    reason: str


@dataclass(eq=False)
class WorkerHandle:
    """One worker actor.

    Attributes:
        starting: the call that asks for its first sign of life; None once it is up.
        rows: its rows, by their calls.
        lost: rows that it had when its process was lost, and why; their fate is known when it is up again.
        has_suspect: its row is to have no other beside it.
        question: its progress, asked for and not answered yet.
        moved: when its progress last changed.
        down_since: when it was last told to start.
        killed_pid: a process that we killed; it may answer a last time.
        leaving: its node drains; it comes back on another.
    """

    actor: Any
    starting: Any = None
    rows: dict[Any, Task] = field(default_factory=dict)
    lost: list[LostRow] = field(default_factory=list)
    has_suspect: bool = False
    last_words: LastWords = None
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
        return [task.row.id for task in self.rows.values()]

    def takes(self, most: int) -> bool:
        """Whether it can be given another row, of at most so many."""
        is_up = self.starting is None and not self.leaving and not self.lost
        has_room = sum(len(task.row.image_bytes or b"") for task in self.rows.values()) < MOST_BYTES
        return is_up and not self.has_suspect and len(self.rows) < most and has_room

    def start(self) -> None:
        """Asks for a first sign of life. A worker is given work only once it has answered: a call to one that is still
        down would fail too, and count as a second death of rows that never ran."""
        if self.starting is None:
            self.down_since = time.monotonic()
        self.question, self.progress, self.leaving, self.has_suspect = None, _STARTING, False, False
        self.starting = self.actor.describe.remote()

    def kill(self) -> None:
        """Ends its process; Ray starts another, on another node if this one takes no more work."""
        self.killed_pid = self.pid
        cluster.restart(self.actor)

    def give(self, task: Task, is_suspect: bool) -> None:
        if not self.rows:
            self.moved = time.monotonic()
        self.rows[self.actor.process.remote([task])] = task
        self.has_suspect = is_suspect

    def take_back(self, call: Any) -> Task:
        """The row of a call that has ended."""
        task = self.rows.pop(call)
        if not self.rows:
            self.has_suspect, self.progress = False, _IDLE
        return task


class WorkerPool:
    """All workers of a run. As a context manager it ends their processes."""

    def __init__(self, request: JobRequest, log: EventLog) -> None:
        self.request, self.log = request, log
        self.workers: list[WorkerHandle] = []
        self._given_up, self._given_up_rows = 0, list[LostRow]()
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
            ready, _ = ray.wait([worker.starting for worker in self.workers], timeout=POLL_SECONDS)
            self.control_service.answers()
            for worker in [worker for worker in self.workers if worker.starting in ready]:
                try:
                    return ray.get(worker.starting)[0]
                except RayError as error:
                    self._on_start_failed(worker, error)
        return None

    @property
    def busy(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.rows]

    def taker(self, most: int) -> WorkerHandle | None:
        """The worker with the fewest rows, of those that take another; each has at most so many."""
        takers = [worker for worker in self.workers if worker.takes(most)]
        return min(takers, key=lambda worker: len(worker.rows), default=None)

    def returned(self, wait: bool) -> list[tuple[WorkerHandle, Any]]:
        """Calls of rows that have ended, well or not; workers that have started meanwhile are up. With `wait`, waits a
        moment for the first."""
        calls = {call: worker for worker in self.workers for call in worker.rows}
        calls |= {worker.starting: worker for worker in self.workers if worker.starting is not None}
        if not calls:
            return []
        ready, _ = ray.wait(list(calls), timeout=POLL_SECONDS * wait)
        if ready:
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for call in ready:
            if call is calls[call].starting:
                self._on_ready(calls[call])
        return [(calls[call], call) for call in ready if call in calls[call].rows]

    @property
    def has_lost(self) -> bool:
        """Whether rows were lost of which it is not known yet what their worker did with them."""
        return bool(self._given_up_rows) or any(worker.lost for worker in self.workers)

    def lost(self) -> Iterator[tuple[LostRow, LastWords, bool]]:
        """Lost rows, what their worker had in hand, and whether it had that row alone. A worker that was lost says so
        when it is up again; of a machine that is gone nobody waits for it."""
        for lost in self._given_up_rows:
            yield lost, None, len(self._given_up_rows) == 1
        self._given_up_rows = []
        for worker in self.workers:
            if not worker.lost or worker.rows:
                continue
            if worker.starting is not None and cluster.is_gone(worker.node):  # it may be known a moment after the loss
                worker.lost = [replace(lost, loss=Loss.NODE_GONE) for lost in worker.lost]
            elif worker.starting is not None:
                continue
            for lost in worker.lost:
                yield lost, worker.last_words, len(worker.lost) == 1
            worker.lost = []

    def _on_ready(self, worker: WorkerHandle) -> None:
        try:
            _, worker.node, worker.pid, worker.last_words = ray.get(worker.starting)
        except RayError as error:
            self._on_start_failed(worker, error)
            return
        if worker.pid == worker.killed_pid:  # not dead yet; what it is given now would be lost
            time.sleep(POLL_SECONDS / 4)
            worker.start()
            return
        worker.starting, worker.progress = None, _IDLE
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
        self._given_up_rows += worker.lost
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
        except (RayError, GetTimeoutError):  # its rows will fail, too
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
