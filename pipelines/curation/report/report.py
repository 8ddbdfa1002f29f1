"""The report: one static page over a job's results, for a curator to look at every picture and decide.

`OUT/report/` is self-contained: opened from a disk or from a downloaded bucket, it needs no server and no network. All
text goes into the page as JSON and from there into text nodes; nothing is ever parsed as HTML.
"""

import html
import json
import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from itertools import islice
from typing import Any

from diffcolor.config import HINTING
from manifests.color_names import named_colors
from pipelines.images.frame import seen_box, upright_frame
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.names import report_link
from pipelines.ledger.results import OK, Output, ResultRow
from pipelines.statement import LUMA_FORMULA, STATEMENT
from pipelines.store.store import Store
from pipelines.version import SYSTEM, VERSION

FOLDER = "report"
CHUNK_ROWS = 500
_CHUNK = re.compile(r"/(?:rows|details)-(\d+)\.js$")
PART_CHUNKS = 40
PART_ROWS = PART_CHUNKS * CHUNK_ROWS
FIRST_PARTS = 5


class NoSuchPartError(ValueError):
    """The report has fewer parts."""


def write_report(store: Store, part: int | None = None) -> dict[str, int]:
    """Writes the report and its data; memory holds at most `CHUNK_ROWS` rows at a time.

    A browser holds the rows of one page of the report, so that a large job has several: its parts, of `PART_ROWS` rows
    each. The first `FIRST_PARTS` are written, and those that are there already.

    Args:
        part: another one to write, from 1.

    Returns:
        Number of rows by status.

    Raises:
        NoSuchPartError: there is none of that number.
    """
    from pipelines.curation.review import decisions

    ledger = Ledger(store)
    job, before = ledger.read_job(), set(store.list(f"{FOLDER}/data"))
    there = {int(found[1]) // PART_CHUNKS for key in before if (found := _CHUNK.search(key))}
    counts: Counter[str] = Counter()
    decided = decisions(store)
    chunks: dict[int, int] = {}  # of each part
    made: set[str] = set()
    for number, rows in enumerate(_chunks(ledger.current())):
        counts.update(row.status for row in rows)
        inside = number // PART_CHUNKS
        chunks[inside] = chunks.get(inside, 0) + 1
        if not (inside < FIRST_PARTS or inside + 1 == part or inside in there):
            continue
        for name, content in (
            ("rows", [_summary(row, decided.get(row.id)) for row in rows]),
            ("details", [_details(row) for row in rows]),
        ):
            key = f"{FOLDER}/data/{name}-{number:04d}.js"
            made.add(key)
            store.write(key, _script(name, number, content))
    total, parts = counts.total(), max(1, len(chunks))
    if part is not None and not 1 <= part <= parts:
        raise NoSuchPartError(f"part {part}: the report has parts 1 to {parts}, of {PART_ROWS} rows each")
    pages = [k for k in range(parts) if k < FIRST_PARTS or k + 1 == part or k in there]
    facts = {
        "job": {key: getattr(job, key) for key in ("run", "plan", "manifest", "base_model", "judge", "preset", "rows")},
        "output": posixpath.basename(store.root),
        "software": f"{SYSTEM} {VERSION}",
        "statement": STATEMENT,
        "luma": LUMA_FORMULA,
        "pending": job.rows - total,
        "hinting": asdict(HINTING),
        "colors": named_colors(),
        "parts": [
            {
                "page": posixpath.basename(page_of(k)) if k in pages else None,
                "first": k * PART_ROWS + 1,
                "last": min(total, (k + 1) * PART_ROWS),
            }
            for k in range(parts)
        ],
    }
    for k in pages:
        place = {"part": k, "firstChunk": k * PART_CHUNKS, "chunks": chunks.get(k, 0)}
        store.write(page_of(k), _page({**facts, **place}).encode())
    store.delete(sorted({*(before - made), *(page_of(k) for k in there if k not in pages)}))
    return dict(counts)


def page_of(part: int) -> str:
    """The key of a part's page; parts count from 0 here, from 1 for people."""
    return f"{FOLDER}/part-{part + 1:04d}.html" if part else f"{FOLDER}/index.html"


def refresh_report(store: Store, changed: bool) -> None:
    """Writes the report if rows have changed, or if there is none yet."""
    if changed or not store.exists(f"{FOLDER}/index.html"):
        write_report(store)


def _chunks(rows: Iterator[ResultRow]) -> Iterator[list[ResultRow]]:
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def _json(value: Any) -> str:
    """JSON that is safe inside a script, in a page or a file: ASCII, and without a "<" that could end the script."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _script(name: str, number: int, content: list[Any]) -> bytes:
    return f"report.{name}({number},{_json(content)});\n".encode()


def _page(facts: dict[str, Any]) -> str:
    def part(name: str) -> str:
        return files(__package__).joinpath(name).read_text()

    title = html.escape(f"{facts['output']}: colorized by a machine")
    scripts = {name: part(f"{name}.js") for name in ("hints", "editor", "page")}
    parts = {"title": title, "css": part("page.css"), "facts": _json(facts), **scripts}
    # In one pass: what is put in is not looked through again.
    return re.sub(r"{{(\w+)}}", lambda match: parts[match.group(1)], part("page.html"))


def _place(key: str | None) -> str | None:
    """A key of the store as a link from the report's page."""
    return None if key is None else report_link(key)


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _summary(row: ResultRow, decision: dict[str, str] | None) -> dict[str, Any]:
    """What the gallery and the filters need of a row; short, because the browser holds it for all rows at once."""
    return {
        "id": row.id,
        "status": row.status,
        "caption": row.context_prompt,
        "kind": row.error_kind,
        "message": row.error_message,
        "warnings": list(row.warnings),
        "seconds": _rounded(row.seconds, 1),
        "size": f"{row.width} x {row.height}" if row.width else None,
        "group": row.group_id,
        "gray": _place(row.preview),
        "variants": [_variant(output) for output in _shown(row)],
        "decision": decision,
    }


def _hints(output: Output) -> dict[str, Any]:
    """Known colours, each with the share of its chroma that was had; the reference; and the preview's pixels, for which
    the editor asks. Nothing where there are none."""
    shares = (_rounded(kept, 2) for kept in output.hints_kept)
    hints: dict[str, Any] = {"hints": list(zip(output.hints, shares, strict=True))} if output.hints else {}
    if output.reference:
        hints |= {"reference": output.reference, "likeness": _rounded(output.reference_likeness, 2)}
    return {**hints, "pixels": _place(output.pixels)} if output.pixels else hints


def _frame(row: ResultRow) -> dict[str, Any]:
    """Where the places of the upright preview are in the stored raster; nothing if no preview's pixels can be read."""
    if not any(output.pixels for output in _shown(row)):
        return {}
    assert row.source is not None, "an ok row has its scan's facts"
    return {"frame": upright_frame(seen_box(row.colored, row.width or 0, row.height or 0), row.source["orientation"])}


def _shown(row: ResultRow) -> tuple[Output, ...]:
    """The outputs to show. A row that failed when it was run again keeps its earlier outputs for the next attempt, but
    the report only shows why it failed."""
    return row.outputs if row.status == OK else ()


def _variant(output: Output) -> dict[str, Any]:
    return {
        "prompt": output.prompt,
        "preview": _place(output.preview),
        "image": _place(output.image),
        "sha256": output.sha256,
        "eta": output.eta,
        "colorfulness": _rounded(output.colorfulness, 1),
        "margin": _rounded(output.clip_margin),
        "stray": _rounded(output.stray_color),
        "reduced": _rounded(output.chroma_reduced, 4),
        "source": output.source,
        **({"spread": _rounded(output.color_spread, 1)} if output.spread_preview else {}),
    }


def _details(row: ResultRow) -> dict[str, Any]:
    """What the page shows when a single row is opened; loaded only then."""
    losses: dict[str, list] = {}
    for loss in row.losses:
        losses.setdefault(loss["stage"], []).append([loss["step"], _rounded(loss["loss"], 4)])
    source = row.source or {}
    return {
        "primary": _place(row.primary_preview),
        **_frame(row),
        "losses": losses,
        "variants": [
            {
                "candidates": [
                    {
                        "eta": candidate["eta"],
                        "margin": _rounded(candidate["clip_margin"]),
                        "stray": _rounded(candidate.get("stray_color")),
                        "colorfulness": _rounded(candidate["colorfulness"], 1),
                        "preview": _place(candidate.get("preview")),
                    }
                    for candidate in output.candidates
                ],
                "kept": _rounded(output.chroma_kept),
                "repaired": output.repaired,
                "lightness": [_rounded(output.lightness_mean, 1), _rounded(output.lightness_max, 1)],
                "note": output.note,
                "format": output.format,
                "bytes": output.bytes,
                "access": _place(output.access),
                "access_luma": [_rounded(output.access_luma_mean, 2), output.access_luma_max],
                "record": _place(output.record),
                **({"guessed": _place(output.spread_preview)} if output.spread_preview else {}),
                **_hints(output),
            }
            for output in _shown(row)
        ],
        "facts": {
            "scan": row.image,
            "page": row.page,
            "sha256 of the scan's file": row.input_sha256,
            "sha256 of its gray values": row.gray_sha256,
            "luminance mismatches": row.luminance_mismatches,
            "format": source.get("format"),
            "bits": source.get("depth"),
            "conversion to gray": source.get("conversion"),
            "tone curve": source.get("profile"),
            "share of pixels at black or white": _rounded(source.get("extreme"), 4),
            "not carried over": ", ".join(source.get("not_carried") or ()) or None,
            "regions": [list(box) for box in row.regions] or None,
            **({"the picture on its sheet": list(row.picture_box)} if row.picture_box else {}),
            "halftone, pixels from dot to dot": _rounded(row.halftone, 1),
            "seed": None if row.seed is None else str(row.seed),  # 63 bits are too many for a JavaScript number
            "base model": row.base_model,
            "judge": row.judge,
            "settings": row.config_digest,
            "training steps": row.trained_steps,
            "went on from": row.resumed_at,
            "software": row.software,
            "finished": row.finished_at,
            "artifact": row.artifact,
        },
    }
