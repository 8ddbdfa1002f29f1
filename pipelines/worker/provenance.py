"""The record beside each picture: what it was made from, how and by what, and the outcome."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from diffcolor.config import Config
from diffcolor.models import Models
from pipelines.images.xmp import SOURCE_TYPE
from pipelines.job import OutputOptions
from pipelines.ledger.names import provenance_key
from pipelines.ledger.results import Output, ResultRow
from pipelines.statement import LUMA_FORMULA, STATEMENT
from pipelines.store.store import Store
from pipelines.version import SYSTEM, VERSION, commit, libraries


@dataclass(frozen=True, kw_only=True)
class GenerationContext:
    """How a picture was generated, beyond what its row says.

    Attributes:
        config: of the fit and the sampling.
        models: names and weights' digests.
        scheduler: class of the sampler's noise schedule; None without a base model.
        working_size: height and width at which the model saw the scan.
        color_hints: as in the manifest.
    """

    config: Config
    options: OutputOptions
    models: dict[str, str]
    device: str
    precision: str
    scheduler: str | None
    working_size: tuple[int, int]
    anti_color_prompts: tuple[str, ...]
    color_hints: str | None = None

    @staticmethod
    def of(
        models: Models,
        config: Config,
        options: OutputOptions,
        *,
        working_size: tuple[int, int],
        anti_color_prompts: tuple[str, ...],
        color_hints: str | None = None,
    ) -> "GenerationContext":
        return GenerationContext(
            config=config,
            options=options,
            models=asdict(models.identity),
            device=str(models.device),
            precision=str(models.judge.precision).removeprefix("torch."),
            scheduler=type(models.base.scheduler).__name__ if models.base else None,
            working_size=working_size,
            anti_color_prompts=anti_color_prompts,
            color_hints=color_hints,
        )


def provenance(row: ResultRow, output: Output, context: GenerationContext) -> dict[str, Any]:
    """The record as plain data."""
    source = row.source or {}
    return {
        "statement": STATEMENT,
        "marked": context.options.mark,
        "digital_source_type": SOURCE_TYPE if context.options.mark else None,
        "input": {
            "id": row.id,
            "uri": row.image,
            "sha256": row.input_sha256,
            "gray_sha256": row.gray_sha256,
            "width": row.width,
            "height": row.height,
            "regions": [list(box) for box in row.colored],
            "halftone_period": row.halftone,
            **source,
        },
        "method": {
            "software": SYSTEM,
            "version": VERSION,
            "commit": commit(),
            "libraries": libraries(),
            "device": context.device,
            "precision": context.precision,
            **context.models,
            "settings": asdict(context.config),
            "outputs": asdict(context.options),
            "scheduler": context.scheduler,
            "working_height": context.working_size[0],
            "working_width": context.working_size[1],
            "config_digest": row.config_digest,
            "fit_key": row.fit_key,
            "row_digest": row.row_digest,
            "artifact": row.artifact,
            "artifact_sha256": row.artifact_sha256,
            "context_prompt": row.context_prompt,
            "target_prompt": output.prompt,
            "color_hints": context.color_hints,
            "anti_color_prompts": list(context.anti_color_prompts),
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
            "luminance_mismatches": 0,  # any other picture is not stored
            "largest_luminance_error": 0,
            "primary_image": row.primary_image,
            "primary_sha256": row.primary_sha256,
            "warnings": list(row.warnings),
        },
    }


def store_provenance(store: Store, row: ResultRow, output: Output, context: GenerationContext) -> None:
    """Writes the record beside its picture."""
    content = json.dumps(provenance(row, output, context), indent=1, ensure_ascii=False).encode("utf-8", "replace")
    store.write(provenance_key(output.image), content)
