"""What a run has finished so far, for the heartbeat and the limit of failures."""

import time
from collections import deque

from pipelines.ledger.job_file import FailedRow
from pipelines.ledger.results import FAILED, ResultRow

LAST_ERRORS = 5  # that the heartbeat names


class Tally:
    """Rows that this run has finished; those of earlier runs do not count.

    Attributes:
        gpu_seconds: worker seconds times the GPUs that the worker reserved.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.finished = self.failed = 0
        self.gpu_seconds = self.worker_seconds = 0.0
        self.last_errors: deque[FailedRow] = deque(maxlen=LAST_ERRORS)

    def add(self, row: ResultRow, gpus: float) -> None:
        """Counts an outcome of a worker with so many GPUs."""
        self.finished += 1
        self.gpu_seconds += row.seconds * gpus
        self.worker_seconds += row.seconds
        if row.status == FAILED:
            self.failed += 1
            self.last_errors.append(FailedRow(id=row.id, kind=row.error_kind, message=row.error_message))

    @property
    def rate(self) -> float | None:
        """Rows per second; None before the first."""
        return self.finished / max(1e-3, time.monotonic() - self.started) or None
