"""The outcome of a row, committed to the ledger: its pictures and their records, or what went wrong."""

import logging
import traceback
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TypeVar

from diffcolor.models import Models
from manifests.locations import redacted
from pipelines.errors import StoreError
from pipelines.job import JobSpec
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.names import artifact_key
from pipelines.ledger.results import OK, ResultRow
from pipelines.ledger.task import Task, blank_result
from pipelines.store.events import EventLog
from pipelines.store.store import Store
from pipelines.worker.failures import leave_if_the_gpu_is_lost, outcome_of
from pipelines.worker.painting import PictureWriter, unlike
from pipelines.worker.provenance import GenerationContext, store_provenance
from pipelines.worker.rows import DecodedRow, PaintedRow

logger = logging.getLogger(__name__)
Value = TypeVar("Value")


class Outcomes:
    """Turns painted rows and errors into committed result rows."""

    def __init__(self, store: Store, spec: JobSpec, models: Models, log: EventLog) -> None:
        self.store, self.spec, self.models, self.log = store, spec, models, log
        self.ledger = Ledger(store)

    def guarded(self, task: Task, work: Callable[[], Value]) -> Value | ResultRow:
        """The work's value, or the result row of its failure.

        Raises:
            StoreError: the output store cannot be used.
        """
        try:
            return work()
        except StoreError:
            raise
        except Exception as error:
            leave_if_the_gpu_is_lost(error)
            return self.failure(task, error)

    def failure(self, task: Task, error: Exception) -> ResultRow:
        """Commits a row that failed or is skipped."""
        status, kind, message = outcome_of(error)
        if kind == "internal":
            logger.error("row %s failed:\n%s", task.row.id, traceback.format_exc())
            self.log("bug", id=task.row.id, traceback="".join(traceback.format_exception(error)))
        blank = blank_result(task, self.spec, self.models.identity)
        return self._commit(task, replace(blank, status=status, error_kind=kind, error_message=message))

    def success(self, painted: PaintedRow) -> ResultRow:
        """Stores a row's pictures with their records, and commits it."""
        fitted, row = painted.fitted, painted.fitted.decoded
        task, view, fit, writer = row.task, row.view, fitted.stored, self.writer(row)
        assert fit is not None, "its fit is stored before its pictures"
        outputs = tuple(
            writer.store_output(number, prompt, ladder, "manifest")
            for number, (prompt, ladder) in enumerate(zip(task.row.target_prompts, painted.ladders, strict=True), 1)
        )
        blank = blank_result(task, self.spec, self.models.identity)
        result = replace(
            blank,
            status=OK,
            warnings=tuple(dict.fromkeys((*blank.warnings, *row.warnings, *unlike(outputs)))),
            outputs=(*outputs, *blank.outputs),
            primary_image=fit.primary_image,
            primary_sha256=fit.primary_sha256,
            artifact=artifact_key(row.id, row.request.fit_key),
            artifact_sha256=fit.artifact_sha256,
            input_sha256=row.input_sha256,
            gray_sha256=row.gray_sha256,
            width=view.image.gray.shape[1],
            height=view.image.gray.shape[0],
            source=asdict(view.image.source),
            picture_box=row.picture_box,
            halftone=view.halftone,
            preview=writer.store_preview("scan", None),
            primary_preview=fit.primary_preview,
            seconds=round(painted.seconds, 3),
            losses=fitted.training.losses,
            trained_steps=fitted.training.steps,
            resumed_at=fitted.training.resumed_at,
            luminance_mismatches=0,  # `store_picture` counted, and refuses any other picture
            fit_key=row.request.fit_key,
        )
        context = GenerationContext.of(
            self.models,
            self.spec.config,
            self.spec.outputs,
            working_size=(row.scan.gray.shape[-2], row.scan.gray.shape[-1]),
            anti_color_prompts=row.scan.anti_color_prompts,
            color_hints=task.row.color_hints,
        )
        for output in outputs:
            store_provenance(self.store, result, output, context)
        return self._commit(task, result)

    def writer(self, row: DecodedRow) -> PictureWriter:
        """What makes and stores the row's pictures."""
        manifest_row = row.task.row
        return PictureWriter(
            store=self.store,
            options=self.spec.outputs,
            models=self.models,
            view=row.view,
            row_id=row.id,
            image=redacted(manifest_row.image) if manifest_row.image else None,
            image_sha256=row.input_sha256,
            prompt_writer=manifest_row.prompt_writer,
            example=row.reference,
        )

    def _commit(self, task: Task, result: ResultRow) -> ResultRow:
        return self.ledger.commit(task.place, result, uuid.uuid4().hex)
