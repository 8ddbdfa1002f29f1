"""What a job is asked for, and what its workers are told: plain data that travels as JSON."""

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from diffcolor.config import MINI, NO_BASE, Config, Precision
from manifests.locations import Reach
from manifests.schema import Defaults
from pipelines.images.formats.table import OutputFormat
from pipelines.images.rules import MAX_PIXELS, Toned
from pipelines.store.retry import Patience
from pipelines.values import from_values, to_values

MAX_SHARD_ROWS = 10_000
# Defaults that command-line options share.
IMAGES_PER_STEP = 4  # on a CPU, and reckoned with where a GPU's is not known yet
CHECKPOINT_SECONDS, GRACE_SECONDS, STALL_SECONDS = 60.0, 60.0, 600.0
SHARD_ROWS = 1000


class Device(StrEnum):
    """Where models live. Which of a machine's GPUs a worker gets is Ray's to say."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class AccessCopy(StrEnum):
    """Formats of the smaller, lossy copies."""

    jpeg = "jpeg"


class OnRunning(StrEnum):
    """What to do when another run holds the output."""

    refuse = "refuse"
    wait = "wait"
    attach = "attach"


def new_run_id() -> str:
    """Sorts by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"


def absolute_path(place: str) -> str:
    """A URI as it is, a local path from the root."""
    return place if "://" in place else os.path.abspath(place)


def absolute_model(name: str) -> str:
    """The name of a model as any process finds it: a local folder from the root, everything else as it is."""
    return absolute_path(name) if name not in (MINI, NO_BASE) and Path(name).is_dir() else name


def _check_range(name: str, value: float | None, low: float, high: float | None = None) -> None:
    if value is not None and not (low <= value and (high is None or value <= high)):
        bound = f"at least {low:g}" if high is None else f"in {low:g} .. {high:g}"
        raise ValueError(f"{name} is {value:g}, must be {bound}")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What may be read and what is written; part of what "the same result" means.

    Attributes:
        format: "input" is the scan's own format where that is lossless.
        access_copy: format of a small copy beside each output, None for none.
        access_size: its longest side in pixels, at least 64.
        toned: what to do with toned scans, unless the row says otherwise.
        assume_srgb: accept a scan whose ICC profile is broken or not a gray one.
        mark: label each output in its XMP metadata as AI-colorized.
    """

    format: OutputFormat = OutputFormat.input
    access_copy: AccessCopy | None = None
    access_size: int = 4000
    toned: Toned = Toned.reject
    assume_srgb: bool = False
    mark: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", OutputFormat(self.format))
        object.__setattr__(self, "toned", Toned(self.toned))
        if self.access_copy is not None:
            object.__setattr__(self, "access_copy", AccessCopy(self.access_copy))
        _check_range("access_size", self.access_size, 64)


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a worker needs to know.

    Attributes:
        output: folder or URI.
        precision: numbers of the frozen models.
        loss_decoder: an AutoencoderTiny for stage 1's loss; None for the base model's own decoder.
        deterministic: the same bits on the same device; K is 1 then, because neighbours change a GPU's rounding.
        images_per_step: K >= 1, the images that are adapted together; None for as many as fit on the GPU.
        max_pixels: larger scans are refused before they are decoded.
        checkpoint_seconds: >= 0, time between saves of an image's training state.
        timeout_seconds: >= 0, worker time that one image may take; None for no limit.
        preconditions: whether the output store keeps conditional writes, as the probe found.
        run: id of this run, in whose folder the worker logs.
        reach: what rows may reach.

    Raises:
        ValueError: a value is out of range.
    """

    output: str
    base_model: str
    judge: str
    config: Config
    device: Device = Device.auto
    precision: Precision = Precision.auto
    deterministic: bool = False
    loss_decoder: str | None = None
    images_per_step: int | None = None
    max_pixels: int = MAX_PIXELS
    outputs: OutputOptions = field(default_factory=OutputOptions)
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    timeout_seconds: float | None = None
    patience: Patience = field(default_factory=Patience)
    preconditions: bool = True
    run: str = field(default_factory=new_run_id)
    reach: Reach = field(default_factory=Reach)

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", Device(self.device))
        object.__setattr__(self, "precision", Precision(self.precision))
        if self.deterministic:
            object.__setattr__(self, "images_per_step", 1)
        _check_range("images_per_step", self.images_per_step, 1)
        _check_range("max_pixels", self.max_pixels, 1)
        _check_range("checkpoint_seconds", self.checkpoint_seconds, 0)
        _check_range("timeout_seconds", self.timeout_seconds, 0)


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What `submit` was asked for.

    Attributes:
        columns: our column name to the manifest's.
        default_caption, default_page, negative: of rows that do not say otherwise.
        whole_sheet: colour goes everywhere, not only to the photograph that is found on its sheet.
        address: None for an embedded Ray, "auto" inside a cluster.
        workers: number of worker processes; default one per GPU, or one on a machine without.
        gpus_per_worker, cpus_per_worker: what Ray reserves for each.
        retry_failed: run rows again whose result is "failed", or whose files `verify` found damaged.
        replan: rows that have a result may be made anew, where the manifest or the settings have changed; the command
            line asks first.
        max_failures: "N" or "P%": stop when more rows of this run fail than this.
        grace_seconds: >= 0, time that a stopped run may take to save its work.
        stall_seconds: > 0, a worker that makes no step for so long is killed.
        shard_rows: rows of one file of `results/`.
        budget_hours: worker hours after which the run is stopped, as if it had been asked to.
        on_end: a URL that gets, or a command that reads, how the run ended, as JSON.
        dry_run: end when it is known what is to be done.
        worker: module and name of the workers' class; see `driver.cluster.JobWorker` for what it must offer.

    Raises:
        ValueError: a value is out of range.
    """

    manifest: str
    spec: JobSpec
    columns: dict[str, str] = field(default_factory=dict)
    default_caption: str | None = None
    default_page: int | None = None
    negative: bool = False
    whole_sheet: bool = False
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    cpus_per_worker: int | None = None
    retry_failed: bool = False
    replan: bool = True
    max_failures: str | None = None
    on_running: OnRunning = OnRunning.refuse
    grace_seconds: float = GRACE_SECONDS
    stall_seconds: float = STALL_SECONDS
    shard_rows: int = SHARD_ROWS
    dry_run: bool = False
    budget_hours: float | None = None
    on_end: str | None = None
    worker: str = "pipelines.worker.worker:Worker"

    def __post_init__(self) -> None:
        object.__setattr__(self, "on_running", OnRunning(self.on_running))
        _check_range("workers", self.workers, 1)
        _check_range("gpus_per_worker", self.gpus_per_worker, 0)
        _check_range("cpus_per_worker", self.cpus_per_worker, 1)
        _check_range("grace_seconds", self.grace_seconds, 0)
        _check_range("stall_seconds", self.stall_seconds, 0.1)
        _check_range("shard_rows", self.shard_rows, 1, MAX_SHARD_ROWS)
        _check_range("budget_hours", self.budget_hours, 0)
        failure_limit(self.max_failures, 1)

    def located(self) -> "JobRequest":
        """The same request with all places absolute: processes with other working folders can carry it out."""
        spec = replace(
            self.spec,
            output=absolute_path(self.spec.output),
            base_model=absolute_model(self.spec.base_model),
            judge=absolute_model(self.spec.judge),
            loss_decoder=self.spec.loss_decoder and absolute_model(self.spec.loss_decoder),
        )
        return replace(self, manifest=absolute_path(self.manifest), spec=spec)

    @property
    def defaults(self) -> Defaults:
        """Of the manifest's rows."""
        return Defaults(
            caption=self.default_caption,
            page=self.default_page,
            negative=self.negative,
            whole_sheet=self.whole_sheet,
            reach=self.spec.reach,
        )

    def to_json(self) -> dict[str, Any]:
        return to_values(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "JobRequest":
        """The inverse of `to_json`.

        Raises:
            BadValueError: it is not a request, or a value is out of range.
        """
        return from_values(values, JobRequest)


def failure_limit(text: str | None, rows: int) -> float:
    """How many rows may fail: "20" is a number, "5%" a share of all rows, None no limit.

    Raises:
        ValueError: neither.
    """
    if text is None:
        return float("inf")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not number >= 0:
        raise ValueError(f"max_failures is {text!r}, must be a number or a share such as 5%")
    return rows * number / 100 if text.endswith("%") else number
