"""What runs on a GPU: loads the models once, turns manifest rows into result rows, never raises for one row."""

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from diffcolor.artifact import ArtifactRecord, from_bytes, read_record, to_bytes
from diffcolor.base_model import load_base_model, load_judge
from diffcolor.colorize import Colored, Fitted, Scan, fit, recolor
from diffcolor.config import Config, digest
from diffcolor.errors import ArtifactError, DiffColorError, LumaMismatchError
from diffcolor.geometry import working_gray, working_size
from diffcolor.luminance import chroma_planes, mismatches
from diffcolor.measures import colorfulness
from diffcolor.prompts import cut_words, with_identifiers
from diffcolor.upsample import colorize_scan
from manifests.locations import redacted
from manifests.schema import ManifestRow
from pipelines.identity import Models, fit_key, sha256
from pipelines.imagefile import MAX_PIXELS, GrayImage, InputImageError, decode_gray, decode_output, encode_png
from pipelines.ledger import Ledger
from pipelines.names import artifact_key, image_key
from pipelines.results import FAILED, OK, SKIPPED, Output, ResultRow
from pipelines.store import Store, read_uri

logger = logging.getLogger(__name__)
MAX_INPUT_BYTES = 4 << 30
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a worker needs to know. `images_per_step` is K, the size of a lockstep; `device` is "auto", "cpu" or "cuda"
    (which of a machine's GPUs a worker gets is Ray's to say)."""

    output: str
    base_model: str
    judge: str
    config: Config
    device: str = AUTO
    images_per_step: int = 1
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class Task:
    """One manifest row to finish."""

    row: ManifestRow
    row_digest: str


@dataclass(kw_only=True)
class _Job:
    """A task on its way: decoded, then fitted, then colored."""

    task: Task
    image: GrayImage
    input_sha256: str
    fit_key: str
    scan: Scan
    warnings: list[str]
    fitted: Fitted | None = None
    primary_image: str | None = None
    primary_sha256: str | None = None
    artifact_sha256: str | None = None
    trained_steps: int = 0
    seconds: float = 0.0


class Worker:
    """One process with its models. `process` is the only call that works; `progress` may be asked meanwhile."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        device = spec.device if spec.device != AUTO else "cuda" if torch.cuda.is_available() else "cpu"
        self.base = load_base_model(spec.base_model, device)
        self.judge = load_judge(spec.judge, device)
        self.store = Store(spec.output)
        self.ledger = Ledger(self.store)
        self.models = Models(
            base_model=self.base.name,
            base_model_digest=self.base.digest,
            judge=self.judge.name,
            judge_digest=self.judge.digest,
        )
        self._progress: dict = {"stage": "idle"}

    def describe(self) -> Models:
        return self.models

    def progress(self) -> dict:
        """What it is doing: stage, step, steps, ids."""
        return self._progress

    def process(self, tasks: Sequence[Task]) -> list[ResultRow]:
        """Finishes every task: its result is committed to the store and returned. Never raises for a row."""
        outcomes, jobs = [], []
        for task in tasks:
            self._progress = {"stage": "read", "ids": [task.row.id]}
            prepared = self._guarded(task, lambda task=task: self._prepare(task))
            (outcomes if isinstance(prepared, ResultRow) else jobs).append(prepared)
        for lockstep in self._locksteps(jobs):
            outcomes += self._finish(lockstep)
        self._progress = {"stage": "idle"}
        return outcomes

    # Reading ---------------------------------------------------------------------------------------------------------

    def _prepare(self, task: Task) -> _Job:
        row = task.row
        content = row.image_bytes if row.image_bytes is not None else self._read(row.image)
        input_sha256 = sha256(content)
        if row.image_sha256 and row.image_sha256 != input_sha256:
            raise InputImageError(
                "input_changed", f"sha256 {row.image_sha256} expected, {input_sha256} found: not the catalogued file"
            )
        image = decode_gray(content, self.spec.max_pixels)
        size = working_size(*image.gray.shape, self.base.training_area, self.base.size_multiple)
        warnings = [*row.warnings, *image.warnings]
        warnings += [
            f"prompt_too_long: {prompt[:40]!r}...: the model does not see {cut!r}"
            for prompt in (row.caption, *row.target_prompts)
            if (cut := cut_words(self.base, prompt))
        ]
        key = fit_key(input_sha256, row, self.models, self.spec.config)
        scan = Scan(
            gray=working_gray(image.gray, *size),
            context_prompt=row.caption,
            anti_color_prompts=row.anti_color_prompts or self.spec.config.fit.anti_color_prompts,
            seed=row.seed,
        )
        job = _Job(task=task, image=image, input_sha256=input_sha256, fit_key=key, scan=scan, warnings=warnings)
        self._load_artifact(job)
        return job

    def _read(self, uri: str) -> bytes:
        try:
            return read_uri(uri, MAX_INPUT_BYTES)
        except FileNotFoundError as error:
            raise InputImageError("not_found", f"no object at {redacted(uri)}") from error
        except PermissionError as error:
            raise InputImageError("denied", f"no permission to read {redacted(uri)}") from error
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).replace(uri, redacted(uri))
            raise InputImageError("unreadable", f"{redacted(uri)}: {type(error).__name__}: {reason}") from error

    def _load_artifact(self, job: _Job) -> None:
        """Uses an earlier fit of the same key, if there is one and it is whole."""
        try:
            content = self.store.read(artifact_key(job.task.row.id, job.fit_key))
            fitted, record = from_bytes(content, job.scan.gray, self.base), read_record(content)
            primary = self.store.read(record.primary_image)
            if not np.array_equal(decode_output(primary)[1].gray, job.image.gray):
                raise ArtifactError(f"{record.primary_image} does not hold the scan's gray values")
        except FileNotFoundError:
            return
        except (ArtifactError, InputImageError) as error:
            job.warnings.append(f"artifact_damaged: {error}; fitted again")
            return
        job.fitted, job.artifact_sha256 = fitted, sha256(content)
        job.primary_image, job.primary_sha256 = record.primary_image, sha256(primary)

    # Fitting and painting --------------------------------------------------------------------------------------------

    def _locksteps(self, jobs: list[_Job]) -> list[list[_Job]]:
        """Groups of at most K jobs of one working size that need the same work."""

        def kind(job: _Job) -> tuple:
            return job.fitted is None, tuple(job.scan.gray.shape)

        groups = [list(group) for _, group in groupby(sorted(jobs, key=kind), key=kind)]
        k = self.spec.images_per_step
        return [group[first : first + k] for group in groups for first in range(0, len(group), k)]

    def _finish(self, jobs: list[_Job]) -> list[ResultRow]:
        """Fits and paints a lockstep; if that breaks down, each image gets a try of its own."""
        started = time.monotonic()
        try:
            failures = self._fit([job for job in jobs if job.fitted is None])
            healthy = [job for job in jobs if job.fitted is not None]
            painted = self._paint(healthy) if healthy else []
        except Exception as error:  # the one place where an image's failure becomes that image's result
            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
            if len(jobs) > 1:
                return [row for job in jobs for row in self._finish([job])]
            return [self._failure(jobs[0].task, error)]
        share = (time.monotonic() - started) / len(jobs)
        rows = [self._failure(job.task, error) for job, error in failures]
        for job, colored in zip(healthy, painted, strict=True):
            job.seconds = share
            rows.append(self._guarded(job.task, lambda job=job, colored=colored: self._write_outputs(job, colored)))
        return rows

    def _fit(self, jobs: list[_Job]) -> list[tuple[_Job, Exception]]:
        """Trains the jobs together and stores their artifacts; returns those that failed."""
        if not jobs:
            return []
        ids = [job.task.row.id for job in jobs]
        steps = fit(self.base, self.judge, [job.scan for job in jobs], self.spec.config.fit)
        trained = 0
        while True:
            try:
                progress = next(steps)
            except StopIteration as stop:
                outcomes = stop.value
                break
            trained += 1
            self._progress = {"stage": progress.stage, "step": progress.step, "steps": progress.steps, "ids": ids}
        failed = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, DiffColorError):
                failed.append((job, outcome))
            else:
                try:
                    self._store_fit(job, outcome)
                except Exception as error:  # this image's alone: the others' training is not lost with it
                    failed.append((job, error))
                    continue
                job.fitted, job.trained_steps = outcome, trained
        return failed

    def _store_fit(self, job: _Job, fitted: Fitted) -> None:
        """The primary picture first, then the artifact that names it."""
        row = job.task.row
        picture, _ = self._encoded(job.image, fitted.primary, f"{row.caption} (primary colours)")
        job.primary_image, job.primary_sha256 = image_key(row.id, 0, "primary", picture), sha256(picture)
        self.store.write(job.primary_image, picture)
        record = ArtifactRecord(
            base_model=self.base.name,
            base_model_digest=self.base.digest,
            config_digest=digest(self.spec.config),
            context_prompt=row.caption,
            identified_prompt=with_identifiers(row.caption, self.base.tokenizer),
            anti_color_prompts=job.scan.anti_color_prompts,
            seed=row.seed,
            height=job.scan.gray.shape[-2],
            width=job.scan.gray.shape[-1],
            gray_sha256=sha256(job.image.gray.tobytes()),
            primary_image=job.primary_image,
        )
        content = to_bytes(fitted, record)
        job.artifact_sha256 = sha256(content)
        self.store.write(artifact_key(row.id, job.fit_key), content)

    def _paint(self, jobs: list[_Job]) -> list[list[list[Colored]]]:
        """For each job, for each of its target prompts, the candidates, best first."""
        self._progress = {"stage": "sample", "ids": [job.task.row.id for job in jobs]}
        requests = [(job.fitted, prompt) for job in jobs for prompt in job.task.row.target_prompts]
        candidates = iter(recolor(self.base, self.judge, requests, self.spec.config))
        return [[next(candidates) for _ in job.task.row.target_prompts] for job in jobs]

    # Writing ---------------------------------------------------------------------------------------------------------

    def _encoded(self, image: GrayImage, rgb: torch.Tensor, prompt: str) -> tuple[bytes, NDArray[np.uint8]]:
        """A working picture's colours on the native scan, as PNG and as pixels; the luminance is checked."""
        pixels = colorize_scan(image.gray, chroma_planes(rgb))
        if wrong := mismatches(image.gray, pixels):
            raise LumaMismatchError(wrong)
        return encode_png(pixels, image, prompt), pixels

    def paint_output(
        self, image: GrayImage, row_id: str, number: int, prompt: str, ladder: Sequence[Colored], source: str
    ) -> Output:
        """Stores the ladder's favourite at native size."""
        best = ladder[0]
        content, pixels = self._encoded(image, best.rgb, prompt)
        key = image_key(row_id, number, prompt, content)
        self.store.write(key, content)
        return Output(
            prompt=prompt,
            image=key,
            sha256=sha256(content),
            eta=best.eta,
            colorfulness=colorfulness(pixels),
            clip_margin=best.clip_margin,
            candidates=tuple(
                {"eta": one.eta, "clip_margin": one.clip_margin, "colorfulness": colorfulness(_to_pixels(one.rgb))}
                for one in ladder
            ),
            source=source,
        )

    def _write_outputs(self, job: _Job, painted: list[list[Colored]]) -> ResultRow:
        self._progress = {"stage": "write", "ids": [job.task.row.id]}
        started, row = time.monotonic(), job.task.row
        outputs = tuple(
            self.paint_output(job.image, row.id, number, prompt, ladder, "manifest")
            for number, (prompt, ladder) in enumerate(zip(row.target_prompts, painted, strict=True), start=1)
        )
        result = replace(
            self._blank(job.task),
            status=OK,
            warnings=tuple(job.warnings),
            outputs=outputs,
            primary_image=job.primary_image,
            primary_sha256=job.primary_sha256,
            artifact=artifact_key(row.id, job.fit_key),
            artifact_sha256=job.artifact_sha256,
            input_sha256=job.input_sha256,
            gray_sha256=sha256(job.image.gray.tobytes()),
            width=job.image.gray.shape[1],
            height=job.image.gray.shape[0],
            seconds=round(job.seconds + time.monotonic() - started, 3),
            trained_steps=job.trained_steps,
            luminance_mismatches=0,  # `_encoded` counted, and refuses any other picture
            fit_key=job.fit_key,
        )
        self.ledger.commit(result)
        return result

    def _blank(self, task: Task) -> ResultRow:
        return blank_result(task, self.spec, self.models)

    def _guarded(self, task: Task, work):
        """The work's value, or the result row of its failure."""
        try:
            return work()
        except Exception as error:
            return self._failure(task, error)

    def _failure(self, task: Task, error: Exception) -> ResultRow:
        if isinstance(error, InputImageError):
            status, kind, message = (SKIPPED if error.skipped else FAILED), error.kind, error.message
        elif isinstance(error, DiffColorError):
            status, kind, message = FAILED, error.kind, str(error)
        elif isinstance(error, FloatingPointError):
            status, kind, message = FAILED, "non_finite", str(error)
        elif isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
            status, kind, message = FAILED, "oom", f"out of memory with this image alone: {error}"
        else:
            logger.error("row %s failed:\n%s", task.row.id, traceback.format_exc())
            status, kind, message = FAILED, "internal", f"{type(error).__name__}: {error}"
        result = replace(self._blank(task), status=status, error_kind=kind, error_message=message)
        self.ledger.commit(result)
        return result


def blank_result(task: Task, spec: JobSpec, models: Models) -> ResultRow:
    """A result row with what is known before any work is done."""
    row = task.row
    return ResultRow(
        id=row.id,
        status=FAILED,
        row_digest=task.row_digest,
        image=redacted(row.image) if row.image else None,
        context_prompt=row.caption,
        seed=row.seed,
        group_id=row.group_id,
        base_model=models.base_model,
        judge=models.judge,
        config_digest=digest(spec.config),
        warnings=row.warnings,
    )


def _to_pixels(rgb: torch.Tensor) -> NDArray[np.uint8]:
    return (rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
