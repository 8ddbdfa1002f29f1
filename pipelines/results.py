"""What a row leaves: the Arrow schema of `OUT/results/`, and the record that becomes one of its rows."""

from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from diffcolor.config import digest
from manifests.locations import redacted
from pipelines.identity import Models
from pipelines.jobspec import JobSpec, Task

_NO_PRECONDITIONS = "the output store ignores conditional writes: of two runs at once, the later result counts"
OK, FAILED, SKIPPED = "ok", "failed", "skipped"

_CANDIDATE = pa.struct([("eta", pa.float64()), ("clip_margin", pa.float64()), ("colorfulness", pa.float64())])
_OUTPUT = pa.struct(
    [
        ("prompt", pa.string()),
        ("image", pa.string()),
        ("sha256", pa.string()),
        ("eta", pa.float64()),
        ("colorfulness", pa.float64()),
        ("clip_margin", pa.float64()),
        ("candidates", pa.list_(_CANDIDATE)),
        ("source", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("error_kind", pa.string()),
        ("error_message", pa.string()),
        ("warnings", pa.list_(pa.string())),
        ("outputs", pa.list_(_OUTPUT)),
        ("primary_image", pa.string()),
        ("primary_sha256", pa.string()),
        ("artifact", pa.string()),
        ("artifact_sha256", pa.string()),
        ("image", pa.string()),
        ("context_prompt", pa.string()),
        ("input_sha256", pa.string()),
        ("gray_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("seed", pa.int64()),
        ("base_model", pa.string()),
        ("judge", pa.string()),
        ("config_digest", pa.string()),
        ("seconds", pa.float64()),
        ("trained_steps", pa.int32()),
        ("resumed_at", pa.string()),
        ("luminance_mismatches", pa.int64()),
        ("group_id", pa.string()),
        ("row_digest", pa.string()),
        ("fit_key", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Output:
    """One colorized picture. `image` is a key below OUT; `candidates` are the eta ladder's figures, best first;
    `source` is "manifest" or "recolor"."""

    prompt: str
    image: str
    sha256: str
    eta: float
    colorfulness: float
    clip_margin: float
    candidates: tuple[dict[str, float], ...]
    source: str = "manifest"


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """The one outcome of a manifest row. Fields are the columns of `SCHEMA`; `extra` are the carried columns.

    `seconds` is this image's share of the worker's time: a lockstep of K images divides its time by K.
    `trained_steps` were done by the worker that finished the row: 0 when an earlier fit was used again, the rest when
    it went on from a checkpoint, which `resumed_at` then names ("embedding/20").
    """

    id: str
    status: str
    row_digest: str
    error_kind: str | None = None
    error_message: str | None = None
    warnings: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    primary_image: str | None = None
    primary_sha256: str | None = None
    artifact: str | None = None
    artifact_sha256: str | None = None
    image: str | None = None
    context_prompt: str | None = None
    input_sha256: str | None = None
    gray_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    base_model: str | None = None
    judge: str | None = None
    config_digest: str | None = None
    seconds: float = 0.0
    trained_steps: int = 0
    resumed_at: str | None = None
    luminance_mismatches: int | None = None
    group_id: str | None = None
    fit_key: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> set[str]:
        """Keys of everything that this row names."""
        return {key for key in (self.primary_image, self.artifact, *(one.image for one in self.outputs)) if key}

    def to_record(self) -> dict[str, Any]:
        """A JSON-able dict without the carried columns: those come from the manifest, which has them exactly."""
        record = asdict(self)
        del record["extra"]
        return record

    @staticmethod
    def from_record(record: dict[str, Any], carried: bool = True) -> "ResultRow":
        """The inverse of `to_record`; with `carried`, names that are not ours become `extra`."""
        known = {name: record[name] for name in SCHEMA.names if name in record}
        known["outputs"] = tuple(
            Output(**{**output, "candidates": tuple(output["candidates"])}) for output in known["outputs"] or ()
        )
        known["warnings"] = tuple(known["warnings"] or ())
        extra = {name: value for name, value in record.items() if name not in SCHEMA.names} if carried else {}
        return ResultRow(**known, extra=extra)


def carried_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a table of results that are the manifest's own."""
    return pa.schema([item for item in schema if item.name not in SCHEMA.names])


def to_table(rows: list[ResultRow], carried: pa.Schema) -> pa.Table:
    """Rows as one table: our columns, then the manifest's own in their own types."""
    schema = pa.unify_schemas([SCHEMA, carried]) if len(carried) else SCHEMA
    return pa.Table.from_pylist([{**row.to_record(), **row.extra} for row in rows], schema=schema)


def blank_result(task: Task, spec: JobSpec, models: Models) -> ResultRow:
    """A result row with what is known before any work is done."""
    row = task.row
    return ResultRow(
        id=row.id,
        status=FAILED,
        row_digest=task.row_digest,
        image=redacted(row.image) if row.image else None,
        context_prompt=row.caption,
        seed=row.seed,
        base_model=models.base_model,
        judge=models.judge,
        config_digest=digest(spec.config),
        warnings=(*row.warnings, *(() if spec.preconditions else (_NO_PRECONDITIONS,))),
    )
