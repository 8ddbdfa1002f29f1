"""`recolor`: new prompts for rows that were fitted before. No training, and the input file is not needed:
any picture we made holds the scan's gray values exactly, as its luma."""

from collections.abc import Sequence
from dataclasses import replace

from diffcolor.artifact import from_bytes, read_record
from diffcolor.colorize import recolor as sample_prompts
from diffcolor.config import PRESETS, Config
from diffcolor.geometry import working_gray
from pipelines.errors import RecolorError
from pipelines.identity import sha256
from pipelines.imagefile import GrayImage, decode_output
from pipelines.ledger import Ledger
from pipelines.results import OK, Output, ResultRow
from pipelines.store import Store
from pipelines.worker import AUTO, JobSpec, Worker


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
        self.ledger = Ledger(Store(output))
        job = self.ledger.read_job()
        config = config or replace(PRESETS[job["preset"]], etas=tuple(job["etas"]))
        self.rows = {row.id: row for row in self.ledger.current()}
        self.config = config
        self.worker = Worker(
            JobSpec(
                output=output,
                base_model=base_model or job["base_model"],
                judge=judge or job["judge"],
                config=config,
                device=device,
            )
        )

    def recolor(self, row_id: str, prompts: Sequence[str], again: bool = False) -> list[Output]:
        """Adds one output per prompt to the row's result.

        Args:
            again: sample a prompt that the row has already once more (with another eta, say), in the place of the old.

        Raises:
            RecolorError: no such row, not `ok`, or its files are damaged.
            ArtifactError: its artifact belongs to another base model, or is damaged.
        """
        row = self.rows.get(row_id)
        if row is None:
            raise RecolorError(row_id, "no such id in the results; see `status`, or submit it first")
        if row.status != OK:
            raise RecolorError(row_id, f"its status is {row.status}: {row.error_message}")
        image = self._scan(row)
        content = self._read(row, row.artifact, row.artifact_sha256)
        record = read_record(content)
        fitted = from_bytes(content, working_gray(image.gray, record.height, record.width), self.worker.base)
        existing = {output.prompt: output for output in row.outputs}
        new = [prompt for prompt in dict.fromkeys(prompts) if again or prompt not in existing]
        ladders = (
            sample_prompts(self.worker.base, self.worker.judge, [(fitted, prompt) for prompt in new], self.config)
            if new
            else []
        )
        for number, (prompt, ladder) in enumerate(zip(new, ladders, strict=True), start=len(row.outputs) + 1):
            existing[prompt] = self.worker.paint_output(image, row.id, number, prompt, ladder, "recolor")
        if new:
            row = replace(row, outputs=tuple(existing.values()))
            self.ledger.commit(row)
            self.ledger.replace(row)
            self.rows[row.id] = row
        return [existing[prompt] for prompt in dict.fromkeys(prompts)]

    def _scan(self, row: ResultRow) -> GrayImage:
        _, scan = decode_output(self._read(row, row.primary_image, row.primary_sha256))
        if sha256(scan.gray.tobytes()) != row.gray_sha256:
            raise RecolorError(row.id, f"{row.primary_image} does not hold the scan's gray values; run `verify`")
        return scan

    def _read(self, row: ResultRow, key: str, expected: str) -> bytes:
        try:
            content = self.ledger.store.read(key)
        except FileNotFoundError as error:
            raise RecolorError(row.id, f"{key} is missing; submit the row again") from error
        if sha256(content) != expected:
            raise RecolorError(row.id, f"{key} is damaged (sha256 differs); submit the row again")
        return content
