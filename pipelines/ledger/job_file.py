"""What an output says of its job: `job.json`, written when a run has made its plan, and the heartbeat of the lease."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffcolor.config import Config, Precision, digest
from diffcolor.identity import ModelIdentity
from manifests.locations import redacted
from pipelines.images.rules import MAX_PIXELS
from pipelines.job import JobRequest, OutputOptions
from pipelines.progress import RunState, WorkerProgress
from pipelines.values import from_values, to_values
from pipelines.version import software


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """What was asked. Field names and order are those of `job.json`.

    Attributes:
        submitted_at: seconds since 1970, by the driver's clock.
        manifest: its URI without secrets.
        plan: id of the plan whose results count.
        previous: earlier plans, the latest first: until the plan has an outcome for every row, theirs stay visible.
        extends: whether its shards can replace those of the plan before it one by one, in `results/`.
        superseded: plans whose results the plan has taken the place of, last time.
        software: what wrote it.
    """

    run: str
    rows: int
    submitted_at: float
    manifest: str
    columns: dict[str, str]
    default_caption: str | None
    base_model: str
    judge: str
    preset: str
    config_digest: str
    config: Config
    device: str
    images_per_step: int | None
    max_pixels: int = MAX_PIXELS
    outputs: OutputOptions = field(default_factory=OutputOptions)
    preconditions: bool = True
    models: ModelIdentity | None = None
    plan: str
    previous: tuple[str, ...] = ()
    extends: bool = False
    superseded: tuple[str, ...] = ()
    software: str = ""
    default_page: int | None = None
    negative: bool = False
    whole_sheet: bool = False
    precision: Precision = Precision.auto
    deterministic: bool = False

    @staticmethod
    def of(request: JobRequest, rows: int, models: ModelIdentity, plan: str) -> "JobFile":
        spec = request.spec
        return JobFile(
            run=spec.run,
            rows=rows,
            submitted_at=time.time(),
            manifest=redacted(request.manifest),
            columns=request.columns,
            default_caption=request.default_caption,
            default_page=request.default_page,
            negative=request.negative,
            whole_sheet=request.whole_sheet,
            base_model=spec.base_model,
            judge=spec.judge,
            preset=spec.config.preset,
            config_digest=digest(spec.config),
            config=spec.config,
            device=spec.device.value,
            images_per_step=spec.images_per_step,
            max_pixels=spec.max_pixels,
            outputs=spec.outputs,
            preconditions=spec.preconditions,
            models=models,
            plan=plan,
            software=software(),
            precision=spec.precision,
            deterministic=spec.deterministic,
        )

    def to_bytes(self) -> bytes:
        return json.dumps(to_values(self), indent=2).encode()

    @staticmethod
    def from_bytes(content: bytes) -> "JobFile":
        """Raises BadValueError where it is no job file."""
        return from_values(json.loads(content), JobFile)


@dataclass(frozen=True, kw_only=True)
class FailedRow:
    """A row that failed lately, as the heartbeat names it."""

    id: str
    kind: str | None
    message: str | None


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What a run says of itself every few seconds, and last when it ends.

    Attributes:
        plan: None before it has one.
        ok, failed, skipped: rows of the plan, those of earlier runs included.
        rate: rows per second in this run; None before the first.
        eta: seconds to the end; None if unknown.
        errors: the last rows that failed.
    """

    plan: str | None = None
    state: RunState = RunState.running
    reason: str = ""
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    rate: float | None = None
    eta: float | None = None
    gpu_seconds: float = 0.0
    workers: tuple[WorkerProgress, ...] = ()
    errors: tuple[FailedRow, ...] = ()

    @property
    def ended_as(self) -> RunState:
        """How its run ended: one that never said that it had ended was interrupted."""
        return RunState.interrupted if self.state is RunState.running else self.state

    def to_json(self) -> dict[str, Any]:
        return to_values(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Heartbeat":
        return from_values(values, Heartbeat)
