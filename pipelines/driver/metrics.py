"""What a run tells Ray's metrics exporter, from which Prometheus and others read it (OpenMetrics)."""

from ray.util.metrics import Counter, Gauge

from pipelines.driver.pool import WorkerHandle
from pipelines.ledger.results import ResultRow

PREFIX = "diffcolor"  # Ray puts "ray_" before it


class RunMetrics:
    """Counters and gauges of one run; deploy/grafana.json shows them."""

    def __init__(self) -> None:
        self._rows = Counter(f"{PREFIX}_rows", "Rows finished in this run.", ("status", "kind"))
        self._seconds = Counter(f"{PREFIX}_worker_seconds", "Worker time of finished rows.", ("status",))
        self._retries = Counter(f"{PREFIX}_store_retries", "Requests of the driver to the output store, tried again.")
        self._lost = Counter(f"{PREFIX}_rows_lost", "Rows whose worker was lost; they run again or fail.")
        self._left = Gauge(f"{PREFIX}_rows_left", "Rows of the plan without an outcome.")
        self._busy = Gauge(f"{PREFIX}_workers_busy", "Share of the workers that have rows.")
        self._together = Gauge(f"{PREFIX}_images_together", "Images adapted together, mean over the busy workers.")

    def finished(self, row: ResultRow) -> None:
        self._rows.inc(1, {"status": row.status, "kind": row.error_kind or ""})
        if row.seconds > 0:
            self._seconds.inc(row.seconds, {"status": row.status})

    def lost(self) -> None:
        self._lost.inc(1)

    def store_retry(self) -> None:
        self._retries.inc(1)

    def look(self, left: int, workers: list[WorkerHandle]) -> None:
        """Notes how the run stands."""
        busy = [worker for worker in workers if worker.rows]
        self._left.set(left)
        self._busy.set(len(busy) / max(1, len(workers)))
        self._together.set(sum(len(worker.progress.ids) for worker in busy) / max(1, len(busy)))
