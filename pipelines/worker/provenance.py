"""The record that lies beside each picture: what it was made from, how, by what, and what came out."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from diffcolor.config import Config
from pipelines.images.xmp import SOURCE_TYPE
from pipelines.job import OutputOptions
from pipelines.ledger.names import provenance_key
from pipelines.ledger.results import Output, ResultRow
from pipelines.store.store import Store
from pipelines.version import SYSTEM, VERSION, commit, libraries

STATEMENT = (
    "The colours were made by a machine from a text. They are a guess, not evidence. The luminance is the scan's."
)
LUMA_FORMULA = "(19595*R + 38470*G + 7471*B + 32768) >> 16"


@dataclass(frozen=True, kw_only=True)
class Making:
    """What the makers of a picture know beyond its row.

    Attributes:
        config: what fitted and sampled it.
        models: names and weights' digests.
        scheduler: class of the sampler's noise schedule.
        working_size: height and width at which the model saw the scan.
        color_hints: as the manifest has them.
    """

    config: Config
    options: OutputOptions
    models: dict[str, str]
    device: str
    scheduler: str
    working_size: tuple[int, int]
    anti_color_prompts: tuple[str, ...]
    color_hints: str | None = None


def provenance(row: ResultRow, output: Output, making: Making) -> dict[str, Any]:
    """The record as plain data."""
    source = row.source or {}
    return {
        "statement": STATEMENT,
        "marked": making.options.mark,
        "digital_source_type": SOURCE_TYPE if making.options.mark else None,
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
            "device": making.device,
            **making.models,
            "settings": asdict(making.config),
            "outputs": asdict(making.options),
            "scheduler": making.scheduler,
            "working_height": making.working_size[0],
            "working_width": making.working_size[1],
            "config_digest": row.config_digest,
            "fit_key": row.fit_key,
            "row_digest": row.row_digest,
            "artifact": row.artifact,
            "artifact_sha256": row.artifact_sha256,
            "context_prompt": row.context_prompt,
            "target_prompt": output.prompt,
            "color_hints": making.color_hints,
            "anti_color_prompts": list(making.anti_color_prompts),
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
            "largest_luminance_error": 0,
            "primary_image": row.primary_image,
            "primary_sha256": row.primary_sha256,
            "warnings": list(row.warnings),
        },
    }


def store_provenance(store: Store, row: ResultRow, output: Output, making: Making) -> None:
    """Writes the record beside its picture."""
    content = json.dumps(provenance(row, output, making), indent=1, ensure_ascii=False).encode("utf-8", "replace")
    store.write(provenance_key(output.image), content)
