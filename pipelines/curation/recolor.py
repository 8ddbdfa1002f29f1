"""`recolor`: new prompts for rows that were fitted before. No training, and the input file is not needed:
any picture we made holds the scan's gray values exactly, as its luma."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

import torch

from diffcolor.artifact import from_bytes, read_record
from diffcolor.base_model import load_base_model, load_judge, resolve_device
from diffcolor.colorize import recolor as sample_prompts
from diffcolor.config import config_from, preset_for
from diffcolor.errors import DiffColorError
from pipelines.errors import RecolorError
from pipelines.images import scratch
from pipelines.images.errors import InputImageError
from pipelines.images.gray import GrayImage, Source
from pipelines.images.icc import read_profile
from pipelines.images.paint import read_luma
from pipelines.images.raster import open_raster
from pipelines.images.view import View
from pipelines.job import AUTO, OutputOptions
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import OK, Output, ResultRow
from pipelines.store.store import Store
from pipelines.worker.painting import Studio
from pipelines.worker.provenance import Making, store_provenance


class Recolorer:
    """Loads the models of an output store's job once, then recolours any of its rows."""

    def __init__(
        self,
        output: str,
        *,
        preset: str | None = None,
        etas: Sequence[float] | None = None,
        device: str = AUTO,
        base_model: str | None = None,
        judge: str | None = None,
    ) -> None:
        """What is not given is the job's, as it was then."""
        store = Store(output)
        job = Ledger(store).read_job()
        self.store = Store(output, preconditions=job["preconditions"])
        self.ledger, self.plan = Ledger(self.store), job["plan"]
        self.options = OutputOptions(**job.get("outputs", {}))
        base_model = base_model or job["base_model"]
        self.config = preset_for(preset, base_model) if preset else config_from(job["config"])
        if etas:
            self.config = replace(self.config, etas=tuple(etas))
        device = resolve_device(device)
        self.base = load_base_model(base_model, device)
        self.judge = load_judge(judge or job["judge"], device)

    def recolor_all(
        self, requests: Iterable[tuple[str, Sequence[str]]], again: bool = False
    ) -> Iterator[tuple[str, list[Output] | Exception]]:
        """Adds one output per prompt to each row's result; one pass over the results, a shard at a time in memory.

        Args:
            requests: ids and their prompts.
            again: sample a prompt that the row has already once more (with another eta, say), in the place of the old.

        Yields:
            id, and its outputs or what was in the way: a RecolorError (no such row, not `ok`, its files damaged), or an
            ArtifactError (another base model's, or damaged).
        """
        wanted = {row_id: tuple(dict.fromkeys(prompts)) for row_id, prompts in requests}
        for shard, number, row in self.ledger.outcomes(self.plan):
            if row.id in wanted:
                try:
                    yield row.id, self._recolor(shard, number, row, wanted.pop(row.id), again)
                except (RecolorError, DiffColorError) as error:
                    yield row.id, error
            if not wanted:
                return
        for row_id in wanted:
            yield row_id, RecolorError(row_id, "no such id in the results; see `status`, or submit it first")

    def sample_at(self, row_id: str, prompt: str, eta: float) -> Output:
        """A prompt of a row once more, at one eta, in the place of what it has.

        Raises:
            RecolorError, ArtifactError: what is in the way.
        """
        before, self.config = self.config, replace(self.config, etas=(eta,))
        try:
            ((_, outcome),) = self.recolor_all([(row_id, [prompt])], again=True)
        finally:
            self.config = before
        if isinstance(outcome, Exception):
            raise outcome
        return outcome[0]

    def _recolor(self, shard: int, number: int, row: ResultRow, prompts: Sequence[str], again: bool) -> list[Output]:
        if row.status != OK:
            raise RecolorError(row.id, f"its status is {row.status}: {row.error_message}")
        existing = {output.prompt: output for output in row.outputs}
        new = [prompt for prompt in prompts if again or prompt not in existing]
        made = self._paint(row, new) if new else {}

        def with_outputs(before: ResultRow) -> ResultRow:
            outputs = {output.prompt: output for output in before.outputs} | made
            return replace(before, outputs=tuple(outputs.values()))

        if made:
            row = self.ledger.amend(self.plan, shard, number, with_outputs)
        outputs = {output.prompt: output for output in row.outputs}
        return [outputs[prompt] for prompt in prompts]

    def _paint(self, row: ResultRow, prompts: list[str]) -> dict[str, Output]:
        view = self._view(row)
        content = self._read(row, row.artifact, row.artifact_sha256)
        record = read_record(content)
        gray = torch.from_numpy(view.gray(record.height, record.width))[None]
        fitted = from_bytes(content, gray, self.base)
        ladders = sample_prompts(self.base, self.judge, [(fitted, prompt) for prompt in prompts], self.config)
        studio = Studio(
            store=self.store,
            options=self.options,
            row_id=row.id,
            view=view,
            model=f"{self.base.name} {self.base.digest[:16]}",
            original=row.image or row.id,
            original_sha256=row.input_sha256,
            prompt_writer=row.prompt_writer,
        )
        models = {"base_model": self.base.name, "base_model_digest": self.base.digest}
        models |= {"judge": self.judge.name, "judge_digest": self.judge.digest}
        making = Making(
            config=self.config,
            options=self.options,
            models=models,
            device=str(self.base.device),
            scheduler=type(self.base.scheduler).__name__,
            working_size=(record.height, record.width),
            anti_color_prompts=record.anti_color_prompts,
        )
        made = {}
        for number, (prompt, ladder) in enumerate(zip(prompts, ladders, strict=True), start=len(row.outputs) + 1):
            made[prompt] = studio.store_output(number, prompt, ladder, "recolor")
            store_provenance(self.store, row, made[prompt], making)
        return made

    def _view(self, row: ResultRow) -> View:
        """The scan, taken from the luma of the primary picture, which carries its metadata, too."""
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
        return View(image, row.regions)

    def _read(self, row: ResultRow, key: str, expected: str) -> bytes:
        with self._read_file(row, key, expected) as file:
            file.seek(0)
            return file.read()

    def _read_file(self, row: ResultRow, key: str, expected: str) -> BinaryIO:
        try:
            file = self.store.read_file(key)
        except FileNotFoundError as error:
            raise RecolorError(row.id, f"{key} is missing; run `verify`, then submit with --retry-failed") from error
        if scratch.sha256_of_file(file) != expected:
            file.close()
            raise RecolorError(row.id, f"{key} is damaged; run `verify`, then submit with --retry-failed")
        return file
