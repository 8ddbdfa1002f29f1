"""The result of a row: the Arrow schema of `OUT/results/`, and the record that becomes one of its rows."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.ledger.names import provenance_key

OK, FAILED, SKIPPED = "ok", "failed", "skipped"

_CANDIDATE = pa.struct(
    [
        ("eta", pa.float64()),
        ("clip_margin", pa.float64()),
        ("stray_color", pa.float64()),
        ("colorfulness", pa.float64()),
        ("preview", pa.string()),
    ]
)
_OUTPUT = pa.struct(
    [
        ("prompt", pa.string()),
        ("image", pa.string()),
        ("sha256", pa.string()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("eta", pa.float64()),
        ("colorfulness", pa.float64()),
        ("clip_margin", pa.float64()),
        ("stray_color", pa.float64()),
        ("color_spread", pa.float64()),
        ("spread_preview", pa.string()),
        ("chroma_reduced", pa.float64()),
        ("chroma_kept", pa.float64()),
        ("repaired", pa.int64()),
        ("lightness_mean", pa.float64()),
        ("lightness_max", pa.float64()),
        ("preview", pa.string()),
        ("pixels", pa.string()),
        ("candidates", pa.list_(_CANDIDATE)),
        ("source", pa.string()),
        ("hints", pa.list_(pa.string())),
        ("hints_kept", pa.list_(pa.float64())),
        ("reference", pa.string()),
        ("reference_sha256", pa.string()),
        ("reference_likeness", pa.float64()),
        ("note", pa.string()),
        ("access", pa.string()),
        ("access_sha256", pa.string()),
        ("access_luma_mean", pa.float64()),
        ("access_luma_max", pa.int64()),
    ]
)
_SOURCE = pa.struct(
    [
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("page", pa.int64()),
        ("pages", pa.int64()),
        ("depth", pa.int64()),
        ("photometric", pa.string()),
        ("compression", pa.string()),
        ("decoder", pa.string()),
        ("conversion", pa.string()),
        ("dpi_x", pa.float64()),
        ("dpi_y", pa.float64()),
        ("orientation", pa.int64()),
        ("profile", pa.string()),
        ("profile_sha256", pa.string()),
        ("profile_assumed", pa.bool_()),
        ("software", pa.string()),
        ("not_carried", pa.list_(pa.string())),
        ("extreme", pa.float64()),
        ("negative", pa.bool_()),
    ]
)
_LOSS = pa.struct([("stage", pa.string()), ("step", pa.int64()), ("loss", pa.float64())])
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
        ("page", pa.int64()),
        ("regions", pa.list_(pa.list_(pa.int64()))),
        ("picture_box", pa.list_(pa.int64())),
        ("source", _SOURCE),
        ("halftone", pa.float64()),
        ("preview", pa.string()),
        ("primary_preview", pa.string()),
        ("context_prompt", pa.string()),
        ("input_sha256", pa.string()),
        ("gray_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("seed", pa.int64()),
        ("base_model", pa.string()),
        ("judge", pa.string()),
        ("config_digest", pa.string()),
        ("software", pa.string()),
        ("finished_at", pa.string()),
        ("seconds", pa.float64()),
        ("losses", pa.list_(_LOSS)),
        ("trained_steps", pa.int32()),
        ("resumed_at", pa.string()),
        ("luminance_mismatches", pa.int64()),
        ("group_id", pa.string()),
        ("prompt_writer", pa.string()),
        ("row_digest", pa.string()),
        ("fit_key", pa.string()),
    ]
)


class OutputKey(NamedTuple):
    """What tells an output from its row's others: its text, the colours that were known, and its example."""

    prompt: str
    hints: tuple[str, ...] = ()
    reference: str | None = None


_LISTS = ("candidates", "hints", "hints_kept")  # of an output


@dataclass(frozen=True, kw_only=True)
class Output:
    """One colorized picture. Files are keys below OUT.

    Attributes:
        color_spread: how far apart its coarse colours are when they are guessed again, on average, in units of a*b*
            (`CoarseColorizer.spread`); `spread_preview` shows where.
        chroma_reduced: share of the pixels whose chroma was out of gamut and was reduced.
        chroma_kept: share of its chroma that such a pixel kept, on average.
        stray_color: colour that changes where the scan does not, relative to all colour (`measures.stray_color`).
        repaired: pixels whose rounding was put right in integers.
        lightness_mean, lightness_max: how far CIELAB lightness moved at equal luma, in the preview.
        pixels: a small preview as a script, because a page from a disk may show an image file but not read it.
        candidates: the eta ladder's figures and previews, best first.
        source: where its prompt and its known colours are from, "manifest" or "recolor".
        hints: the colours that were known at points and boxes, as "x,y,color" and "x,y,width,height,color".
        hints_kept: the share of its chroma for which the gray values had room, for each of them; 1 for a neutral one.
        reference: the picture whose colours were taken, a URI or a key; `reference_likeness` says how alike it is,
            from 0, when nothing was taken, to 1 (`diffcolor.reference`).
        note: why the format is not the one that was asked for, and what metadata it cannot hold.
        access: the smaller JPEG copy; `access_luma_mean` and `_max` are its luma's errors in 8-bit codes.
    """

    prompt: str
    image: str
    sha256: str
    eta: float
    colorfulness: float
    clip_margin: float
    candidates: tuple[dict[str, Any], ...]
    format: str | None = None
    bytes: int | None = None
    stray_color: float | None = None
    color_spread: float | None = None
    spread_preview: str | None = None
    chroma_reduced: float | None = None
    chroma_kept: float | None = None
    repaired: int | None = None
    lightness_mean: float | None = None
    lightness_max: float | None = None
    preview: str | None = None
    pixels: str | None = None
    source: str = "manifest"
    hints: tuple[str, ...] = ()
    hints_kept: tuple[float, ...] = ()
    reference: str | None = None
    reference_sha256: str | None = None
    reference_likeness: float | None = None
    note: str | None = None
    access: str | None = None
    access_sha256: str | None = None
    access_luma_mean: float | None = None
    access_luma_max: int | None = None

    @property
    def key(self) -> OutputKey:
        """What tells it from a row's other outputs."""
        return OutputKey(self.prompt, self.hints, self.reference)

    @property
    def record(self) -> str | None:
        """Key of the provenance record beside the picture."""
        return provenance_key(self.image) if self.preview else None

    @property
    def files(self) -> set[str]:
        """Keys of all its files."""
        previews = (candidate.get("preview") for candidate in self.candidates)
        own = (self.image, self.record, self.access, self.preview, self.pixels, self.spread_preview)
        return {key for key in (*own, *previews) if key}


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """The one outcome of a manifest row. Fields are the columns of `SCHEMA`; `extra` are the carried columns.

    `seconds` is this image's share of the worker's time: a lockstep of K images divides its time by K.
    `trained_steps` were done by the worker that finished the row: 0 when an earlier fit was used again, the rest when
    it went on from a checkpoint, which `resumed_at` then names ("embedding/20").
    `outputs` of a row that failed when it was done again are its recolourings, kept for the next try.
    `picture_box` is that of the photograph that was found on its sheet, x, y, width, height in pixels of the file.
    `source` are the facts of `pipelines.images.gray.Source`; `halftone` is the distance of a print's dots in pixels.
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
    page: int | None = None
    regions: tuple[tuple[int, ...], ...] = ()
    picture_box: tuple[int, int, int, int] | None = None
    source: dict[str, Any] | None = None
    halftone: float | None = None
    preview: str | None = None
    primary_preview: str | None = None
    context_prompt: str | None = None
    input_sha256: str | None = None
    gray_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    base_model: str | None = None
    judge: str | None = None
    config_digest: str | None = None
    software: str | None = None
    finished_at: str | None = None
    seconds: float = 0.0
    losses: tuple[dict[str, Any], ...] = ()
    trained_steps: int = 0
    resumed_at: str | None = None
    luminance_mismatches: int | None = None
    group_id: str | None = None
    prompt_writer: str | None = None
    fit_key: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def colored(self) -> tuple[tuple[int, int, int, int], ...]:
        """The boxes that have colour; empty for the whole page."""
        boxes = self.regions or ((self.picture_box,) if self.picture_box else ())
        return tuple((x, y, width, height) for x, y, width, height in boxes)

    @property
    def files(self) -> set[str]:
        """Keys of all files that this row refers to."""
        own = {key for key in (self.primary_image, self.artifact, self.preview, self.primary_preview) if key}
        return own.union(*(output.files for output in self.outputs))

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
            Output(**{**output, **{name: tuple(output.get(name) or ()) for name in _LISTS}})
            for output in known["outputs"] or ()
        )
        known["warnings"] = tuple(known["warnings"] or ())
        known["regions"] = tuple(tuple(box) for box in known.get("regions") or ())
        known["picture_box"] = tuple(known["picture_box"]) if known.get("picture_box") else None
        known["losses"] = tuple(known.get("losses") or ())
        extra = {name: value for name, value in record.items() if name not in SCHEMA.names} if carried else {}
        return ResultRow(**known, extra=extra)
