"""Estimates a job's time, worker hours, storage and cost by running a few of its own images."""

import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from manifests.schema import ManifestRow
from pipelines.job import JobSpec
from pipelines.ledger.results import OK
from pipelines.ledger.task import Place, Task
from pipelines.worker.worker import Worker

# Student's t, two-sided 90 %, by degrees of freedom; from 10 on the normal value is near enough.
_T90 = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83)


@dataclass(frozen=True)
class Figure:
    """A mean over batches with its 90 % interval; from one batch alone there is none."""

    mean: float
    low: float | None
    high: float | None

    @staticmethod
    def of(values: Sequence[float], scale: float = 1.0) -> "Figure":
        middle = mean(values)
        if len(values) < 2:
            return Figure(middle * scale, None, None)
        t = _T90[len(values) - 2] if len(values) - 2 < len(_T90) else 1.645
        reach = t * stdev(values) / math.sqrt(len(values))
        return Figure(middle * scale, max(0.0, middle - reach) * scale, (middle + reach) * scale)

    def text(self, unit: str = "", digits: int = 1) -> str:
        interval = f" ({self.low:.{digits}f} to {self.high:.{digits}f})" if self.low is not None else ""
        return f"{self.mean:.{digits}f}{unit}{interval}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What was measured, and what it means for the whole manifest.

    Attributes:
        batches: lockstep batches that were run; each gives one measurement.
        failed: images that were not ok, by reason; they are not in the figures.
        seconds_per_image: of one worker.
        load_seconds: time until a worker has its models, once per worker.
        hours: of the whole job on `workers` workers.
        worker_hours: GPU hours where a worker has a GPU.
        gigabytes: size of the output.
        cost_per_1000: of 1,000 images, where a price was given.
    """

    rows: int
    workers: int
    device: str
    batches: int
    failed: dict[str, int]
    load_seconds: float
    seconds_per_image: Figure
    megabytes_per_image: Figure
    hours: Figure
    worker_hours: Figure
    gigabytes: Figure
    cost_per_1000: Figure | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(
    batches: Sequence[Sequence[ManifestRow]],
    spec: JobSpec,
    rows: int,
    workers: int,
    price_per_hour: float | None = None,
) -> Estimate:
    """Runs batches of rows with a real worker into a temporary folder.

    Args:
        batches: each is one lockstep of the job's K.
        spec: of the job; its output is not touched.
        rows: of the whole manifest.
        price_per_hour: of one worker, in any currency.

    Raises:
        ValueError: no image was ok; the message has the reasons.
    """
    folder = tempfile.mkdtemp(prefix="diffcolor-estimate-")
    try:
        started = time.monotonic()
        worker = Worker(replace(spec, output=folder))
        loaded = time.monotonic() - started
        seconds: list[float] = []
        megabytes: list[float] = []
        failed: Counter[str] = Counter()
        for number, batch in enumerate(batches):
            tasks = [
                Task(row=row, row_digest=row.id, place=Place(plan=f"{number}", shard=0, generation=0, row=index))
                for index, row in enumerate(batch)
            ]
            before, started = _size(folder), time.monotonic()
            results = worker.process(tasks)
            took = time.monotonic() - started
            failed.update(row.error_kind or "unknown" for row in results if row.status != OK)
            if good := sum(row.status == OK for row in results):
                seconds.append(took / good)
                megabytes.append((_size(folder) - before) / good / 1e6)
        device = str(worker.models.device)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not seconds:
        raise ValueError(f"none of the images could be colorized: {dict(failed)}")
    return Estimate(
        rows=rows,
        workers=workers,
        device=device,
        batches=len(seconds),
        failed=dict(failed),
        load_seconds=loaded,
        seconds_per_image=Figure.of(seconds),
        megabytes_per_image=Figure.of(megabytes),
        hours=Figure.of(seconds, rows / workers / 3600),
        worker_hours=Figure.of(seconds, rows / 3600),
        gigabytes=Figure.of(megabytes, rows / 1000),
        cost_per_1000=Figure.of(seconds, price_per_hour * 1000 / 3600) if price_per_hour is not None else None,
    )


def _size(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
