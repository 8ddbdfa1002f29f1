"""`manifest build`: a Parquet manifest from a folder of images and, if there is one, a spreadsheet about them."""

import difflib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.color_places import parse_places
from manifests.errors import ManifestError, Problem
from manifests.ids import ids_of, slug_id
from manifests.locations import absolute, resolve
from manifests.schema import COLUMNS, SCHEMA
from manifests.sources.folder import Finder, images_below
from manifests.sources.spreadsheet import Line
from manifests.sources.tables import read_table
from manifests.validate import RESERVED

LIST_SEPARATOR = "|"
FILE, GIVEN_ID = "file", "given_id"
_NOT_THERE = {"image", "image_bytes"}  # the folder gives them


@dataclass(frozen=True)
class Built:
    """What `build` made.

    Attributes:
        uncaptioned: ids of images without a caption.
        unmatched: files listed in the spreadsheet that are not in the folder.
        matched: rows of the spreadsheet that have an image.
        left_out: number of files that are no images of the archive, by reason.
        notes: what was read otherwise than it was written.
    """

    rows: int
    uncaptioned: tuple[str, ...]
    unmatched: tuple[str, ...]
    matched: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Captions:
    """A spreadsheet about images.

    Attributes:
        rows: by image (relative path), its line.
        unmatched: file names without an image.
        carried: headings that are none of a manifest's columns, in their order.
        notes: what was read otherwise than it was written.
    """

    rows: Mapping[str, Line] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_captions(uri: str, images: Collection[str], columns: Mapping[str, str] | None = None) -> Captions:
    """Reads a CSV, .xlsx or catalogue records with a column `file`, and finds the image of each row.

    Args:
        columns: names of a manifest's columns (or `file`) to the spreadsheet's headings.

    Raises:
        ManifestError: it cannot be read, has no column `file`, or names a file twice or unclearly.
    """
    table = read_table(uri)
    names, notes = _columns_of(uri, table.headings, columns or {})
    finder, rows, unmatched = Finder(images), dict[str, Line](), []
    problems, without = [], 0
    for line in table.lines:
        cells = {names[heading]: cell for heading, cell in line.cells.items()}
        name = cells.get(FILE, "")
        found = finder.find(name) if name else []
        where = f"line {line.number}: file {name!r}"
        if not name and table.is_catalogue:
            without += 1
        elif not name:
            problems.append(Problem("bad_csv", None, None, f"line {line.number}: the cell of column 'file' is empty"))
        elif len(found) > 1:
            message = f"{where} may be {' or '.join(map(repr, found[:3]))}; give its folder, too"
            problems.append(Problem("unclear_file", None, None, message))
        elif found and (other := rows.get(found[0])):
            message = f"{where} is listed twice, first in line {other.number}"
            problems.append(Problem("duplicate_file", None, None, message))
        elif found:
            rows[found[0]] = Line(line.number, cells)
        else:
            unmatched.append(name)
    if problems:
        raise ManifestError(uri, problems)
    if without:
        notes.append(f"{without} of {len(table.lines)} records name no file")
    carried = tuple(name for name in names.values() if name not in (*COLUMNS, FILE))
    return Captions(rows, tuple(unmatched), carried, tuple(notes))


def _columns_of(uri: str, headings: list[str], columns: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The column that each heading stands for, and what there is to say about it."""
    known, names, notes, problems = {*COLUMNS, FILE} - _NOT_THERE, dict[str, str](), [], []
    given = {theirs: ours for ours, theirs in columns.items()}
    for theirs, ours in given.items():
        if theirs not in headings:
            message = f"--column {ours}={theirs}: there is no heading {theirs!r}, only {', '.join(headings)}"
            problems.append(Problem("missing_column", None, None, message))
        elif ours not in known:
            message = f"--column {ours}=...: columns are {', '.join(sorted(known))}"
            problems.append(Problem("unknown_column", None, None, message))
    for heading in headings:
        name = given.get(heading, heading)
        if name not in known and name.casefold() in known:
            name = name.casefold()
            notes.append(f"the heading {heading!r} is read as {name!r}")
        elif name not in known and (near := difflib.get_close_matches(name.casefold(), known, 1, 0.8)):
            remedy = f"if it is meant as {near[0]!r}, rename it, or give --column {near[0]}={heading}"
            notes.append(f"the heading {heading!r} is carried into the results as it is; {remedy}")
        if name in RESERVED or name in _NOT_THERE:
            message = f"the heading {heading!r} is a column of the results, or is made from the folder; rename it"
            problems.append(Problem("reserved_column", None, None, message))
        names[heading] = name
    if twice := {name for name in names.values() if list(names.values()).count(name) > 1}:
        message = f"two headings stand for the column {min(twice)!r}; rename or remove one"
        problems.append(Problem("duplicate_column", None, None, message))
    if FILE not in names.values():
        message = f"needs a column 'file' (path within the folder, or the name alone), has {', '.join(headings)}; "
        problems.append(Problem("bad_csv", None, None, message + "or name it: --column file=HEADING"))
    if problems:
        raise ManifestError(uri, problems)
    return names, notes


def build(
    folder: str,
    output: str | Path,
    suffixes: Collection[str],
    captions_uri: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Built:
    """Writes a manifest of the images below `folder`, sorted by path, with what a spreadsheet says about them.

    Args:
        folder: any fsspec URI.
        output: the Parquet file to write, any fsspec URI.
        suffixes: of image files, lower case, with the dot.
        captions_uri: CSV, .xlsx or XML; see `read_captions`. Its other columns are carried as text.
        columns: see `read_captions`.

    Raises:
        ManifestError: no images, two images with one id, or something wrong with the spreadsheet.
    """
    found = images_below(folder, suffixes)
    captions = read_captions(captions_uri, found.images, columns) if captions_uri else Captions()
    ids, changed = _ids(found.images, captions)
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for path, image in found.images.items():
        line = captions.rows.get(path, Line(0, {}))
        given = line.cells
        cells = _Cells(given, line.number, problems)
        row = {
            "id": ids[path],
            "image": image,
            "caption": given.get("caption") or None,
            "target_prompts": _listed(given.get("target_prompts")),
            "color_hints": given.get("color_hints") or None,
            "anti_color_prompts": _listed(given.get("anti_color_prompts")),
            "group_id": given.get("group_id") or None,
            "seed": cells.whole_number("seed"),
            "page": cells.whole_number("page"),
            "regions": cells.read("regions", "bad_region", _regions),
            "color_points": cells.read("color_points", "bad_place", lambda text: parse_places(text, 2)),
            "color_boxes": cells.read("color_boxes", "bad_place", lambda text: parse_places(text, 4)),
            "reference": cells.read("reference", "bad_reference", lambda text: resolve(text, absolute(folder))),
            "toned": given.get("toned") or None,
            "negative": cells.read("negative", "bad_negative", _yes_or_no),
            "prompt_writer": given.get("prompt_writer") or None,
            "image_sha256": given.get("image_sha256") or None,
        }
        rows.append(row | {name: given.get(name) or None for name in captions.carried})
        if changed:
            rows[-1][GIVEN_ID] = given.get("id") or None
    if problems:
        raise ManifestError(captions_uri or folder, problems)
    notes = captions.notes
    if changed:
        example = f"{changed[0]!r} is {slug_id(changed[0])!r}"
        notes += (f"{len(changed)} ids hold characters that an id may not have ({example}); see column {GIVEN_ID}",)
    built = write(rows, output, folder, captions.unmatched, (*captions.carried, *([GIVEN_ID] if changed else [])))
    return replace(built, left_out=found.left_out, notes=notes, matched=len(captions.rows))


def _yes_or_no(text: str) -> bool:
    """Raises ValueError where it is neither."""
    if text.strip().lower() in ("true", "yes", "1"):
        return True
    if text.strip().lower() in ("false", "no", "0"):
        return False
    raise ValueError(f"{text!r} is neither yes nor no")


def _ids(images: Collection[str], captions: Captions) -> tuple[dict[str, str], list[str]]:
    """By image, its id; and the given ids that could not stay as they are."""
    given = {path: line.cells["id"] for path, line in captions.rows.items() if line.cells.get("id")}
    ids = dict(ids_of(path for path in images if path not in given)) | {
        path: slug_id(one) for path, one in given.items()
    }
    return ids, [one for one in given.values() if slug_id(one) != one]


def write(
    rows: list[dict], output: str | Path, origin: str, unmatched: tuple[str, ...] = (), carried: tuple[str, ...] = ()
) -> Built:
    """Writes rows (dicts of our columns and of `carried` ones, which are texts) as a manifest.

    Raises:
        ManifestError: two rows with one id, or the manifest cannot be written there.
    """
    seen: dict[str, dict] = {}
    problems = []
    for number, row in enumerate(rows):
        other = seen.setdefault(row["id"].casefold(), row)
        if other is not row:
            message = f"{row['image']} and {other['image']} have the same id; give ids in the spreadsheet"
            problems.append(Problem("duplicate_id", number, row["id"], message))
    if problems:
        raise ManifestError(origin, problems)
    # Parquet readers of other programs show the columns' meaning from the schema's metadata.
    ours = [item for item in SCHEMA if item.name != "image_bytes"]
    schema = pa.schema([*ours, *(pa.field(name, pa.string()) for name in carried)])
    table = pa.Table.from_pylist(rows, schema=schema)
    try:
        with fsspec.open(str(output), "wb") as file:
            pq.write_table(table, file, row_group_size=4096)
    except Exception as error:  # each store has exceptions of its own
        remedy = f"cannot be written ({type(error).__name__}: {error})"
        raise ManifestError(str(output), [Problem("unwritable", None, None, remedy)]) from error
    uncaptioned = tuple(row["id"] for row in rows if not row["caption"])
    return Built(len(rows), uncaptioned, unmatched)


@dataclass(frozen=True)
class _Cells:
    """The cells of a line that are more than texts; what cannot be read is added to the problems."""

    cells: Mapping[str, str]
    line: int
    problems: list[Problem]

    def read(self, name: str, kind: str, parse: Callable[[str], Any]) -> Any:
        """A cell's value; None if it is empty or wrong."""
        text = self.cells.get(name)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(Problem(kind, None, self.cells.get("id"), f"line {self.line}: {name}: {error}"))
            return None

    def whole_number(self, name: str) -> int | None:
        return self.read(name, f"bad_{name}", _whole_number)


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number >= 0")
    return int(text)


def _regions(text: str) -> list[list[int]]:
    """`x,y,width,height; x,y,width,height`, or JSON."""
    if text.startswith("["):
        try:
            boxes = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{text!r} is not JSON ({error})") from error
    else:
        boxes = [[part.strip() for part in box.split(",")] for box in text.split(";") if box.strip()]
    try:
        if not isinstance(boxes, list) or not all(isinstance(box, list) and len(box) == 4 for box in boxes):
            raise TypeError
        return [[_whole_number(str(side)) for side in box] for box in boxes]
    except (TypeError, ValueError):
        raise ValueError(f"{text!r} is not x,y,width,height; x,y,width,height in pixels, nor JSON of it") from None


def _listed(cell: str | None) -> list[str] | None:
    return [part.strip() for part in cell.split(LIST_SEPARATOR) if part.strip()] if cell else None
