"""What "the same work" means: digests over everything that may change a result. K and device stay out."""

import hashlib
import json
from dataclasses import dataclass

from diffcolor.config import Config, digest
from manifests.schema import ManifestRow


@dataclass(frozen=True, kw_only=True)
class Models:
    """Names and weights digests of the base model and the judge, as a worker loaded them."""

    base_model: str
    base_model_digest: str
    judge: str
    judge_digest: str


def sha256(content: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(content).hexdigest()


def _digest(facts: dict) -> str:
    return sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())


def _fit_facts(row: ManifestRow, models: Models, config: Config) -> dict:
    return {
        "caption": row.caption,
        "anti_color_prompts": row.anti_color_prompts,
        "seed": row.seed,
        "fit": digest(config.fit),
        "base_model": models.base_model_digest,
        "judge": models.judge_digest,
    }


def fit_key(input_sha256: str, row: ManifestRow, models: Models, config: Config) -> str:
    """Same key, same training: the input's bytes, the context, the seed, the fit's numbers, the models."""
    return _digest({"input": input_sha256, **_fit_facts(row, models, config)})


def row_digest(row: ManifestRow, models: Models, config: Config) -> str:
    """Same digest, same result row. Known before the image is read: it is named by its checksum column if there is
    one, else by its bytes or its URI (a file replaced under its URI is then not noticed)."""
    image = row.image_sha256 or (sha256(row.image_bytes) if row.image_bytes is not None else row.image)
    return _digest(
        {
            "id": row.id,
            "image": image,
            "target_prompts": row.target_prompts,
            "sample": digest(config.sample),
            "etas": config.etas,
            **_fit_facts(row, models, config),
        }
    )
