"""Identifies work: digests over everything that may change a result. K and the device are left out."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from diffcolor.config import Config, digest
from diffcolor.identity import ModelIdentity
from manifests.schema import ManifestRow
from pipelines.job import OutputOptions


def sha256(content: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(content).hexdigest()


def _digest(facts: dict) -> str:
    return sha256(json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str).encode())


def _fit_settings(models: ModelIdentity, config: Config) -> dict:
    settings = {"fit": digest(config.fit), "base_model": models.base_model_digest, "judge": models.judge_digest}
    if config.uses_coarse:
        settings["coarse"] = models.coarse_digest
    if models.loss_decoder_digest:
        settings["loss_decoder"] = models.loss_decoder_digest
    return settings


def _fit_facts(row: ManifestRow) -> dict:
    """What a row's training depends on; the page, the regions and how toned scans are treated make the gray values."""
    facts = {
        "caption": row.caption,
        "anti_color_prompts": row.anti_color_prompts,
        "seed": row.seed,
        "page": row.page,
        "regions": row.regions,
        "toned": row.toned,
    }
    # Without them, the digest is what it was before there were any.
    return facts | ({"negative": True} if row.negative else {})


def fit_key(
    input_sha256: str,
    row: ManifestRow,
    models: ModelIdentity,
    config: Config,
    picture_box: tuple[int, int, int, int] | None = None,
) -> str:
    """Same key, same training: a digest of the input's bytes and what is seen of it, the context, the seed, the fit's
    settings, the models."""
    seen = {"picture_box": picture_box} if picture_box else {}
    return _digest({"input": input_sha256, **seen, **_fit_facts(row), **_fit_settings(models, config)})


def settings_digest(models: ModelIdentity, config: Config, outputs: OutputOptions) -> str:
    """Digest of everything that all rows of a job share and that may change a result."""
    sampling = {"sample": digest(config.sample), "etas": config.etas, "outputs": asdict(outputs)}
    return _digest({**sampling, **_fit_settings(models, config)})


def facts_digest(row: ManifestRow) -> str:
    """Digest of everything in a row that may change its result, known before the image is read. The image is identified
    by its checksum column if there is one, else by its bytes or its URI (then a replaced file is not noticed)."""
    image = row.image_sha256 or (sha256(row.image_bytes) if row.image_bytes is not None else row.image)
    named: dict = {"id": row.id, "image": image, "prompt_writer": row.prompt_writer}
    if row.color_places:  # else the digest is what it was before there were any
        named["color_places"] = [str(place) for place in row.color_places]
    if row.reference:
        named["reference"] = row.reference
    if row.whole_sheet and not row.regions:  # of a fit, what was found on the sheet is the fact
        named["whole_sheet"] = True
    return _digest({**named, "target_prompts": row.target_prompts, **_fit_facts(row)})


def row_digest(row: ManifestRow, settings: str) -> str:
    """Same digest, same result."""
    return sha256(f"{settings}/{facts_digest(row)}".encode())


class ManifestDigest:
    """Identifies a whole manifest and each of its shards: the rows in order, and what they carry into the results."""

    def __init__(self, carried: str, shard_rows: int) -> None:
        """`carried`: names and types of the carried columns."""
        self.shard_rows, self._carried, self._count = shard_rows, carried.encode(), 0
        self._sha = hashlib.sha256(self._carried)
        self._shards: list[tuple[Any, Any]] = []  # of each, the hash of its rows and that of their ids

    def add(self, row: ManifestRow) -> None:
        """Adds the next row."""
        if self._count % self.shard_rows == 0:
            self._shards.append((hashlib.sha256(self._carried), hashlib.sha256()))
        self._count += 1
        facts = facts_digest(row)
        carried = _digest({"group_id": row.group_id, "extra": dict(row.extra), "warnings": row.warnings})
        content, ids = self._shards[-1]
        for sha in (self._sha, content):
            sha.update(facts.encode())
            sha.update(carried.encode())
        ids.update(sha256(row.id.encode()).encode())

    def plan_id(self, settings: str) -> str:
        """Same id, same plan: a run that finds it continues it. 16 hex digits."""
        return sha256(f"{settings}/{self.shard_rows}/{self._sha.hexdigest()}".encode())[:16]

    @property
    def shards(self) -> tuple[str, ...]:
        """Of each shard, over its rows."""
        return tuple(content.hexdigest()[:16] for content, _ in self._shards)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of each shard, over its rows' ids."""
        return tuple(ids.hexdigest()[:16] for _, ids in self._shards)
