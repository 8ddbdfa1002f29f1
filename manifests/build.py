"""`manifest build`: a Parquet manifest from a folder of images and, if there is one, a CSV of captions."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.color_places import parse_places
from manifests.errors import ManifestError, Problem
from manifests.locations import absolute
from manifests.schema import SCHEMA

LIST_SEPARATOR = "|"


@dataclass(frozen=True)
class Built:
    """What `build` made.

    Attributes:
        uncaptioned: ids of images without a caption.
        unmatched: files listed in the captions that are not in the folder.
        left_out: number of files that are not images, by suffix.
    """

    rows: int
    uncaptioned: tuple[str, ...]
    unmatched: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def slug_id(path: str) -> str:
    """An id from a relative path: no suffix, and "-" for characters that an id may not have."""
    stem = str(PurePosixPath(path).with_suffix(""))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "image"


def read_captions(uri: str) -> dict[str, dict[str, str]]:
    """Rows of a UTF-8 CSV by its column `file`; other columns: id, caption, target_prompts ("a|b"), color_hints, ...

    Raises:
        ManifestError: not UTF-8, no column `file`, or two rows for the same file.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise ManifestError(uri, [Problem("not_found", None, None, f"cannot be read ({error})")]) from error
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise ManifestError(uri, [Problem("bad_csv", None, None, f"not UTF-8 ({error}); save it as UTF-8")]) from error
    if "file" not in (reader.fieldnames or []):
        message = f"needs a column 'file' (path within the folder), has {reader.fieldnames}"
        raise ManifestError(uri, [Problem("bad_csv", None, None, message)])
    captions: dict[str, dict[str, str]] = {}
    problems = []
    for number, row in enumerate(reader):
        if row["file"] in captions:
            problems.append(Problem("duplicate_file", number, None, f"file {row['file']!r} is listed twice"))
        captions[row["file"]] = row
    if problems:
        raise ManifestError(uri, problems)
    return captions


def build(folder: str, output: Path, suffixes: Collection[str], captions_uri: str | None = None) -> Built:
    """Writes a manifest of the images below `folder`, sorted by path, captions joined on the relative path.

    Args:
        folder: any fsspec URI.
        output: the local Parquet file to write.
        suffixes: of image files, lower case, with the dot.
        captions_uri: CSV; see `read_captions`.

    Raises:
        ManifestError: no images, two images with one id, or a bad CSV.
    """
    images, left_out = images_below(folder, suffixes)
    captions = read_captions(captions_uri) if captions_uri else {}
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for number, (relative, image) in enumerate(images.items()):
        given = captions.pop(relative, {})
        row = {
            "id": given.get("id") or slug_id(relative),
            "image": image,
            "caption": given.get("caption") or None,
            "target_prompts": _listed(given.get("target_prompts")),
            "color_hints": given.get("color_hints") or None,
            "anti_color_prompts": _listed(given.get("anti_color_prompts")),
            "group_id": given.get("group_id") or None,
            "seed": _whole_number(number, "seed", given, problems),
            "page": _whole_number(number, "page", given, problems),
            "color_points": _places(number, "color_points", 2, given, problems),
            "color_boxes": _places(number, "color_boxes", 4, given, problems),
            "reference": given.get("reference") or None,
            "toned": given.get("toned") or None,
            "prompt_writer": given.get("prompt_writer") or None,
            "image_sha256": given.get("image_sha256") or None,
        }
        rows.append(row)
    if problems:
        raise ManifestError(folder, problems)
    return replace(write(rows, output, folder, tuple(captions)), left_out=left_out)


def images_below(folder: str, suffixes: Collection[str]) -> tuple[dict[str, str], Mapping[str, int]]:
    """Relative path and URI of every image below a folder, sorted by path; the other files counted by suffix.

    Raises:
        ManifestError: the folder has no image.
    """
    fs, root = fsspec.core.url_to_fs(folder)
    files = sorted(fs.find(root))
    images = [path for path in files if PurePosixPath(path).suffix.lower() in suffixes]
    left_out = Counter(suffix for path in files if (suffix := PurePosixPath(path).suffix.lower()) not in suffixes)
    if not images:
        message = f"no {', '.join(sorted(suffixes))} below it"
        raise ManifestError(folder, [Problem("no_images", None, None, message)])
    place = absolute(folder).rstrip("/")
    relative = [path.removeprefix(root).lstrip("/") for path in images]
    return {path: f"{place}/{path}" for path in relative}, left_out


def write(rows: list[dict], output: Path, origin: str, unmatched: tuple[str, ...] = ()) -> Built:
    """Writes rows (dicts of our columns) as a manifest.

    Raises:
        ManifestError: two rows with one id.
    """
    seen: dict[str, dict] = {}
    problems = []
    for number, row in enumerate(rows):
        other = seen.setdefault(row["id"].casefold(), row)
        if other is not row:
            message = f"{row['image']} and {other['image']}; give ids in the CSV"
            problems.append(Problem("duplicate_id", number, row["id"], message))
    if problems:
        raise ManifestError(origin, problems)
    # Parquet readers of other programs show the columns' meaning from the schema's metadata.
    schema = pa.schema([item for item in SCHEMA if item.name != "image_bytes"])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), output, row_group_size=4096)
    uncaptioned = tuple(row["id"] for row in rows if not row["caption"])
    return Built(len(rows), uncaptioned, unmatched)


def _places(
    number: int, column: str, numbers: int, given: Mapping[str, str], problems: list[Problem]
) -> list[dict[str, Any]] | None:
    try:
        return parse_places(given.get(column), numbers)
    except ValueError as error:
        problems.append(Problem("bad_place", number, given.get("id"), f"{column}: {error}"))
        return None


def _whole_number(number: int, name: str, given: dict[str, str], problems: list[Problem]) -> int | None:
    text = (given.get(name) or "").strip()
    if text and not (text.isascii() and text.isdigit()):
        problems.append(Problem(f"bad_{name}", number, given.get("id"), f"{name} {text!r} is not a whole number >= 0"))
        return None
    return int(text) if text else None


def _listed(cell: str | None) -> list[str] | None:
    return [part.strip() for part in cell.split(LIST_SEPARATOR) if part.strip()] if cell else None
