"""Which rows a worker gets next, and what becomes of the rows of a worker that was lost. Knows no Ray and no store."""

import math
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from pipelines.ledger.task import Task

MAX_DEATHS = 2  # of a worker, on one row: the second happens with that row alone
MAX_REQUEUES = 10  # of a row whose machine went


class Loss(Enum):
    """Why a batch did not come back."""

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


class Dispatcher:
    """Pull dispatch: a batch is at most K rows; near the end it is smaller, so that no GPU stands idle.

    Args:
        tasks: the pending rows of the plan; None where a shard was closed without any work.
        images_per_step: K.
    """

    def __init__(self, tasks: Iterator[Task | None], images_per_step: int) -> None:
        self._tasks, self.k = tasks, images_per_step
        self._suspects: deque[Task] = deque()  # each runs alone
        self._returned: deque[Task] = deque()
        self._deaths: Counter[str] = Counter()
        self._requeues: Counter[str] = Counter()

    def next_batch(self, pending: int, workers: int) -> list[Task] | None:
        """Rows for one worker; none yet (empty), or none any more (None).

        Args:
            pending: rows of the plan that have not been handed out.
        """
        if self._suspects:
            return [self._suspects.popleft()]
        if self._returned:
            return [self._returned.popleft() for _ in range(min(self.k, len(self._returned)))]
        k = max(1, min(self.k, math.ceil(pending / workers)))
        batch: list[Task] = []
        for task in self._tasks:
            if task is None:  # which may have taken a moment: time to look around
                return batch
            batch.append(task)
            if len(batch) == k:
                return batch
        return batch or None

    def give_back(self, batch: Sequence[Task], finished: Collection[str]) -> None:
        """Takes a batch that came back; rows that are not `finished` (by their digests) run again."""
        self._returned.extend(task for task in batch if task.row_digest not in finished)

    def lose(self, batch: Sequence[Task], finished: Collection[str], loss: Loss, reason: str) -> list[Verdict]:
        """Takes a batch that was lost; rows that are not `finished` run again, or have had their chances.

        Args:
            reason: for the messages.
        """
        verdicts = []
        for task in batch:
            if task.row_digest in finished:
                continue
            if loss is Loss.OUR_ERROR:
                verdicts.append(Verdict(task, "internal", reason))
            elif loss is Loss.NODE_GONE and self._requeues[task.row_digest] < MAX_REQUEUES:
                self._requeues[task.row_digest] += 1
                self._returned.append(task)
            elif verdict := self._suspect(task, loss, reason, alone=len(batch) == 1):
                verdicts.append(verdict)
        return verdicts

    def _suspect(self, task: Task, loss: Loss, reason: str, alone: bool) -> Verdict | None:
        """A row whose process died gets a try alone; the second death is its outcome. Memory that ran out is no death
        of a row that had company."""
        out_of_memory = loss is Loss.OUT_OF_MEMORY
        self._deaths[task.row_digest] += alone or not out_of_memory
        if self._deaths[task.row_digest] < MAX_DEATHS:
            self._suspects.append(task)
            return None
        why = "the machine's memory ran out" if out_of_memory else reason
        return Verdict(task, "process_died", f"the worker process died {MAX_DEATHS} times on this row ({why})")
