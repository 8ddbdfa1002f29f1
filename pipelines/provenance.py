"""The record that lies beside each picture: what it was made from, how, by what, and what came out."""

import json
from dataclasses import asdict
from typing import Any

from diffcolor.config import Config
from pipelines.images.xmp import SOURCE_TYPE
from pipelines.names import provenance_key
from pipelines.results import Output, ResultRow
from pipelines.store import Store
from pipelines.version import SYSTEM, VERSION, commit, libraries

STATEMENT = (
    "The colours were made by a machine from a text. They are a guess, not evidence. The luminance is the scan's."
)
LUMA_FORMULA = "(19595*R + 38470*G + 7471*B + 32768) >> 16"


def provenance(row: ResultRow, output: Output, config: Config, models: dict[str, str], device: str) -> dict[str, Any]:
    """The record as plain data. `config` is what sampled the picture; `models` are names and weights' digests."""
    source = row.source or {}
    return {
        "statement": STATEMENT,
        "digital_source_type": SOURCE_TYPE,
        "input": {
            "id": row.id,
            "uri": row.image,
            "sha256": row.input_sha256,
            "gray_sha256": row.gray_sha256,
            "width": row.width,
            "height": row.height,
            "regions": [list(box) for box in row.regions],
            "halftone_period": row.halftone,
            **source,
        },
        "method": {
            "software": SYSTEM,
            "version": VERSION,
            "commit": commit(),
            "libraries": libraries(),
            "device": device,
            **models,
            "settings": asdict(config),
            "config_digest": row.config_digest,
            "fit_key": row.fit_key,
            "row_digest": row.row_digest,
            "artifact": row.artifact,
            "artifact_sha256": row.artifact_sha256,
            "context_prompt": row.context_prompt,
            "target_prompt": output.prompt,
            "prompt_source": output.source,
            "prompt_writer": row.prompt_writer,
            "seed": row.seed,
            "eta": output.eta,
            "trained_steps": row.trained_steps,
            "resumed_at": row.resumed_at,
            "seconds": row.seconds,
            "finished_at": row.finished_at,
        },
        "outcome": {
            **asdict(output),
            "luma_formula": LUMA_FORMULA,
            "luminance_mismatches": 0,  # else it would not have been stored
            "primary_image": row.primary_image,
            "primary_sha256": row.primary_sha256,
            "warnings": list(row.warnings),
        },
    }


def store_provenance(store: Store, row: ResultRow, output: Output, config: Config, models: dict[str, str], device: str):
    """Writes the record beside its picture."""
    document = provenance(row, output, config, models, device)
    store.write(provenance_key(output.image), json.dumps(document, indent=1, ensure_ascii=False).encode())
