"""The driver's workers as it sees them: they start, come up, work, stand still, die and come back."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from pipelines.driver import cluster
from pipelines.errors import JobError
from pipelines.job import JobRequest
from pipelines.ledger.identity import Models
from pipelines.ledger.task import Task
from pipelines.store.events import EventLog

POLL_SECONDS = 1.0
START_SECONDS = 1800.0  # a cluster may have to grow, a large model to be downloaded


@dataclass(eq=False)
class Member:
    """One worker actor. `call` is what it does: coming up (no batch), or a batch; None when it is idle.

    Attributes:
        question: its progress, asked for and not answered yet.
        moved: when its progress last changed.
        down_since: when it was last told to come up.
        killed_pid: a process that we killed; it may answer a last time.
        leaving: its node drains; it comes back on another.
    """

    actor: Any
    call: Any = None
    batch: list[Task] | None = None
    node: str | None = None
    pid: int | None = None
    question: Any = None
    progress: dict[str, Any] = field(default_factory=dict)
    moved: float = 0.0
    down_since: float = field(default_factory=time.monotonic)
    killed_pid: int | None = None
    leaving: bool = False

    def come_up(self) -> None:
        """Asks for a first sign of life. A worker is given work only once it has answered: a call to one that is still
        down would fail too, and count as a second death of rows that never ran."""
        if self.batch is not None:
            self.down_since = time.monotonic()
        self.batch, self.question, self.progress, self.leaving = None, None, {"stage": "starting"}, False
        self.call = self.actor.describe.remote()

    def kill(self) -> None:
        """Ends its process; Ray starts another, on another node if this one takes no more work."""
        self.killed_pid = self.pid
        cluster.restart(self.actor)

    def give(self, batch: list[Task]) -> None:
        self.batch, self.moved = batch, time.monotonic()
        self.call = self.actor.process.remote(batch)

    def rest(self) -> None:
        """Its batch has come back."""
        self.call = self.batch = None
        self.progress = {"stage": "idle"}


class Crew:
    """All workers of a run."""

    def __init__(self, request: JobRequest, log: EventLog) -> None:
        self.request, self.log = request, log
        self.members = [Member(actor) for actor in cluster.start_workers(request)]
        for member in self.members:
            member.come_up()

    def dismiss(self) -> None:
        """Ends their processes."""
        for member in self.members:
            ray.kill(member.actor)

    def first_models(self, goes_on: Callable[[], bool]) -> Models | None:
        """What the first worker that is up has loaded; the others may still be starting, or never find a place.

        Returns:
            None when `goes_on` said no meanwhile.

        Raises:
            JobError: none came up in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while goes_on():
            if time.monotonic() > deadline:
                raise JobError(f"no worker was up within {START_SECONDS:g} s")
            ready, _ = ray.wait([member.call for member in self.members], timeout=POLL_SECONDS)
            for member in [one for one in self.members if one.call in ready]:
                try:
                    return ray.get(member.call)[0]
                except RayError as error:
                    self._not_up(member, error)
        return None

    @property
    def idle(self) -> list[Member]:
        return [member for member in self.members if member.call is None]

    @property
    def busy(self) -> list[Member]:
        return [member for member in self.members if member.batch is not None]

    def returned(self, wait: bool) -> list[Member]:
        """Those whose batch has ended, well or not; who came up meanwhile is idle. `wait` a moment for the first."""
        calls = {member.call: member for member in self.members if member.call is not None}
        ready = [calls[call] for call in ray.wait(list(calls), timeout=POLL_SECONDS * wait)[0]] if calls else []
        for member in ready:
            if member.batch is None:
                self._welcome(member)
        return [member for member in ready if member.batch is not None]

    def _welcome(self, member: Member) -> None:
        try:
            _, member.node, member.pid = ray.get(member.call)
        except RayError as error:
            self._not_up(member, error)
            return
        if member.pid == member.killed_pid:  # not dead yet; what it is given now would be lost
            time.sleep(POLL_SECONDS / 4)
            member.come_up()
            return
        member.rest()
        self.log("worker_up", pid=member.pid, node=member.node)

    def _not_up(self, member: Member, error: RayError) -> None:
        # A process that is loading a large model answers "unavailable" for as long as that takes.
        if not cluster.is_final(error) and time.monotonic() - member.down_since < START_SECONDS:
            time.sleep(POLL_SECONDS)
            member.come_up()
            return
        self.log("worker_given_up", error=cluster.reason(error))
        self.members.remove(member)
        ray.kill(member.actor)
        if not self.members:
            cause = getattr(error, "cause", None)
            told = cause if isinstance(cause, JobError) else JobError(f"no worker came up: {cluster.reason(error)}")
            raise told from error

    # While they work -----------------------------------------------------------------------------------------------

    def ask_progress(self) -> None:
        """Takes answers that have come, asks again, waits for nobody; kills who makes no step for too long."""
        now = time.monotonic()
        for member in self.busy:
            if member.question is None:
                member.question = member.actor.progress.remote()
            elif ray.wait([member.question], timeout=0)[0]:
                self._take_answer(member, now)
            if now - member.moved > self.request.stall_seconds:
                self.log("worker_stalled", pid=member.pid, ids=[task.row.id for task in member.batch])
                member.moved = now
                member.kill()

    def _take_answer(self, member: Member, now: float) -> None:
        try:
            progress = ray.get(member.question, timeout=0)
        except (RayError, GetTimeoutError):  # its batch will tell
            progress = member.progress
        member.question = None
        if progress != member.progress:
            member.progress, member.moved = progress, now

    def request_stop(self, seconds: float) -> None:
        """Asks all to end what they do within so many seconds."""
        for member in self.busy:
            member.actor.request_stop.remote(seconds)

    def leave_draining_nodes(self, seconds: float) -> None:
        """Asks those to end whose node is about to go."""
        draining = cluster.draining_nodes()
        for member in self.busy:
            if member.node in draining and not member.leaving:
                member.leaving = True
                self.log("node_drains", node=member.node, ids=[task.row.id for task in member.batch])
                member.actor.request_stop.remote(seconds)
