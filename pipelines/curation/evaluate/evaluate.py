"""`evaluate`: a job's pictures against the truth, in figures with intervals."""

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests.errors import ManifestError, Problem
from manifests.locations import absolute, folder_of, resolve
from pipelines.curation.evaluate.figures import against_truth, hint_agreement, interval, mean_ab, spread
from pipelines.curation.evaluate.pictures import at_most, read_mask, read_rgb
from pipelines.curation.verify import read_scan_again
from pipelines.images.errors import InputImageError
from pipelines.images.paint import check_luma
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import OK, Output, ResultRow
from pipelines.store.store import Store, fetch_uri

if TYPE_CHECKING:
    from pipelines.curation.evaluate.perceptual import Perceptual

FOLDER = "evaluation"
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
LOWER_IS_BETTER = {"ciede2000", "ciede2000_p95", "ab_error", "ab_ratio", "hint_hue_error", "bleed", "lpips"}


@dataclass(frozen=True)
class Truth:
    """The true picture of a row, and what was hinted about it.

    Attributes:
        image: URI.
        hint_color: a colour that an object was to take; where it is say `hint_mask` (URI of a picture, white inside) or
            `hint_box` (x, y, width, height).
    """

    image: str
    hint_color: str | None = None
    hint_mask: str | None = None
    hint_box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Per-image figures, and of each its mean with a 95 % interval.

    Attributes:
        rows: one per picture: `id`, `prompt`, and the figures.
        missing: ids that have no truth, or whose truth cannot be compared, and why.
        crowd: figures of all pictures together: FID, KID; `series_spread` and `series_spread_truth`, the mean over the
            series (rows of one group_id) of how far their pictures are apart in colour.
    """

    rows: list[dict[str, Any]]
    missing: dict[str, str] = field(default_factory=dict)
    crowd: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, tuple[float, float, float, int]]:
        """Mean, low, high and number of pictures of each figure."""
        names = dict.fromkeys(name for row in self.rows for name in row if name not in ("id", "prompt"))
        found = {}
        for name in names:
            values = np.array([row[name] for row in self.rows if row.get(name) is not None], np.float64)
            if len(values):
                found[name] = (*interval(values), len(values))
        return found


def truths(uri: str) -> dict[str, Truth]:
    """True pictures by row id: a folder of files named by id, or a Parquet file with `id`, `image` and, if wanted, the
    hint's columns.

    Raises:
        ManifestError: neither.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    if not uri.endswith(".parquet"):
        place = absolute(uri).rstrip("/")
        files = [one for one in fs.find(path) if PurePosixPath(one).suffix.lower() in SUFFIXES]
        if not files:
            message = f"no pictures below it ({', '.join(SUFFIXES)})"
            raise ManifestError(uri, [Problem("no_images", None, None, message)])
        return {PurePosixPath(one).stem: Truth(f"{place}/{one.removeprefix(path).lstrip('/')}") for one in files}
    try:
        with fs.open(path, "rb") as file:
            table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise ManifestError(uri, [Problem("not_parquet", None, None, str(error))]) from error
    if not {"id", "image"} <= set(table.column_names):
        message = f"columns id and image are needed, found {table.column_names}"
        raise ManifestError(uri, [Problem("missing_column", None, None, message)])
    base, found = folder_of(uri), {}
    for row in table.to_pylist():
        mask, box = row.get("hint_mask"), row.get("hint_box")
        found[row["id"]] = Truth(
            resolve(row["image"], base),
            row.get("hint_color"),
            resolve(mask, base) if mask else None,
            tuple(int(side) for side in box) if box else None,
        )
    return found


Judged = Callable[[NDArray[np.uint8], str, ResultRow], dict[str, float]]


def evaluate(
    output: str,
    known: dict[str, Truth],
    *,
    variant: int = 1,
    judged: dict[str, Judged] | None = None,
    perceptual: "Perceptual | None" = None,
) -> Evaluation:
    """Compares each ok row's picture with its truth.

    Args:
        variant: which of a row's prompts, from 1; 0 is stage 1's own picture.
        judged: by name, what a CLIP model says of a picture, its prompt and row.
        perceptual: LPIPS, FID, KID.
    """
    store, rows, missing = Store(output), [], {}
    series: dict[str, list] = defaultdict(list)
    for row in Ledger(store).current():
        if row.status != OK:
            missing[row.id] = f"its status is {row.status}"
            continue
        if row.id not in known:
            missing[row.id] = "no truth"
            continue
        key, prompt = _picture(row, variant)
        if key is None:
            missing[row.id] = f"it has no variant {variant}"
            continue
        try:
            with store.read_file(key) as file:
                rgb = read_rgb(file)
                mismatches = _mismatches(row, file)
            truth = known[row.id]
            with fetch_uri(truth.image) as file:
                true = read_rgb(file)
            if true.shape != rgb.shape:
                size = f"{true.shape[1]} x {true.shape[0]}, the picture {rgb.shape[1]} x {rgb.shape[0]}"
                raise ValueError(f"the truth is {size}")
            inside = _inside(truth, rgb.shape[:2]) if truth.hint_color else None
            rgb, true = at_most(rgb), at_most(true)
            figures: dict[str, Any] = {"id": row.id, "prompt": prompt, **against_truth(rgb, true)}
            figures["luminance_mismatches"] = mismatches
            if inside is not None:
                figures |= hint_agreement(rgb, inside, truth.hint_color)
        except (InputImageError, OSError, ValueError) as error:
            missing[row.id] = str(error)
            continue
        if perceptual:
            figures |= perceptual.pair(rgb, true)
        if row.group_id:
            series[row.group_id].append((mean_ab(rgb), mean_ab(true)))
        for name, judge in (judged or {}).items():
            figures |= {f"{name}_{key}": value for key, value in judge(rgb, prompt, row).items()}
        rows.append(figures)
    crowd = perceptual.crowd() if perceptual else {}
    apart = [(spread(ours), spread(true)) for ours, true in _of_several(series)]
    if apart:
        crowd["series_spread"], crowd["series_spread_truth"] = np.mean(apart, axis=0).tolist()
    return Evaluation(rows=rows, missing=missing, crowd=crowd)


def _of_several(series: dict[str, list]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The mean colours, ours and true, of each series that has more than one picture; (N, 2) each."""
    for pairs in series.values():
        if len(pairs) > 1:
            ours, true = zip(*pairs, strict=True)
            yield np.stack(ours), np.stack(true)


def _picture(row: ResultRow, variant: int) -> tuple[str | None, str]:
    if variant == 0:
        return row.primary_image, row.context_prompt or ""
    output: Output | None = row.outputs[variant - 1] if variant <= len(row.outputs) else None
    return (output.image, output.prompt) if output else (None, "")


def _mismatches(row: ResultRow, file) -> int | None:
    """Against the scan itself, where that is still there."""
    if row.image is None:
        return None
    scan = read_scan_again(row)
    return check_luma(file, scan[0]).mismatches if scan else None


def _inside(truth: Truth, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The hinted object's pixels, as many as are compared."""
    if truth.hint_mask:
        with fetch_uri(truth.hint_mask) as file:
            inside = read_mask(file)
        if inside.shape != shape:
            size = f"{inside.shape[1]} x {inside.shape[0]}, the picture {shape[1]} x {shape[0]}"
            raise ValueError(f"the hint's mask is {size}")
    elif truth.hint_box:
        inside = np.zeros(shape, bool)
        x, y, width, height = truth.hint_box
        inside[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = True
    else:
        raise ValueError("a hint needs hint_mask or hint_box")
    inside = at_most(inside)
    if not inside.any() or inside.all():
        raise ValueError("the hint's object is nothing, or the whole picture")
    return inside


def clip_judge(judge) -> Judged:
    """What an open_clip model says: `score` (cosine to the prompt), `margin` (less the best anti-colour text)."""
    import torch

    from diffcolor.config import FitConfig
    from diffcolor.measures import clip_margins

    def judged(rgb: NDArray[np.uint8], prompt: str, row: ResultRow) -> dict[str, float]:
        picture = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float().to(judge.device) / 255
        with torch.no_grad():
            features = judge.image_features(picture)
        positive = judge.text_features([prompt])
        negatives = judge.text_features(list(FitConfig().anti_color_prompts))[None]
        return {
            "score": float((features * positive).sum()),
            "margin": float(clip_margins(features, positive, negatives)[0]),
        }

    return judged


def write_tables(store: Store, found: Evaluation, name: str) -> list[str]:
    """`evaluation/<name>.parquet` with a row per picture; `.md`, `.html` and `.json` with the summary; their keys."""
    buffer = io.BytesIO()
    columns = dict.fromkeys(key for row in found.rows for key in row)
    table = pa.Table.from_pylist([{key: row.get(key) for key in columns} for row in found.rows])
    pq.write_table(table, buffer)
    names = ("mean", "low", "high", "pictures")
    summary = {key: dict(zip(names, value, strict=True)) for key, value in found.summary().items()}
    contents = {
        f"{FOLDER}/{name}.parquet": buffer.getvalue(),
        f"{FOLDER}/{name}.md": markdown(found).encode(),
        f"{FOLDER}/{name}.html": as_html(found, name).encode(),
        f"{FOLDER}/{name}.json": json.dumps(
            {"summary": summary, "crowd": found.crowd, "missing": found.missing}, indent=1
        ).encode(),
    }
    for key, content in contents.items():
        store.write(key, content)
    return list(contents)


def _table(found: Evaluation) -> list[tuple[str, str, str, str]]:
    """Name, mean, interval and number of pictures of each figure, as texts; the distances of the crowds last."""
    lines = []
    for name, (mean, low, high, count) in found.summary().items():
        better = " (lower is better)" if name in LOWER_IS_BETTER else ""
        lines.append((f"{name}{better}", f"{mean:.3f}", f"{low:.3f} to {high:.3f}", str(count)))
    for name, value in found.crowd.items():
        series = name.startswith("series")
        better, count = ("", "") if series else (" (lower is better)", str(len(found.rows)))
        lines.append((f"{name}{better}", f"{value:.4g}", "", count))
    return lines


def markdown(found: Evaluation) -> str:
    """The summary as a table."""
    lines = ["| figure | mean | 95 % interval | pictures |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _table(found)]
    lines += ["", *(f"- not compared: {row_id}: {reason}" for row_id, reason in found.missing.items())]
    return "\n".join(lines).rstrip() + "\n"


def as_html(found: Evaluation, title: str) -> str:
    """The summary and every picture's figures as a page of its own; everything that came from outside is escaped."""

    def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
        rows = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in lines]
        return f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{''.join(rows)}</table>"

    names = list(dict.fromkeys(name for row in found.rows for name in row))
    per_picture = ([_cell(row.get(name)) for name in names] for row in found.rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        "<style>body{font:15px sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
        "td,th{border:1px solid #ccc;padding:.2em .5em;text-align:left}</style>"
        f"<h1>{escape(title)}</h1>{table(('figure', 'mean', '95 % interval', 'pictures'), _table(found))}"
        f"<h2>Each picture</h2>{table(names, per_picture)}"
        f"<h2>Not compared</h2>{table(('id', 'why'), found.missing.items())}</html>\n"
    )


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def rows_of(found: Evaluation) -> Iterator[str]:
    """A line per picture, for the terminal: the worst last."""
    for row in sorted(found.rows, key=lambda row: row["ab_ratio"]):
        colourfulness = f"{row['colorfulness']:.0f} (truth {row['colorfulness_truth']:.0f})"
        figures = f"a*b* ratio {row['ab_ratio']:.2f}, CIEDE2000 {row['ciede2000']:.1f}"
        yield f"{row['id']}: {figures}, colourfulness {colourfulness}"
