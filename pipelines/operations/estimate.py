"""Estimates a job's time, worker hours, storage and cost by running a few of its own images."""

import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import stdev
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
    """A mean with its 90 % interval; from one lockstep alone there is none."""

    mean: float
    low: float | None
    high: float | None

    @staticmethod
    def of(mean: float, values: Sequence[float]) -> "Figure":
        """The interval by how independent values spread."""
        if len(values) < 2:
            return Figure(mean, None, None)
        t = _T90[len(values) - 2] if len(values) - 2 < len(_T90) else 1.645
        reach = t * stdev(values) / math.sqrt(len(values))
        return Figure(mean, max(0.0, mean - reach), mean + reach)

    def times(self, scale: float) -> "Figure":
        low, high = (None if edge is None else edge * scale for edge in (self.low, self.high))
        return Figure(self.mean * scale, low, high)

    def text(self, unit: str = "", digits: int = 1) -> str:
        interval = f" ({self.low:.{digits}f} to {self.high:.{digits}f})" if self.low is not None else ""
        return f"{self.mean:.{digits}f}{unit}{interval}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What was measured, and what it means for the whole manifest.

    Attributes:
        images: that were run and were ok.
        locksteps: in which they went through the models together; each gives one measurement for the intervals.
        failed: images that were not ok, by reason; they are not in the figures.
        seconds_per_image: of one worker, everything included.
        model_seconds_per_image: of the models alone.
        file_seconds_per_image: of reading, composing and writing, which other cores do meanwhile; so many times the
            models' seconds are the cores per worker beside the first, so that the models never wait.
        load_seconds: time until a worker has its models, once per worker.
        hours: of the whole job on `workers` workers.
        worker_hours: GPU hours where a worker has a GPU.
        gigabytes: size of the output.
        cost_per_1000: of 1,000 images, where a price was given.
    """

    rows: int
    workers: int
    device: str
    images: int
    locksteps: int
    failed: dict[str, int]
    load_seconds: float
    seconds_per_image: Figure
    model_seconds_per_image: float
    file_seconds_per_image: float
    megabytes_per_image: float
    hours: Figure
    worker_hours: Figure
    gigabytes: float
    cost_per_1000: Figure | None

    @property
    def file_cores(self) -> int:
        """Cores per worker for its files, beside the one that feeds the models."""
        return math.ceil(self.file_seconds_per_image / max(1e-9, self.model_seconds_per_image))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(
    sample: Sequence[ManifestRow],
    spec: JobSpec,
    rows: int,
    workers: int,
    price_per_hour: float | None = None,
) -> Estimate:
    """Runs rows with a real worker into a temporary folder.

    Args:
        sample: a few rows of the manifest, as mixed as it is.
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
        tasks = [
            Task(row=row, row_digest=row.id, place=Place(plan="sample", shard=0, generation=0, row=number))
            for number, row in enumerate(sample)
        ]
        before, started = _size(folder), time.monotonic()
        results = worker.process(tasks)
        took = time.monotonic() - started
        good = [row for row in results if row.status == OK]
        failed = Counter(row.error_kind or "unknown" for row in results if row.status != OK)
        if not good:
            raise ValueError(f"none of the images could be colorized: {dict(failed)}")
        megabytes = (_size(folder) - before) / len(good) / 1e6
        usage, device = worker.overlap.usage, str(worker.models.device)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    locksteps = sorted({row.seconds for row in good})  # rows of one share its time
    seconds = Figure.of(took / len(good), locksteps)
    return Estimate(
        rows=rows,
        workers=workers,
        device=device,
        images=len(good),
        locksteps=len(locksteps),
        failed=dict(failed),
        load_seconds=loaded,
        seconds_per_image=seconds,
        model_seconds_per_image=usage.computing / len(good),
        file_seconds_per_image=usage.files / len(good),
        megabytes_per_image=megabytes,
        hours=seconds.times(rows / workers / 3600),
        worker_hours=seconds.times(rows / 3600),
        gigabytes=megabytes * rows / 1000,
        cost_per_1000=seconds.times(price_per_hour * 1000 / 3600) if price_per_hour is not None else None,
    )


def _size(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
