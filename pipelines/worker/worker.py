"""What runs on a GPU: loads the models once, turns manifest rows into result rows, never raises for one row."""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from diffcolor.colorize import MAX_SAMPLING_BATCH, Colored, recolor
from diffcolor.errors import ArtifactError
from diffcolor.lockstep import Progress
from diffcolor.models import load_models
from pipelines.errors import StoreError
from pipelines.job import JobSpec
from pipelines.ledger.results import ResultRow
from pipelines.ledger.task import Task
from pipelines.progress import WorkerProgress
from pipelines.store.events import EventLog
from pipelines.store.store import Store
from pipelines.worker.checkpoints import Checkpoints
from pipelines.worker.failures import ImageTimeoutError, is_out_of_memory, leave_if_the_gpu_is_lost
from pipelines.worker.fits import FitStore
from pipelines.worker.fitting import Stopped, StopRequest, Trained, Trainer
from pipelines.worker.locksteps import LockstepSizes, Row, locksteps
from pipelines.worker.outcomes import Outcomes
from pipelines.worker.reading import decode_row
from pipelines.worker.rows import DecodedRow, FittedRow, PaintedRow


class Worker:
    """One process with its models. `process` works; `progress` and `request_stop` may be called meanwhile.

    Attributes:
        identity: of the models that were loaded.
    """

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.models = load_models(
            spec.base_model, spec.judge, spec.device, spec.precision, spec.deterministic, spec.loss_decoder
        )
        self.identity = self.models.identity
        self.store = Store(spec.output, patience=spec.patience, preconditions=spec.preconditions)
        self.log = EventLog(self.store.with_timeout(), spec.run, f"worker-{platform.node()}-{os.getpid()}")
        self.store.on_retry = self._on_store_retry
        self.checkpoints = Checkpoints(self.store, self.log)
        self.fits = FitStore(self.store, self.models, spec.config)
        self.outcomes = Outcomes(self.store, spec, self.models, self.log)
        self.sizes = LockstepSizes(spec.images_per_step)
        self.stop = StopRequest()
        self._progress = WorkerProgress(stage="idle")

    def progress(self) -> WorkerProgress:
        """What it is doing; `ticks` grows with every step."""
        return self._progress

    def request_stop(self, seconds: float) -> None:
        """Asks for the end of `process` within so many seconds: images end or are checkpointed."""
        self.stop.ask(seconds)

    def _on_store_retry(self, error: BaseException, delay: float) -> None:
        """Waiting for a store does not count as a stall."""
        self.log("store_retry", error=str(error), seconds=delay)
        self._progress = replace(self._progress, ticks=self._progress.ticks + 1)

    def _set_progress(self, stage: str, ids: Sequence[str], step: int | None = None, steps: int | None = None) -> None:
        self._progress = WorkerProgress(
            stage=stage, ids=tuple(ids), step=step, steps=steps, ticks=self._progress.ticks + 1
        )

    def process(self, tasks: Sequence[Task]) -> list[ResultRow]:
        """Finishes every task: its result is committed to the store and returned.

        Never raises for a row. A stop leaves rows out: they are pending still.

        Raises:
            StoreError: the output store cannot be used any more; the rows are pending still.
        """
        results: list[ResultRow] = []
        rows: list[Row] = []
        try:
            self.checkpoints.look()
            for task in tasks:
                self._set_progress("read", [task.row.id])
                prepared = self.outcomes.guarded(task, partial(self._prepare, task))
                if isinstance(prepared, ResultRow):
                    results.append(prepared)
                else:
                    rows.append(prepared)
            for lockstep in locksteps(rows, self.sizes):
                results += self._finish(lockstep)
        except Stopped:
            self.log("stopped", ids=[task.row.id for task in tasks])
        self.log.flush()
        self._set_progress("idle", [])
        return results

    def _prepare(self, task: Task) -> Row:
        """Reads a row's scan and looks for what earlier runs have made of it: a fit, or a checkpoint."""
        row = decode_row(task, self.spec, self.models, self._on_store_retry)
        try:
            if fit := self.fits.find(row):
                return FittedRow(decoded=row, fit=fit)
        except ArtifactError as error:
            row = replace(row, warnings=(*row.warnings, f"artifact_damaged: {error}; fitted again"))
        return self._with_checkpoint(row)

    def _with_checkpoint(self, row: Row) -> Row:
        if isinstance(row, FittedRow):
            return row
        checkpoint = self.checkpoints.load(row.request.fit_key)
        return replace(row, request=replace(row.request, checkpoint=checkpoint))

    # Fitting and painting --------------------------------------------------------------------------------------------

    def _finish(self, rows: Sequence[Row]) -> list[ResultRow]:
        """Fits and paints a lockstep; if that breaks down, each image gets a try of its own, or half of them do."""
        started = time.monotonic()
        fitted = [row for row in rows if isinstance(row, FittedRow)]
        failures: dict[str, Exception] = {}
        try:
            self._fit([row for row in rows if isinstance(row, DecodedRow)], fitted, failures)
            ladders = self._paint(fitted) if fitted else []
        except (StoreError, Stopped):
            raise
        except Exception as error:  # the one place where an image's failure becomes that image's result
            leave_if_the_gpu_is_lost(error)
            if len(rows) == 1:
                return [self.outcomes.failure(_task(rows[0]), error)]
            smaller = len(rows) // 2 if is_out_of_memory(error) else 1
            self.log("lockstep_broke", ids=_ids(rows), error=f"{type(error).__name__}: {error}", next_k=smaller)
        else:
            smaller, share = 0, (time.monotonic() - started) / len(rows)
        results = [self.outcomes.failure(_task(row), failures[row.id]) for row in rows if row.id in failures]
        if not smaller:
            for row, ladder in zip(fitted, ladders, strict=True):
                results.append(self._write(PaintedRow(fitted=row, ladders=ladder, seconds=share)))
            return results
        # Out of the handler: the exception's frames would hold on to all that was on the GPU. Fits are not lost.
        done = failures.keys() | {row.id for row in fitted}
        return results + self._finish_in_parts([*fitted, *(row for row in rows if row.id not in done)], smaller)

    def _write(self, row: PaintedRow) -> ResultRow:
        self._set_progress("write", [row.fitted.id])
        return self.outcomes.guarded(_task(row.fitted), partial(self.outcomes.success, row))

    def _finish_in_parts(self, rows: Sequence[Row], k: int) -> list[ResultRow]:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if k > 1:
            self.sizes.remember(tuple(rows[0].scan.gray.shape), k)
        self.checkpoints.wait()
        rows = [self._with_checkpoint(row) for row in rows]
        parts = locksteps(rows, self.sizes) if k > 1 else [[row] for row in rows]
        return [outcome for part in parts for outcome in self._finish(part)]

    def _fit(self, rows: Sequence[DecodedRow], fitted: list[FittedRow], failures: dict[str, Exception]) -> None:
        """Trains rows and stores their fits; adds them to `fitted`, or their errors to `failures` by id."""
        if not rows:
            return
        if checkpoint := rows[0].request.checkpoint:
            self.log("resumed", ids=_ids(rows), at=f"{checkpoint.stage}/{checkpoint.step}")
        for row, outcome in zip(rows, self._trainer(rows).train([row.request for row in rows]), strict=True):
            if not isinstance(outcome, Trained):
                failures[row.id] = outcome
                continue
            try:
                fit = self.fits.store_fit(row, outcome.fitted, self.outcomes.writer(row))
            except StoreError:
                raise
            except Exception as error:  # this image's alone: the others' training is not lost with it
                failures[row.id] = error
            else:
                fitted.append(FittedRow(decoded=row, fit=fit, training=outcome.training))
        if not any(isinstance(error, ImageTimeoutError) for error in failures.values()):
            self.checkpoints.drop([row.request.fit_key for row in rows])

    def _trainer(self, rows: Sequence[DecodedRow]) -> Trainer:
        ids = _ids(rows)

        def report(progress: Progress) -> None:
            self._set_progress(progress.stage, ids, progress.step, progress.steps)

        return Trainer(
            models=self.models,
            config=self.spec.config.fit,
            checkpoints=self.checkpoints,
            stop=self.stop,
            checkpoint_seconds=self.spec.checkpoint_seconds,
            timeout_seconds=self.spec.timeout_seconds,
            report=report,
        )

    def _paint(self, rows: Sequence[FittedRow]) -> list[list[list[Colored]]]:
        """For each row, for each of its target prompts, the candidates, best first."""
        self._set_progress("sample", _ids(rows))
        requests = [(row.fit.fitted, prompt) for row in rows for prompt in _task(row).row.target_prompts]
        at_once = 1 if self.spec.deterministic else max(1, MAX_SAMPLING_BATCH // len(self.spec.config.etas))
        ladders: list[list[Colored]] = []
        for first in range(0, len(requests), at_once):
            ladders += recolor(self.models, requests[first : first + at_once], self.spec.config)
            self._set_progress("sample", _ids(rows), len(ladders), len(requests))
        candidates = iter(ladders)
        return [[next(candidates) for _ in _task(row).row.target_prompts] for row in rows]


def _task(row: Row) -> Task:
    return row.decoded.task if isinstance(row, FittedRow) else row.task


def _ids(rows: Sequence[Row]) -> list[str]:
    return [row.id for row in rows]
