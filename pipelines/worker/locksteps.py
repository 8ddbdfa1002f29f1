"""Which rows are worked on together: at most K of one working size that need the same work from the same point."""

from collections.abc import Sequence
from itertools import groupby

from pipelines.worker.rows import DecodedRow, FittedRow

Row = DecodedRow | FittedRow


class LockstepSizes:
    """K for each working size: the job's, or the one that fitted into memory."""

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step
        self._smaller: dict[tuple[int, ...], int] = {}

    def of(self, shape: tuple[int, ...]) -> int:
        return self._smaller.get(shape, self.images_per_step)

    def remember(self, shape: tuple[int, ...], k: int) -> None:
        """More than `k` of this size do not fit into memory."""
        self._smaller[shape] = k


def locksteps(rows: Sequence[Row], sizes: LockstepSizes) -> list[list[Row]]:
    """Groups of rows; each holds rows of one state only."""

    def kind(row: Row) -> tuple:
        shape = tuple(row.scan.gray.shape)
        if isinstance(row, FittedRow):
            return False, shape, ("", 0)
        checkpoint = row.request.checkpoint
        return True, shape, (checkpoint.stage, checkpoint.step) if checkpoint else ("", 0)

    groups = []
    for (_, shape, _), group in groupby(sorted(rows, key=kind), key=kind):
        alike, k = list(group), sizes.of(shape)
        groups += [alike[first : first + k] for first in range(0, len(alike), k)]
    return groups
