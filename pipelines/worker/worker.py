"""What runs on a GPU: loads the models once, turns manifest rows into result rows, never raises for one row."""

import logging
import math
import os
import platform
import time
import traceback
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

import torch

from diffcolor.artifact import ArtifactRecord, from_bytes, read_record, to_bytes
from diffcolor.base_model import load_base_model, load_judge, resolve_device
from diffcolor.checkpoint import Checkpoint
from diffcolor.colorize import MAX_SAMPLING_BATCH, Colored, Fitted, Scan, fit, recolor
from diffcolor.config import digest
from diffcolor.errors import ArtifactError, DiffColorError
from diffcolor.geometry import working_size
from diffcolor.lockstep import Progress
from diffcolor.prompts import cut_words, with_identifiers
from manifests.locations import redacted
from pipelines.errors import StoreError
from pipelines.images import scratch
from pipelines.images.errors import InputImageError
from pipelines.images.gray import Rules
from pipelines.images.paint import check_luma
from pipelines.images.view import View
from pipelines.job import JobSpec
from pipelines.ledger.identity import Models, fit_key, sha256
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.names import artifact_key
from pipelines.ledger.results import OK, ResultRow
from pipelines.ledger.task import Task, blank_result
from pipelines.store.events import EventLog
from pipelines.store.store import Store
from pipelines.worker.checkpoints import Checkpoints
from pipelines.worker.failures import ImageTimeoutError, is_out_of_memory, leave_if_the_gpu_is_lost, outcome_of
from pipelines.worker.painting import Studio
from pipelines.worker.provenance import Making, store_provenance
from pipelines.worker.reading import read_scan

logger = logging.getLogger(__name__)
LOSS_POINTS = 24  # of each stage's curve
_SAMPLING_SHARE = 0.3  # of an image's training time, a guess on the safe side for what comes after it


class _Stopped(Exception):
    """Asked to stop, and too much is left to do: the images are checkpointed, their rows stay pending."""


@dataclass(kw_only=True)
class _Job:
    """A task on its way: decoded, then fitted, then colored."""

    task: Task
    view: View
    studio: Studio
    input_sha256: str
    gray_sha256: str
    fit_key: str
    scan: Scan
    warnings: list[str]
    checkpoint: Checkpoint | None = None
    resumed_at: str | None = None
    fitted: Fitted | None = None
    primary_image: str | None = None
    primary_sha256: str | None = None
    primary_preview: str | None = None
    artifact_sha256: str | None = None
    losses: list[dict[str, Any]] = field(default_factory=list)
    trained_steps: int = 0
    seconds: float = 0.0


class Worker:
    """One process with its models. `process` works; `progress` and `request_stop` may be called meanwhile.

    Attributes:
        models: what was loaded.
    """

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        device = resolve_device(spec.device)
        self.base = load_base_model(spec.base_model, device)
        self.judge = load_judge(spec.judge, device)
        self.models = Models(
            base_model=self.base.name,
            base_model_digest=self.base.digest,
            judge=self.judge.name,
            judge_digest=self.judge.digest,
        )
        self.store = Store(spec.output, patience=spec.patience, preconditions=spec.preconditions)
        self.log = EventLog(self.store.hurried(), spec.run, f"worker-{platform.node()}-{os.getpid()}")
        self.store.on_retry = self._store_retry
        self.ledger = Ledger(self.store)
        self.checkpoints = Checkpoints(self.store, self.log)
        self._progress: dict[str, Any] = {"stage": "idle", "ticks": 0}
        self._stop_at: float | None = None
        self._k: dict[tuple[int, ...], int] = {}  # working sizes that did not fit into memory K at a time

    def progress(self) -> dict[str, Any]:
        """What it is doing: stage, step, steps, ids; `ticks` moves whenever it does."""
        return self._progress

    def request_stop(self, seconds: float) -> None:
        """Asks for the end of `process` within so many seconds: images end or are checkpointed."""
        self._stop_at = time.monotonic() + seconds

    def _store_retry(self, error: BaseException, delay: float) -> None:
        """Waiting for a store is no standstill."""
        self.log("store_retry", error=str(error), seconds=delay)
        self._progress = {**self._progress, "ticks": self._progress["ticks"] + 1}

    def _tell(self, stage: str, ids: list[str], **more: int) -> None:
        self._progress = {"stage": stage, "ids": ids, **more, "ticks": self._progress["ticks"] + 1}

    def process(self, tasks: Sequence[Task]) -> list[ResultRow]:
        """Finishes every task: its result is committed to the store and returned.

        Never raises for a row. A stop leaves rows out: they are pending still.

        Raises:
            StoreError: the output store is of no use any more; the rows are pending still.
        """
        outcomes, jobs = [], []
        try:
            for task in tasks:
                self._tell("read", [task.row.id])
                prepared = self._guarded(task, lambda task=task: self._prepare(task))
                (outcomes if isinstance(prepared, ResultRow) else jobs).append(prepared)
            for lockstep in self._locksteps(jobs):
                outcomes += self._finish(lockstep)
        except _Stopped:
            self.log("stopped", ids=[task.row.id for task in tasks])
        self.log.flush()
        self._tell("idle", [])
        return outcomes

    # Reading ---------------------------------------------------------------------------------------------------------

    def _prepare(self, task: Task) -> _Job:
        row = task.row
        options = self.spec.outputs
        rules = Rules(max_pixels=self.spec.max_pixels, toned=options.toned, assume_srgb=options.assume_srgb)
        view, input_sha256 = read_scan(row, rules, self.spec.patience, self._store_retry)
        size = working_size(*view.shape, self.base.training_area, self.base.size_multiple)
        warnings = [*row.warnings, *view.image.warnings]
        if view.halftone:
            warnings.append(
                f"halftone: printed in dots {view.halftone:.1f} pixels apart; the model sees it without them"
            )
        warnings += [
            f"prompt_too_long: {prompt[:40]!r}...: the model does not see {cut!r}"
            for prompt in (row.caption, *row.target_prompts)
            if (cut := cut_words(self.base, prompt))
        ]
        scan = Scan(
            gray=torch.from_numpy(view.gray(*size))[None],
            context_prompt=row.caption,
            anti_color_prompts=row.anti_color_prompts or self.spec.config.fit.anti_color_prompts,
            seed=row.seed,
        )
        job = _Job(
            task=task,
            view=view,
            studio=Studio(
                store=self.store,
                options=options,
                row_id=row.id,
                view=view,
                model=f"{self.base.name} {self.base.digest[:16]}",
                original=redacted(row.image) if row.image else row.id,
                original_sha256=input_sha256,
                prompt_writer=row.prompt_writer,
            ),
            input_sha256=input_sha256,
            gray_sha256=scratch.sha256_of_pixels(view.image.gray),
            fit_key=fit_key(input_sha256, row, self.models, self.spec.config),
            scan=scan,
            warnings=warnings,
        )
        try:
            self._use_artifact(job)
        except ArtifactError as error:
            job.warnings.append(f"artifact_damaged: {error}; fitted again")
        if job.fitted is None:
            job.checkpoint = self.checkpoints.load(job.fit_key)
        return job

    def _use_artifact(self, job: _Job) -> None:
        """Takes an earlier fit of the same key, if there is one.

        Raises:
            ArtifactError: there is one, and it or its primary picture is damaged.
        """
        try:
            content = self.store.read(artifact_key(job.task.row.id, job.fit_key))
        except FileNotFoundError:
            return
        fitted, record = from_bytes(content, job.scan.gray, self.base), read_record(content)
        try:
            with self.store.read_file(record.primary_image) as primary:
                wrong = check_luma(primary, job.view.image.gray).mismatches
                primary_sha256 = scratch.sha256_of_file(primary)
        except (FileNotFoundError, InputImageError, ValueError):
            wrong = 1
        if wrong:
            raise ArtifactError(f"{record.primary_image} does not hold the scan's gray values")
        job.fitted, job.artifact_sha256 = fitted, sha256(content)
        job.primary_image, job.primary_sha256 = record.primary_image, primary_sha256
        job.primary_preview = record.primary_preview

    # Fitting and painting --------------------------------------------------------------------------------------------

    def _locksteps(self, jobs: list[_Job]) -> list[list[_Job]]:
        """Groups of at most K jobs of one working size that need the same work from the same point."""

        def kind(job: _Job) -> tuple:
            point = (job.checkpoint.stage, job.checkpoint.step) if job.checkpoint else ("", 0)
            return job.fitted is None, tuple(job.scan.gray.shape), point

        locksteps = []
        for (_, size, _), group in groupby(sorted(jobs, key=kind), key=kind):
            alike, k = list(group), self._k.get(size, self.spec.images_per_step)
            locksteps += [alike[first : first + k] for first in range(0, len(alike), k)]
        return locksteps

    def _finish(self, jobs: list[_Job]) -> list[ResultRow]:
        """Fits and paints a lockstep; if that breaks down, each image gets a try of its own, or half of them do."""
        started = time.monotonic()
        try:
            failures = self._fit([job for job in jobs if job.fitted is None])
            healthy = [job for job in jobs if job.fitted is not None]
            painted = self._paint(healthy) if healthy else []
        except (StoreError, _Stopped):
            raise
        except Exception as error:  # the one place where an image's failure becomes that image's result
            leave_if_the_gpu_is_lost(error)
            if len(jobs) == 1:
                return [self._failure(jobs[0].task, error)]
            smaller = len(jobs) // 2 if is_out_of_memory(error) else 1
            self.log("lockstep_broke", ids=_ids(jobs), error=f"{type(error).__name__}: {error}", next_k=smaller)
        else:
            smaller = 0
        if smaller:  # out of the handler: the exception's frames would hold on to all that was on the GPU
            return self._finish_in_parts(jobs, smaller)
        share = (time.monotonic() - started) / len(jobs)
        rows = [self._failure(job.task, error) for job, error in failures]
        for job, colored in zip(healthy, painted, strict=True):
            job.seconds = share
            rows.append(self._guarded(job.task, lambda job=job, colored=colored: self._write_outputs(job, colored)))
        return rows

    def _finish_in_parts(self, jobs: list[_Job], k: int) -> list[ResultRow]:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if k > 1:
            self._k[tuple(jobs[0].scan.gray.shape)] = k
        self.checkpoints.wait()
        for job in jobs:
            if job.fitted is None:
                job.checkpoint = self.checkpoints.load(job.fit_key)
        parts = self._locksteps(jobs) if k > 1 else [[job] for job in jobs]
        return [row for part in parts for row in self._finish(part)]

    def _fit(self, jobs: list[_Job]) -> list[tuple[_Job, Exception]]:
        """Trains the jobs together and stores their artifacts; returns those that failed."""
        if not jobs:
            return []
        resumed = [job.checkpoint for job in jobs] if jobs[0].checkpoint else None
        for job in jobs:
            job.losses.clear()
            job.resumed_at = f"{job.checkpoint.stage}/{job.checkpoint.step}" if resumed else None
        if resumed:
            self.log("resumed", ids=_ids(jobs), at=jobs[0].resumed_at)
        steps = fit(self.base, self.judge, [job.scan for job in jobs], self.spec.config.fit, resumed)
        trained, started, saved, recent = 0, time.monotonic(), time.monotonic(), []
        while True:
            try:
                progress = next(steps)
            except StopIteration as stop:
                outcomes = stop.value
                break
            trained += progress.step > 0
            _note_losses(jobs, progress, recent)
            self._tell(progress.stage, _ids(jobs), step=progress.step, steps=progress.steps)
            now = time.monotonic()
            if progress.step == 0 or now - saved >= self.spec.checkpoint_seconds:
                self._save(jobs, progress)
                saved = now
            limit = self.spec.timeout_seconds
            if limit is not None and now - started > limit * len(jobs):
                return [(job, ImageTimeoutError(limit, progress.stage, progress.step)) for job in jobs]
            if self._must_stop(progress, (now - started) / max(1, trained)):
                self.checkpoints.wait()
                self._save(jobs, progress)
                self.checkpoints.wait()
                raise _Stopped
        failed = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, DiffColorError):
                failed.append((job, outcome))
                continue
            try:
                self._store_fit(job, outcome)
            except StoreError:
                raise
            except Exception as error:  # this image's alone: the others' training is not lost with it
                failed.append((job, error))
                continue
            job.trained_steps = trained
        self.checkpoints.drop([job.fit_key for job in jobs])
        return failed

    def _save(self, jobs: list[_Job], progress: Progress) -> None:
        states = [(job.fit_key, progress.checkpoint(k)) for k, job in enumerate(jobs)]
        self.checkpoints.save([(key, state) for key, state in states if state is not None])

    def _must_stop(self, progress: Progress, step_seconds: float) -> bool:
        """Whether a stop was asked for, and this lockstep cannot end within the time that it left."""
        if self._stop_at is None:
            return False
        config = self.spec.config.fit
        budgets = {
            "color_prior": config.color_prior_steps + config.embedding_steps + config.in_context_steps,
            "embedding": config.embedding_steps + config.in_context_steps,
            "in_context": config.in_context_steps,
        }
        total = sum((config.color_prior_steps, config.embedding_steps, config.in_context_steps))
        left = budgets[progress.stage] - progress.step + _SAMPLING_SHARE * total
        return time.monotonic() + left * step_seconds > self._stop_at

    def _store_fit(self, job: _Job, fitted: Fitted) -> None:
        """The primary picture first, then the artifact that names it. Of two runs with one fit, the first counts."""
        row = job.task.row
        chroma = job.view.chroma(fitted.primary)
        primary, preview = job.studio.store_picture(0, row.caption, chroma), job.studio.store_preview("primary", chroma)
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
            gray_sha256=job.gray_sha256,
            primary_image=primary.key,
            primary_preview=preview,
        )
        content, key = to_bytes(fitted, record), artifact_key(row.id, job.fit_key)
        if not self.store.create(key, content):
            try:
                self._use_artifact(job)
                return
            except ArtifactError:  # what stands there is of no use to anybody
                self.store.write(key, content)
        job.fitted, job.artifact_sha256 = fitted, sha256(content)
        job.primary_image, job.primary_sha256, job.primary_preview = primary.key, primary.sha256, preview

    def _paint(self, jobs: list[_Job]) -> list[list[list[Colored]]]:
        """For each job, for each of its target prompts, the candidates, best first."""
        self._tell("sample", _ids(jobs))
        requests = [(job.fitted, prompt) for job in jobs for prompt in job.task.row.target_prompts]
        at_once = max(1, MAX_SAMPLING_BATCH // len(self.spec.config.etas))
        ladders = []
        for first in range(0, len(requests), at_once):
            ladders += recolor(self.base, self.judge, requests[first : first + at_once], self.spec.config)
            self._tell("sample", _ids(jobs), step=len(ladders), steps=len(requests))
        candidates = iter(ladders)
        return [[next(candidates) for _ in job.task.row.target_prompts] for job in jobs]

    # Outcomes --------------------------------------------------------------------------------------------------------

    def _write_outputs(self, job: _Job, painted: list[list[Colored]]) -> ResultRow:
        row = job.task.row
        self._tell("write", [row.id])
        started = time.monotonic()
        outputs = tuple(
            job.studio.store_output(number, prompt, ladder, "manifest")
            for number, (prompt, ladder) in enumerate(zip(row.target_prompts, painted, strict=True), start=1)
        )
        blank = blank_result(job.task, self.spec, self.models)
        result = replace(
            blank,
            status=OK,
            warnings=(*blank.warnings, *(one for one in job.warnings if one not in blank.warnings)),
            outputs=(*outputs, *blank.outputs),
            primary_image=job.primary_image,
            primary_sha256=job.primary_sha256,
            artifact=artifact_key(row.id, job.fit_key),
            artifact_sha256=job.artifact_sha256,
            input_sha256=job.input_sha256,
            gray_sha256=job.gray_sha256,
            width=job.view.image.gray.shape[1],
            height=job.view.image.gray.shape[0],
            source=asdict(job.view.image.source),
            halftone=job.view.halftone,
            preview=job.studio.store_preview("scan", None),
            primary_preview=job.primary_preview,
            seconds=round(job.seconds + time.monotonic() - started, 3),
            losses=tuple(job.losses),
            trained_steps=job.trained_steps,
            resumed_at=job.resumed_at,
            luminance_mismatches=0,  # `store_picture` counted, and refuses any other picture
            fit_key=job.fit_key,
        )
        for output in outputs:
            store_provenance(self.store, result, output, self._making(job))
        return self._commit(job.task, result)

    def _making(self, job: _Job) -> Making:
        return Making(
            config=self.spec.config,
            options=self.spec.outputs,
            models=asdict(self.models),
            device=str(self.base.device),
            scheduler=type(self.base.scheduler).__name__,
            working_size=tuple(job.scan.gray.shape[-2:]),
            anti_color_prompts=job.scan.anti_color_prompts,
            color_hints=job.task.row.color_hints,
        )

    def _commit(self, task: Task, result: ResultRow) -> ResultRow:
        return self.ledger.commit(task.place, result, uuid.uuid4().hex)

    def _guarded(self, task: Task, work):
        """The work's value, or the result row of its failure."""
        try:
            return work()
        except StoreError:
            raise
        except Exception as error:
            return self._failure(task, error)

    def _failure(self, task: Task, error: Exception) -> ResultRow:
        status, kind, message = outcome_of(error)
        if kind == "internal":
            logger.error("row %s failed:\n%s", task.row.id, traceback.format_exc())
            self.log("bug", id=task.row.id, traceback="".join(traceback.format_exception(error)))
        blank = blank_result(task, self.spec, self.models)
        return self._commit(task, replace(blank, status=status, error_kind=kind, error_message=message))


def _note_losses(jobs: list[_Job], progress: Progress, recent: list[torch.Tensor]) -> None:
    """A few points of each image's loss curves, for the report: means over the steps since the last point, because
    single steps say more of their timestep than of the training. Each point waits for the GPU."""
    if not progress.losses:  # a stage begins
        recent.clear()
        return
    recent.append(sum(progress.losses.values()))
    if progress.step % max(1, progress.steps // LOSS_POINTS) == 0:
        means = torch.stack(recent).mean(0).tolist()
        recent.clear()
        for job, loss in zip(jobs, means, strict=True):
            if math.isfinite(loss):
                job.losses.append({"stage": progress.stage, "step": progress.step, "loss": loss})


def _ids(jobs: list[_Job]) -> list[str]:
    return [job.task.row.id for job in jobs]
