"""Fits in the output store: an artifact and the primary picture that it names. The same key, the same fit."""

from dataclasses import replace

from diffcolor.artifact import ArtifactRecord, from_bytes, read_record, to_bytes
from diffcolor.config import Config, digest
from diffcolor.errors import ArtifactError
from diffcolor.models import Models
from diffcolor.prompts import identified
from pipelines.images import scratch
from pipelines.images.errors import InputImageError
from pipelines.images.paint import check_luma
from pipelines.ledger.identity import sha256
from pipelines.ledger.names import artifact_key
from pipelines.store.store import Store
from pipelines.worker.painting import PictureWriter
from pipelines.worker.rows import DecodedRow, FittedRow, StoredFit


class FitStore:
    """Finds and stores fits."""

    def __init__(self, store: Store, models: Models, config: Config) -> None:
        self.store, self.models, self.config = store, models, config

    def find(self, row: DecodedRow) -> FittedRow | None:
        """The row with an earlier fit of the same key.

        Raises:
            ArtifactError: there is one, and it or its primary picture is damaged.
        """
        try:
            content = self.store.read(artifact_key(row.id, row.request.fit_key))
        except FileNotFoundError:
            return None
        fitted, record = from_bytes(content, row.scan.gray, self.models), read_record(content)
        try:
            with self.store.read_file(record.primary_image) as primary:
                mismatches = check_luma(primary, row.view.image.gray).mismatches
                primary_sha256 = scratch.sha256_of_file(primary)
        except (FileNotFoundError, InputImageError, ValueError) as error:
            raise ArtifactError(f"{record.primary_image} does not hold the scan's gray values") from error
        if mismatches:
            raise ArtifactError(f"{record.primary_image} does not hold the scan's gray values")
        stored = StoredFit(
            artifact_sha256=sha256(content),
            primary_image=record.primary_image,
            primary_sha256=primary_sha256,
            primary_preview=record.primary_preview,
        )
        return FittedRow(decoded=row, fitted=fitted, stored=stored)

    def store_fit(self, fresh: FittedRow, writer: PictureWriter) -> FittedRow:
        """Stores the primary picture, then the artifact that names it. Of two runs with one fit, the first counts: then
        the row comes back with the other's fit."""
        row, fitted = fresh.decoded, fresh.fitted
        assert fitted.primary is not None, "a fresh fit has its colours"
        manifest_row, ours = row.task.row, self.models.identity
        chroma = row.view.chroma(fitted.primary)
        primary = writer.store_picture(0, manifest_row.caption, chroma)
        preview = writer.store_preview("primary", chroma)
        record = ArtifactRecord(
            base_model=ours.base_model,
            base_model_digest=ours.base_model_digest,
            config_digest=digest(self.config),
            context_prompt=manifest_row.caption,
            identified_prompt=identified(manifest_row.caption, self.models.vocabulary, self.models.tokenizer),
            anti_color_prompts=row.scan.anti_color_prompts,
            seed=manifest_row.seed,
            height=row.scan.gray.shape[-2],
            width=row.scan.gray.shape[-1],
            gray_sha256=row.gray_sha256,
            primary_image=primary.key,
            primary_preview=preview,
            coarse_digest=ours.coarse_digest if self.config.uses_coarse else "",
        )
        content, key = to_bytes(fitted, record), artifact_key(row.id, row.request.fit_key)
        if not self.store.create(key, content):
            try:
                if earlier := self.find(row):
                    return earlier
            except ArtifactError:  # the artifact there is damaged
                pass
            self.store.write(key, content)
        stored = StoredFit(
            artifact_sha256=sha256(content),
            primary_image=primary.key,
            primary_sha256=primary.sha256,
            primary_preview=preview,
        )
        return replace(fresh, stored=stored)
