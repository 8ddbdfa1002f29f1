"""`recolor`: new prompts for rows that are already fitted. It needs neither training nor the input file, because every
picture that we made holds the scan's gray values exactly, as its luma."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

import torch

from diffcolor.artifact import from_bytes, read_record
from diffcolor.colorize import MAX_SAMPLING_BATCH, Colored, Fitted
from diffcolor.colorize import recolor as sample_prompts
from diffcolor.config import Start, preset_for
from diffcolor.errors import DiffColorError
from diffcolor.models import load_models
from manifests.color_places import ColorPlace, place_of
from manifests.locations import redacted
from manifests.read import RecolorRequest
from pipelines.errors import RecolorError
from pipelines.images import scratch
from pipelines.images.errors import InputImageError
from pipelines.images.formats.codecs import open_raster
from pipelines.images.gray import GrayImage, Source
from pipelines.images.icc import read_profile
from pipelines.images.paint import read_luma
from pipelines.images.view import View
from pipelines.job import Device
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.names import is_picture_key
from pipelines.ledger.results import OK, Output, OutputKey, ResultRow
from pipelines.store.retry import Patience
from pipelines.store.store import Store
from pipelines.worker.failures import is_out_of_memory
from pipelines.worker.painting import PictureWriter
from pipelines.worker.provenance import GenerationContext, store_provenance
from pipelines.worker.reading import example_of, read_example
from pipelines.worker.rows import Example

_PATIENCE = Patience(total=60.0)


class Recolorer:
    """Loads the models of an output store's job once, then recolours any of its rows."""

    def __init__(
        self,
        output: str,
        *,
        preset: str | None = None,
        etas: Sequence[float] | None = None,
        start: Start | None = None,
        device: str = Device.auto,
        base_model: str | None = None,
        judge: str | None = None,
    ) -> None:
        """Parameters that are None are taken from the job."""
        store = Store(output)
        job = Ledger(store).read_job()
        self.store = Store(output, preconditions=job.preconditions)
        self.ledger, self.options = Ledger(self.store), job.outputs
        base_model = base_model or job.base_model
        self.config = preset_for(preset, base_model) if preset else job.config
        if start:
            self.config = self.config.starting_from(start)
        if etas:
            self.config = replace(self.config, etas=tuple(etas))
        self.prompts_at_once = MAX_SAMPLING_BATCH
        models = load_models(base_model, judge or job.judge, device, job.precision, job.deterministic)
        self.models = models.known_as(job.models)

    def recolor_all(
        self, requests: Iterable[RecolorRequest], again: bool = False
    ) -> Iterator[tuple[str, list[Output] | Exception]]:
        """Adds one output per prompt to each row's result; one pass over the results, a shard at a time in memory.

        Args:
            requests: rows, one request each, with new prompts, known colours or a reference.
            again: sample prompts that the row already has once more, for example at another eta, and replace their
                outputs.

        Yields:
            id, and either its outputs or an error: RecolorError (no such row, its status is not `ok`, or a file is
            damaged) or ArtifactError (damaged, or fitted on another base model).
        """
        wanted = {request.id: request for request in requests}
        for plan, shard, number, row in self.ledger.visible():
            if row.id in wanted:
                try:
                    yield row.id, self._recolor((plan, shard, number), row, wanted.pop(row.id), again)
                except (RecolorError, DiffColorError) as error:
                    yield row.id, error
            if not wanted:
                return
        for row_id in wanted:
            yield row_id, RecolorError(row_id, "no such id in the results; see `status`, or submit it first")

    def sample_at(self, row_id: str, key: OutputKey, eta: float) -> Output:
        """Samples an output of a row once more, at one eta, or makes it.

        Raises:
            RecolorError, ArtifactError: as `recolor_all` yields them.
        """
        before, self.config = self.config, replace(self.config, etas=(eta,))
        try:
            places = tuple(place_of(text) for text in key.hints)
            request = RecolorRequest(id=row_id, prompts=(key.prompt,), places=places, reference=key.reference)
            ((_, outcome),) = self.recolor_all([request], again=True)
        finally:
            self.config = before
        if isinstance(outcome, Exception):
            raise outcome
        return outcome[0]

    def _recolor(
        self, place: tuple[str, int, int], row: ResultRow, request: RecolorRequest, again: bool
    ) -> list[Output]:
        if row.status != OK:
            raise RecolorError(row.id, f"its status is {row.status}: {row.error_message}")
        given = tuple(output for output in row.outputs if output.source == "manifest") or row.outputs[:1]
        prompts = tuple(dict.fromkeys(request.prompts or (output.prompt for output in given)))
        hints = tuple(str(place) for place in request.places) or next((output.hints for output in given), ())
        reference = request.reference or next((output.reference for output in given), None)
        name = redacted(reference) if reference else None
        keys = [OutputKey(prompt, hints, name) for prompt in prompts]
        existing = {output.key for output in row.outputs}
        new = [key.prompt for key in keys if again or key not in existing]
        made = self._paint(row, new, tuple(place_of(text) for text in hints), reference) if new else {}

        def with_outputs(before: ResultRow) -> ResultRow:
            outputs = {output.key: output for output in before.outputs}
            return replace(before, outputs=tuple((outputs | made).values()))

        if made:
            row = self.ledger.amend(*place, with_outputs)
        outputs = {output.key: output for output in row.outputs}
        return [outputs[key] for key in keys]

    def _paint(
        self, row: ResultRow, prompts: list[str], places: tuple[ColorPlace, ...], reference: str | None
    ) -> dict[OutputKey, Output]:
        """Samples and stores the prompts' pictures."""
        try:
            view = replace(self._view(row), places=places).check()
        except InputImageError as error:
            raise RecolorError(row.id, str(error)) from error
        assert row.input_sha256 is not None, "an ok row has the sha256 of its input"
        content = self._read(row, row.artifact, row.artifact_sha256)
        record = read_record(content)
        gray = torch.from_numpy(view.gray(record.height, record.width))[None]
        fitted = from_bytes(content, gray, self.models)
        ladders = self._sample(row, fitted, prompts)
        writer = PictureWriter(
            store=self.store,
            options=self.options,
            models=self.models,
            view=view,
            row_id=row.id,
            image=row.image,
            image_sha256=row.input_sha256,
            prompt_writer=row.prompt_writer,
            example=self._example(row, reference) if reference else None,
        )
        context = GenerationContext.of(
            self.models,
            self.config,
            self.options,
            working_size=(record.height, record.width),
            anti_color_prompts=record.anti_color_prompts,
        )
        own = {output.key for output in row.outputs if output.source == "manifest"}
        made = {}
        for number, (prompt, ladder) in enumerate(zip(prompts, ladders, strict=True), start=len(row.outputs) + 1):
            output = writer.store_output(number, prompt, ladder, "recolor")
            if output.key in own:
                output = replace(output, source="manifest")
            store_provenance(self.store, row, output, context)
            made[output.key] = output
        return made

    def _sample(self, row: ResultRow, fitted: Fitted, prompts: list[str]) -> list[list[Colored]]:
        """The candidates of each prompt; as many prompts at once as fit into memory."""
        ladders: list[list[Colored]] = []
        while len(ladders) < len(prompts):
            some = prompts[len(ladders) :][: self.prompts_at_once]
            try:
                ladders += sample_prompts(self.models, [(fitted, prompt) for prompt in some], self.config)
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(some) == 1:
                    raise RecolorError(row.id, f"out of memory with one prompt alone: {error}") from error
            self.prompts_at_once = len(some) // 2  # out of the handler, which holds on to what was on the GPU
            if self.models.device.type == "cuda":
                torch.cuda.empty_cache()
        return ladders

    def _example(self, row: ResultRow, reference: str) -> Example:
        """The picture at a URI, or of this output."""
        try:
            if not is_picture_key(reference):
                return read_example(reference, self.models, _PATIENCE)
            with self.store.read_file(reference) as file:
                return example_of(file, reference, self.models)
        except (InputImageError, OSError, ValueError) as error:
            raise RecolorError(row.id, f"{error}; give a reference that can be read: --reference URI") from error

    def _view(self, row: ResultRow) -> View:
        """The scan, taken from the luma of the primary picture, which also carries the scan's metadata."""
        if row.source is None:
            raise RecolorError(row.id, "it was made by an older version; submit it again, its fit is still used")
        source = Source(**{**row.source, "not_carried": tuple(row.source["not_carried"] or ())})
        with self._read_file(row, row.primary_image, row.primary_sha256) as file:
            try:
                raster, gray = open_raster(file, 1 << 62), read_luma(file)
            except InputImageError as error:
                raise RecolorError(row.id, f"{row.primary_image}: {error}; run `verify`") from error
            if scratch.sha256_of_pixels(gray) != row.gray_sha256:
                raise RecolorError(row.id, f"{row.primary_image} does not hold the scan's gray values; run `verify`")
        profile = replace(read_profile(raster.metadata.icc, 3), assumed=source.profile_assumed)
        image = GrayImage(gray=gray, source=source, metadata=raster.metadata, profile=profile)
        return View(image, row.colored)

    def _read(self, row: ResultRow, key: str | None, expected: str | None) -> bytes:
        with self._read_file(row, key, expected) as file:
            file.seek(0)
            return file.read()

    def _read_file(self, row: ResultRow, key: str | None, expected: str | None) -> BinaryIO:
        """A file of the row, whose sha256 must be `expected`."""
        assert key is not None, "an ok row names its primary picture and its artifact"
        try:
            file = self.store.read_file(key)
        except FileNotFoundError as error:
            raise RecolorError(row.id, f"{key} is missing; run `verify`, then submit with --retry-failed") from error
        if scratch.sha256_of_file(file) != expected:
            file.close()
            raise RecolorError(row.id, f"{key} is damaged; run `verify`, then submit with --retry-failed")
        return file
