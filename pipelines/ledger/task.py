"""One row for a worker: where its outcome goes, and what is known of it before any work is done."""

from dataclasses import dataclass
from datetime import UTC, datetime

from diffcolor.config import digest
from diffcolor.identity import ModelIdentity
from manifests.locations import redacted
from manifests.schema import ManifestRow
from pipelines.job import JobSpec
from pipelines.ledger.results import FAILED, Output, ResultRow
from pipelines.version import software

_NO_PRECONDITIONS = "the output store ignores conditional writes: of two runs at once, the later result counts"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the outcome of a row is committed: its plan, its shard, which generation of it, its row number."""

    plan: str
    shard: int
    generation: int
    row: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """One manifest row to finish.

    Attributes:
        kept: outputs of an earlier outcome that are kept: its recolourings.
    """

    row: ManifestRow
    row_digest: str
    place: Place
    kept: tuple[Output, ...] = ()


def blank_result(task: Task, spec: JobSpec, models: ModelIdentity) -> ResultRow:
    """A result row with what is known before any work is done."""
    row = task.row
    return ResultRow(
        id=row.id,
        status=FAILED,
        row_digest=task.row_digest,
        image=redacted(row.image) if row.image else None,
        page=row.page,
        regions=row.regions,
        context_prompt=row.caption,
        seed=row.seed,
        base_model=models.base_model,
        judge=models.judge,
        config_digest=digest(spec.config),
        prompt_writer=row.prompt_writer,
        outputs=task.kept,
        software=software(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=(*row.warnings, *(() if spec.preconditions else (_NO_PRECONDITIONS,))),
    )
