"""What a driver is asked for and what it tells its workers: plain data, no Ray, no torch."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diffcolor.config import Config
from pipelines.images.gray import MAX_PIXELS
from pipelines.store.retry import Patience

AUTO = "auto"


def new_run_id() -> str:
    """Sorts by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What may be read and what is written; part of what "the same result" means.

    Attributes:
        format: "input" (the scan's own where it is lossless), "tiff", "png", "jp2" or "webp".
        access_copy: "jpeg" for a small copy beside each output, or None.
        access_size: its longest side in pixels.
        toned: "reject" or "desaturate" a toned scan, unless its row says.
        assume_srgb: accept a scan whose ICC profile is broken or of another kind.
        mark: write into each picture's XMP that its colours are machine-made.
    """

    format: str = "input"
    access_copy: str | None = None
    access_size: int = 4000
    toned: str = "reject"
    assume_srgb: bool = False
    mark: bool = True


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a worker needs to know.

    Attributes:
        device: "auto", "cpu" or "cuda" (which of a machine's GPUs a worker gets is Ray's to say).
        images_per_step: K, the size of a lockstep.
        checkpoint_seconds: how often an image's training state is saved.
        timeout_seconds: the worker's time that one image may take; None for no limit.
        preconditions: what the probe of the output store found.
        run: id of this run, in whose folder the worker logs.
    """

    output: str
    base_model: str
    judge: str
    config: Config
    device: str = AUTO
    images_per_step: int = 1
    max_pixels: int = MAX_PIXELS
    outputs: OutputOptions = field(default_factory=OutputOptions)
    checkpoint_seconds: float = 60.0
    timeout_seconds: float | None = None
    patience: Patience = field(default_factory=Patience)
    preconditions: bool = True
    run: str = field(default_factory=new_run_id)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What `submit` was asked for.

    Attributes:
        columns: our column name to the manifest's.
        address: None for an embedded Ray, "auto" inside a cluster.
        workers: number of worker actors; default one per GPU, or one on a machine without.
        gpus_per_worker, cpus_per_worker: what Ray reserves for each.
        retry_failed: run rows again whose result is "failed", or whose files `verify` found damaged.
        max_failures: "N" or "P%": stop when more rows of this run fail than this.
        on_running: "refuse" or "wait" when another run holds the output.
        grace_seconds: what a stopped run may still take.
        stall_seconds: a worker that makes no step for so long is killed.
        shard_rows: rows of one file of `results/`.
        dry_run: end when it is known what is to be done.
        worker: module and name of the workers' class; see `pipelines.worker.worker.Worker` for what it must offer.
    """

    manifest: str
    spec: JobSpec
    columns: dict[str, str] = field(default_factory=dict)
    default_caption: str | None = None
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    cpus_per_worker: int | None = None
    retry_failed: bool = False
    max_failures: str | None = None
    on_running: str = "refuse"
    grace_seconds: float = 60.0
    stall_seconds: float = 600.0
    shard_rows: int = 1000
    dry_run: bool = False
    worker: str = "pipelines.worker.worker:Worker"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The job as it stands: rows in all, counts by status, what each worker does.

    Attributes:
        state: "running", "finished", "stopped" (resumable), "too_many_failures" or "planned" (a dry run).
        imported: rows whose results an earlier plan of this output had.
    """

    rows: int
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    imported: int = 0
    state: str = "running"
    workers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.ok + self.failed + self.skipped


Watch = Callable[[Snapshot], None]


def failure_limit(text: str | None, rows: int) -> float:
    """How many rows may fail: "20" is a number, "5%" a share of all rows, None no limit.

    Raises:
        ValueError: neither.
    """
    if text is None:
        return float("inf")
    number = float(text.removesuffix("%"))
    if not number >= 0:
        raise ValueError(text)
    return rows * number / 100 if text.endswith("%") else number
