"""What runs on a GPU: loads the models once, turns manifest rows into result rows, never raises for one row."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock

import torch

from diffcolor.colorize import MAX_SAMPLING_BATCH, Colored, recolor
from diffcolor.errors import ArtifactError
from diffcolor.identity import ModelIdentity
from diffcolor.lockstep import Progress
from diffcolor.memory import CudaMeter, images_that_fit
from diffcolor.models import load_models
from pipelines.errors import DamagedFileError, StoreError
from pipelines.job import IMAGES_PER_STEP, JobSpec
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import ResultRow
from pipelines.ledger.task import Task
from pipelines.progress import WorkerProgress
from pipelines.store.events import EventLog
from pipelines.store.store import Store
from pipelines.worker.checkpoints import Checkpoints
from pipelines.worker.failures import ImageTimeoutError, is_out_of_memory, leave_if_the_gpu_is_lost
from pipelines.worker.fits import FitStore
from pipelines.worker.fitting import Stopped, StopRequest, Trained, Trainer
from pipelines.worker.locksteps import LockstepSizes, locksteps
from pipelines.worker.outcomes import Outcomes
from pipelines.worker.overlap import Overlap
from pipelines.worker.reading import decode_row
from pipelines.worker.rows import DecodedRow, FittedRow, PaintedRow, Row


class Worker:
    """One process with its models. `process` works; `progress` and `request_stop` may be called meanwhile.

    Attributes:
        identity: of the models that were loaded.
        at_work: called with the ids of the rows in hand, whenever they change; rows that only wait are not in hand.
    """

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.models = load_models(
            spec.base_model, spec.judge, spec.device, spec.precision, spec.deterministic, spec.loss_decoder
        )
        self.store = Store(spec.output, patience=spec.patience, preconditions=spec.preconditions)
        self.models = self.models.known_as(_models_of(self.store))
        self.identity = self.models.identity
        self.log = EventLog(self.store.with_timeout(), spec.run, f"worker-{platform.node()}-{os.getpid()}")
        self.store.on_retry = self._on_store_retry
        self.checkpoints = Checkpoints(self.store, self.log)
        self.fits = FitStore(self.store, self.models, spec.config)
        self.outcomes = Outcomes(self.store, spec, self.models, self.log)
        self.sizes = LockstepSizes(spec.images_per_step, self._find_k)
        self.stop = StopRequest()
        self.at_work: Callable[[Sequence[str]], None] = lambda _ids: None
        self._progress, self._progress_lock = WorkerProgress(stage="idle"), Lock()
        self.overlap = Overlap(
            read=self._prepare,
            group=lambda rows: locksteps(rows, self.sizes),
            compute=self._compute,
            write=self._write,
            full=lambda row: self.sizes.of(row.working_size),
            writers=max(1, torch.get_num_threads() - 1),
            at_work=self._note_work,
        )

    def progress(self) -> WorkerProgress:
        """What it is doing; `ticks` grows with every step."""
        return self._progress

    def request_stop(self, seconds: float) -> None:
        """Asks for the end of `process` within so many seconds: images end or are checkpointed."""
        self.stop.ask(seconds)

    def _on_store_retry(self, error: BaseException, delay: float) -> None:
        """Waiting for a store does not count as a stall."""
        self.log("store_retry", error=str(error), seconds=delay)
        self._tick()

    def _tick(self) -> None:
        with self._progress_lock:
            self._progress = replace(self._progress, ticks=self._progress.ticks + 1)

    def _set_progress(self, stage: str, ids: Sequence[str], step: int | None = None, steps: int | None = None) -> None:
        with self._progress_lock:
            ticks = self._progress.ticks + 1
            self._progress = WorkerProgress(stage=stage, ids=tuple(ids), step=step, steps=steps, ticks=ticks)

    def _note_work(self, reading: list[str], computing: list[str], writing: list[str]) -> None:
        """What is told of a worker is what its models do; while they do nothing, what else it does."""
        self.at_work([*reading, *computing, *writing])
        if computing and set(computing) >= set(self._progress.ids) != set():
            self._tick()
        elif computing:
            self._set_progress("start", computing)
        else:
            self._set_progress("write" if writing else "read" if reading else "idle", writing or reading)

    def process(self, tasks: Sequence[Task]) -> list[ResultRow]:
        """Finishes every task: its result is committed to the store and returned. Called for several at a time, from
        several threads: they are read, computed and written side by side (`overlap`).

        Never raises for a row. A stop leaves rows out: they are pending still.

        Raises:
            StoreError: the output store cannot be used any more; the rows are pending still.
        """
        try:
            return self.overlap.run(tasks)
        except KeyboardInterrupt:
            self.request_stop(0.0)
            raise
        finally:
            if self.overlap.is_idle:
                self.log.flush()

    def _find_k(self, size: tuple[int, int]) -> int:
        """As many images of a working size as fit on the GPU."""
        if self.models.device.type != "cuda":
            return IMAGES_PER_STEP
        self._set_progress("probe", self._progress.ids)
        try:
            k = images_that_fit(self.models, size, self.spec.config.fit, CudaMeter(self.models.device))
        except Exception as error:
            leave_if_the_gpu_is_lost(error)
            self.log("probe_failed", height=size[0], width=size[1], error=f"{type(error).__name__}: {error}")
            return 1
        self.log("images_that_fit", height=size[0], width=size[1], k=k)
        return k

    def _prepare(self, task: Task) -> Row | ResultRow:
        return self.outcomes.guarded(task, partial(self._decoded, task))

    def _decoded(self, task: Task) -> Row:
        """Reads a row's scan and looks for what earlier runs have made of it: a fit, or a checkpoint."""
        row = decode_row(task, self.spec, self.models, self._on_store_retry)
        try:
            if fitted := self.fits.find(row):
                return fitted
        except ArtifactError as error:
            row = replace(row, warnings=(*row.warnings, f"artifact_damaged: {error}; fitted again"))
        return self._with_checkpoint(row)

    def _with_checkpoint(self, row: Row) -> Row:
        if isinstance(row, FittedRow):
            return row
        checkpoint = self.checkpoints.load(row.request.fit_key)
        return replace(row, request=replace(row.request, checkpoint=checkpoint))

    # Fitting and painting --------------------------------------------------------------------------------------------

    def _compute(self, rows: Sequence[Row], waited: float = 0.0) -> Iterator[ResultRow | PaintedRow]:
        """Fits and paints a lockstep; if that breaks down, each image gets a try of its own, or half of them do.

        Args:
            waited: seconds for which there was nothing to compute before.

        Raises:
            Stopped: the rows without an outcome are pending still.
        """
        if len(rows) > self.sizes.find_out(rows[0].working_size):
            for part in locksteps(rows, self.sizes):
                yield from self._compute(part)
            return
        trains = self.models.base is not None and any(isinstance(row, DecodedRow) for row in rows)
        if not trains and not self.stop.leaves_time_for(0):  # training sees a stop by itself, and saves what it has
            raise Stopped
        started = time.monotonic() - waited
        fitted = [row for row in rows if isinstance(row, FittedRow)]
        failures: dict[str, Exception] = {}
        try:
            self._fit([row for row in rows if isinstance(row, DecodedRow)], fitted, failures)
            ladders = self._paint(fitted) if fitted else []
        except Stopped:
            self.log("stopped", ids=_ids(rows))
            raise
        except StoreError:
            raise
        except Exception as error:  # the one place where an image's failure becomes that image's result
            leave_if_the_gpu_is_lost(error)
            if len(rows) == 1:
                yield self.outcomes.failure(rows[0].task, error)
                return
            smaller = len(rows) // 2 if is_out_of_memory(error) else 1
            self.log("lockstep_broke", ids=_ids(rows), error=f"{type(error).__name__}: {error}", next_k=smaller)
        else:
            smaller, share = 0, (time.monotonic() - started) / len(rows)
        yield from (self.outcomes.failure(row.task, failures[row.id]) for row in rows if row.id in failures)
        if not smaller:
            for row, ladder in zip(fitted, ladders, strict=True):
                yield PaintedRow(fitted=row, ladders=ladder, seconds=share).off_the_device()
            return
        # Out of the handler: the exception's frames would hold on to all that was on the GPU. Fits are not lost.
        done = failures.keys() | {row.id for row in fitted}
        yield from self._compute_in_parts([*fitted, *(row for row in rows if row.id not in done)], smaller)

    def _compute_in_parts(self, rows: Sequence[Row], k: int) -> Iterator[ResultRow | PaintedRow]:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if k > 1:
            self.sizes.remember(rows[0].working_size, k)
        self.checkpoints.wait()
        rows = [self._with_checkpoint(row) for row in rows]
        for part in locksteps(rows, self.sizes) if k > 1 else [[row] for row in rows]:
            yield from self._compute(part)

    def _fit(self, rows: Sequence[DecodedRow], fitted: list[FittedRow], failures: dict[str, Exception]) -> None:
        """Trains rows; adds them to `fitted`, or their errors to `failures` by id."""
        if not rows:
            return
        if checkpoint := rows[0].request.checkpoint:
            self.log("resumed", ids=_ids(rows), at=f"{checkpoint.stage}/{checkpoint.step}")
        for row, outcome in zip(rows, self._trainer(rows).train([row.request for row in rows]), strict=True):
            if isinstance(outcome, Trained):
                fitted.append(FittedRow(decoded=row, fitted=outcome.fitted, stored=None, training=outcome.training))
            else:
                failures[row.id] = outcome
                if not isinstance(outcome, ImageTimeoutError):
                    self.checkpoints.drop([row.request.fit_key])

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
        requests = [(row.fitted, prompt) for row in rows for prompt in row.task.row.target_prompts]
        at_once = 1 if self.spec.deterministic else max(1, MAX_SAMPLING_BATCH // len(self.spec.config.etas))
        ladders: list[list[Colored]] = []
        for first in range(0, len(requests), at_once):
            ladders += recolor(self.models, requests[first : first + at_once], self.spec.config)
            self._set_progress("sample", _ids(rows), len(ladders), len(requests))
        candidates = iter(ladders)
        return [[next(candidates) for _ in row.task.row.target_prompts] for row in rows]

    # Writing ---------------------------------------------------------------------------------------------------------

    def _write(self, painted: PaintedRow) -> Row | ResultRow:
        return self.outcomes.guarded(painted.fitted.task, partial(self._stored, painted))

    def _stored(self, painted: PaintedRow) -> Row | ResultRow:
        """Stores a fresh fit, then the pictures. If meanwhile another run has stored its fit of the same key, that one
        counts, and its colours are to be painted."""
        fresh = painted.fitted
        if fresh.stored is None:
            kept = self.fits.store_fit(fresh, self.outcomes.writer(fresh.decoded))
            self.checkpoints.drop([fresh.decoded.request.fit_key])
            if kept.fitted is not fresh.fitted:
                return kept
            painted = replace(painted, fitted=kept)
        return self.outcomes.success(painted)


def _models_of(store: Store) -> ModelIdentity | None:
    """The models that made what is in an output store; None where nothing is."""
    try:
        return Ledger(store).read_job().models
    except (FileNotFoundError, DamagedFileError):
        return None


def _ids(rows: Sequence[Row]) -> list[str]:
    return [row.id for row in rows]
