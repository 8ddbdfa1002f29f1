"""Which rows are worked on together: at most K of one working size that need the same work from the same point."""

from collections.abc import Callable, Sequence
from itertools import groupby

from pipelines.job import IMAGES_PER_STEP
from pipelines.worker.rows import FittedRow, Row


class LockstepSizes:
    """K for each working size (height, width).

    Args:
        given: the job's.
        find: K for a size, where the job leaves it to the machine.
    """

    def __init__(self, given: int | None, find: Callable[[tuple[int, int]], int]) -> None:
        self._given, self._find = given, find
        self._found: dict[tuple[int, int], int] = {}

    def of(self, size: tuple[int, int]) -> int:
        """K, or what to begin with until `find_out` was called."""
        return self._found.get(size, self._given or IMAGES_PER_STEP)

    def find_out(self, size: tuple[int, int]) -> int:
        """K, which may take some steps on the GPU to find."""
        if self._given is None and size not in self._found:
            self._found[size] = self._find(size)
        return self.of(size)

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
