"""How a run stands, as its workers and its driver report it: plain data that travels as JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipelines.values import omit_defaults, to_values


class RunState(StrEnum):
    """How a run stands, or ended. "stopped", "failed" and "interrupted" runs are resumable; "planned" is a dry run."""

    running = "running"
    finished = "finished"
    stopped = "stopped"
    too_many_failures = "too_many_failures"
    failed = "failed"
    interrupted = "interrupted"
    planned = "planned"


@omit_defaults
@dataclass(frozen=True, kw_only=True)
class WorkerProgress:
    """What a worker does.

    Attributes:
        ids: of the rows at work.
        step, steps: within the stage, where it has steps.
        ticks: grows whenever the worker gets on.
    """

    stage: str
    ids: tuple[str, ...] = ()
    step: int | None = None
    steps: int | None = None
    ticks: int = 0
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The job as it stands: rows in all, counts by status, what each worker does.

    Attributes:
        imported: rows whose results an earlier plan of this output had.
    """

    rows: int
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    imported: int = 0
    state: RunState = RunState.running
    workers: tuple[WorkerProgress, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return to_values(self)

    @property
    def done(self) -> int:
        return self.ok + self.failed + self.skipped


Watch = Callable[[Snapshot], None]
