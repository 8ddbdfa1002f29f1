"""The Arrow schema of a manifest row, and the row itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from manifests.color_places import ColorPlace
from manifests.locations import Reach

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False, metadata={"doc": "unique; letters, digits, '.', '_', '-'"}),
        pa.field("image", pa.string(), metadata={"doc": "URI, absolute or relative to the manifest"}),
        pa.field("image_bytes", pa.binary(), metadata={"doc": "the encoded image itself, instead of a URI"}),
        pa.field("caption", pa.string(), metadata={"doc": "context prompt: what the picture shows"}),
        pa.field(
            "target_prompts", pa.list_(pa.string()), metadata={"doc": "the caption with colour words, one output each"}
        ),
        pa.field(
            "color_hints", pa.string(), metadata={"doc": "'red barn; blue sky': makes a target prompt from the caption"}
        ),
        pa.field(
            "anti_color_prompts", pa.list_(pa.string()), metadata={"doc": "replaces the default negatives of stage 1"}
        ),
        pa.field("group_id", pa.string(), metadata={"doc": "series this picture belongs to; shares its default seed"}),
        pa.field("seed", pa.int64(), metadata={"doc": "0 .. 2^63-1; default: derived from group_id, else from id"}),
        pa.field("page", pa.int64(), metadata={"doc": "page of a TIFF that has several, from 0"}),
        pa.field(
            "regions",
            pa.list_(pa.list_(pa.int64())),
            metadata={"doc": "boxes [x, y, width, height] in pixels: only they get colour"},
        ),
        pa.field(
            "color_points",
            pa.list_(pa.struct([("x", pa.int64()), ("y", pa.int64()), ("color", pa.string())])),
            metadata={"doc": "known colours at pixels of the file: #rrggbb, a name ('olive drab') or 'neutral'"},
        ),
        pa.field(
            "color_boxes",
            pa.list_(
                pa.struct([*((name, pa.int64()) for name in ("x", "y", "width", "height")), ("color", pa.string())])
            ),
            metadata={"doc": "the same for boxes; a thing may be larger than its box"},
        ),
        pa.field(
            "reference",
            pa.string(),
            metadata={"doc": "URI of a colour picture of the same thing or kind, whose colours are taken where alike"},
        ),
        pa.field("toned", pa.string(), metadata={"doc": "'reject' or 'desaturate' tone or colour;"}),
        pa.field("negative", pa.bool_(), metadata={"doc": "true: the scan is a negative, its picture the inverse"}),
        pa.field("prompt_writer", pa.string(), metadata={"doc": "who wrote the prompts; named in the pictures' marks"}),
        pa.field("image_sha256", pa.string(), metadata={"doc": "expected sha256 of the image file, 64 hex digits"}),
    ]
)
COLUMNS = tuple(SCHEMA.names)


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds for rows that do not say otherwise.

    Attributes:
        caption: of rows with an empty one, which get a warning; None: they are a problem.
        page: from 0; None for none.
        negative: whether they are negatives.
        whole_sheet: of all rows: what surrounds a photograph gets colour, too.
        reach: what `image` and `reference` may name; None: as `Reach.of` the manifest.
    """

    caption: str | None = None
    page: int | None = None
    negative: bool = False
    whole_sheet: bool = False
    reach: Reach | None = None


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """One picture to colorize.

    Attributes:
        image: absolute URI; None when `image_bytes` is given.
        target_prompts: the row's own prompts, then the one made from its colour hints. Never empty: a row with neither
            has its caption as its target.
        page: from 0; None for a file with one page.
        regions: boxes x, y, width, height in pixels; empty for the whole page.
        color_places: points and boxes whose colour is known.
        reference: absolute URI of a colour picture of the same thing or kind.
        negative: whether the picture is the inverse of the scan.
        whole_sheet: without regions, colour goes everywhere, not only to the photograph that is found on its sheet.
        extra: the columns that are carried into the results untouched.
    """

    id: str
    image: str | None = None
    image_bytes: bytes | None = field(default=None, repr=False)
    caption: str
    target_prompts: tuple[str, ...]
    color_hints: str | None = None
    anti_color_prompts: tuple[str, ...] | None = None
    group_id: str | None = None
    seed: int
    page: int | None = None
    regions: tuple[tuple[int, int, int, int], ...] = ()
    color_places: tuple[ColorPlace, ...] = ()
    reference: str | None = None
    toned: str | None = None
    negative: bool = False
    whole_sheet: bool = False
    prompt_writer: str | None = None
    image_sha256: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
