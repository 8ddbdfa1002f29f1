"""Which row a worker gets next, and what becomes of the rows of a worker that was lost. Knows no Ray and no store."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from pipelines.ledger.task import Task

MAX_DEATHS = 2  # of a worker, on one row: the second happens with that row alone
MAX_REQUEUES = 10  # of a row whose machine went


class Loss(Enum):
    """Why a row did not come back."""

    OUR_ERROR = auto()  # the worker raised, which it promises not to
    NODE_GONE = auto()  # the machine went, not the process by itself
    OUT_OF_MEMORY = auto()  # the machine's memory ran out
    PROCESS_DIED = auto()


@dataclass(frozen=True)
class Verdict:
    """The outcome of a row that has had its chances."""

    task: Task
    kind: str
    message: str


class Nothing(Enum):
    """Why there is no row to hand out."""

    YET = auto()  # a shard was closed, which may have taken a moment: look around, and ask again
    FREE = auto()  # the next one is for a worker that is free
    LEFT = auto()


class Dispatcher:
    """Pull dispatch, row by row.

    Args:
        tasks: the pending rows of the plan; None where a shard was closed without any work.
    """

    def __init__(self, tasks: Iterator[Task | None]) -> None:
        self._tasks = tasks
        self._suspects: deque[Task] = deque()
        self._returned: deque[Task] = deque()
        self._suspected: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._requeues: Counter[str] = Counter()

    def next_row(self, *, to_free: bool) -> Task | Nothing:
        """A row for one worker.

        Args:
            to_free: whether the worker has no other row. A suspect runs alone; while one waits, others wait, too.
        """
        if self._suspects:
            return self._suspects.popleft() if to_free else Nothing.FREE
        if self._returned:
            return self._returned.popleft()
        task = next(self._tasks, Nothing.LEFT)
        return Nothing.YET if task is None else task

    def is_suspect(self, task: Task) -> bool:
        """Whether a worker died with this row, so that it gets no other beside it."""
        return task.row_digest in self._suspected

    def give_back(self, task: Task) -> None:
        """Takes a row that came back without a result; it runs again."""
        (self._suspects if self.is_suspect(task) else self._returned).append(task)

    def lose(self, task: Task, loss: Loss, reason: str, *, in_hand: bool, alone: bool) -> Verdict | None:
        """Takes a row whose worker was lost; it runs again, or has had its chances.

        Args:
            reason: for the messages.
            in_hand: whether the worker did anything with it; a row that only waited is not suspected.
            alone: whether the worker had no other row.
        """
        if loss is Loss.OUR_ERROR:
            return Verdict(task, "internal", reason)
        blameless = loss is Loss.NODE_GONE or not in_hand
        if blameless and self._requeues[task.row_digest] < MAX_REQUEUES:
            self._requeues[task.row_digest] += 1
            self.give_back(task)
            return None
        # A row whose process died gets a try alone; the second death is its outcome. Memory that ran out is no death of
        # a row that had company.
        out_of_memory = loss is Loss.OUT_OF_MEMORY
        self._deaths[task.row_digest] += alone or not out_of_memory
        if self._deaths[task.row_digest] < MAX_DEATHS:
            self._suspected.add(task.row_digest)
            self._suspects.append(task)
            return None
        why = "the machine's memory ran out" if out_of_memory else reason
        return Verdict(task, "process_died", f"the worker process died {MAX_DEATHS} times on this row ({why})")
