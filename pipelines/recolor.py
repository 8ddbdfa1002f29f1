"""`recolor`: new prompts for rows that were fitted before. No training, and the input file is not needed:
any picture we made holds the scan's gray values exactly, as its luma."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from diffcolor.artifact import from_bytes, read_record
from diffcolor.base_model import load_base_model, load_judge
from diffcolor.colorize import recolor as sample_prompts
from diffcolor.config import PRESETS, Config
from diffcolor.errors import DiffColorError
from diffcolor.geometry import working_gray
from pipelines.errors import RecolorError
from pipelines.identity import sha256
from pipelines.imagefile import GrayImage, decode_output
from pipelines.jobspec import AUTO
from pipelines.ledger import Ledger
from pipelines.outputs import store_output
from pipelines.results import OK, Output, ResultRow
from pipelines.store import Store


class Recolorer:
    """Loads the models of an output store's job once, then recolours any of its rows."""

    def __init__(
        self,
        output: str,
        *,
        config: Config | None = None,
        device: str = AUTO,
        base_model: str | None = None,
        judge: str | None = None,
    ) -> None:
        """What is not given is the job's."""
        store = Store(output)
        job = Ledger(store).read_job()
        self.store = Store(output, preconditions=job["preconditions"])
        self.ledger, self.plan = Ledger(self.store), job["plan"]
        self.config = config or replace(PRESETS[job["preset"]], etas=tuple(job["etas"]))
        device = device if device != AUTO else "cuda" if torch.cuda.is_available() else "cpu"
        self.base = load_base_model(base_model or job["base_model"], device)
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
        image = self._scan(row)
        content = self._read(row, row.artifact, row.artifact_sha256)
        record = read_record(content)
        fitted = from_bytes(content, working_gray(image.gray, record.height, record.width), self.base)
        ladders = sample_prompts(self.base, self.judge, [(fitted, prompt) for prompt in prompts], self.config)
        numbered = enumerate(zip(prompts, ladders, strict=True), start=len(row.outputs) + 1)
        return {
            prompt: store_output(self.store, image, row.id, number, prompt, ladder, "recolor")
            for number, (prompt, ladder) in numbered
        }

    def _scan(self, row: ResultRow) -> GrayImage:
        _, scan = decode_output(self._read(row, row.primary_image, row.primary_sha256))
        if sha256(scan.gray.tobytes()) != row.gray_sha256:
            raise RecolorError(row.id, f"{row.primary_image} does not hold the scan's gray values; run `verify`")
        return scan

    def _read(self, row: ResultRow, key: str, expected: str) -> bytes:
        try:
            content = self.store.read(key)
        except FileNotFoundError as error:
            raise RecolorError(row.id, f"{key} is missing; run `verify`, then submit with --retry-failed") from error
        if sha256(content) != expected:
            raise RecolorError(row.id, f"{key} is damaged; run `verify`, then submit with --retry-failed")
        return content
