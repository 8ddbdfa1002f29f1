"""Which rows are worked on together: at most K of one working size that need the same work from the same point."""

from collections.abc import Callable, Sequence
from itertools import groupby

from pipelines.worker.rows import FittedRow, Row


class LockstepSizes:
    """K for each working size.

    Args:
        find: K for a working size (height, width): the job's, or what fits into memory.
    """

    def __init__(self, find: Callable[[tuple[int, int]], int]) -> None:
        self._find = find
        self._found: dict[tuple[int, int], int] = {}

    def of(self, size: tuple[int, int]) -> int:
        if size not in self._found:
            self._found[size] = self._find(size)
        return self._found[size]

    def remember(self, size: tuple[int, int], k: int) -> None:
        """More than `k` of this size do not fit into memory."""
        self._found[size] = k


def locksteps(rows: Sequence[Row], sizes: LockstepSizes) -> list[list[Row]]:
    """Groups of rows; each holds rows of one state only."""

    def kind(row: Row) -> tuple:
        if isinstance(row, FittedRow):
            return False, row.working_size, ("", 0)
        checkpoint = row.request.checkpoint
        return True, row.working_size, (checkpoint.stage, checkpoint.step) if checkpoint else ("", 0)

    groups = []
    for (_, size, _), group in groupby(sorted(rows, key=kind), key=kind):
        alike, k = list(group), sizes.of(size)
        groups += [alike[first : first + k] for first in range(0, len(alike), k)]
    return groups
