"""Reading a manifest: one Parquet file or a folder of parts, on any fsspec store, row groups streamed."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.color_places import ColorPlace, read_places
from manifests.errors import ManifestError, Problem
from manifests.locations import Reach, folder_of, resolve
from manifests.schema import COLUMNS, SCHEMA, Defaults, ManifestRow
from manifests.validate import Validator, accepts, check_schema

BATCH_ROWS = 1024
_IMAGE_ROWS = 16  # per batch, where the rows hold the images themselves


def parts(uri: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    """The Parquet files of a manifest, in name order.

    Raises:
        ManifestError: there is no such file, or the folder holds no Parquet file.
    """
    try:
        fs, path = fsspec.core.url_to_fs(uri)
        if fs.isdir(path):
            files = sorted(file for file in fs.find(path) if file.endswith(".parquet"))
        else:
            files = [path] if fs.exists(path) else []
    except Exception as error:  # each store has exceptions of its own
        raise ManifestError(uri, [Problem("unreadable", None, None, f"{type(error).__name__}: {error}")]) from error
    if not files:
        message = "no such file, or a folder without .parquet files; check the URI, or make one: manifest build FOLDER"
        raise ManifestError(uri, [Problem("not_found", None, None, message)])
    return fs, files


def stamp(uri: str) -> list[tuple]:
    """Path, size, and entity tag or modification time of each part: a changed manifest has another stamp."""
    fs, files = parts(uri)
    infos = [fs.info(path) for path in files]
    return [(info["name"], info["size"], str(info.get("ETag") or info.get("mtime"))) for info in infos]


def read_schema(uri: str) -> pa.Schema:
    """Schema of the first part, with the columns that its folders name."""
    fs, files = parts(uri)
    with _opened(uri, fs, files[0]) as file:
        return _with_folders(file.schema_arrow, folders_of(uri, fs, files[0]))


def folders_of(uri: str, fs: fsspec.AbstractFileSystem, path: str) -> dict[str, str]:
    """The columns of a part that are the names of its folders, as Hive, Spark and DuckDB write them: `fonds=x/`.

    A column of ours that is no text is none of them.
    """
    root = fs._strip_protocol(uri).rstrip("/") + "/"
    pairs = (folder.partition("=") for folder in path.removeprefix(root).split("/")[:-1])
    named = {name: unquote(value) for name, equals, value in pairs if name and equals}
    return {
        name: value for name, value in named.items() if name not in COLUMNS or SCHEMA.field(name).type == pa.string()
    }


def _with_folders(schema: pa.Schema, folders: Mapping[str, str]) -> pa.Schema:
    for name in folders:
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    return schema


def _opened(uri: str, fs: fsspec.AbstractFileSystem, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(fs.open(path, "rb"), pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        remedy = "a CSV becomes a manifest with: manifest build FOLDER --captions FILE.csv"
        message = f"{path} is not a readable Parquet file ({error}); {remedy}"
        raise ManifestError(uri, [Problem("not_parquet", None, None, message)]) from error


def read_rows(
    uri: str,
    columns: Mapping[str, str] | None = None,
    defaults: Defaults | None = None,
    validator: Validator | None = None,
) -> Iterator[ManifestRow]:
    """Streams the valid rows of a manifest; problems gather in `validator`.

    Args:
        uri: file or folder, any fsspec URI.
        columns: our name to the file's name, for manifests with other headings.
        defaults: for rows that do not say otherwise.
        validator: collects problems over the whole stream. Without one, the first batch with a problem raises.

    Raises:
        ManifestError: the file cannot be read or its columns have wrong types; or see `validator`.
    """
    return (row for _, row in numbered_rows(uri, columns, defaults, validator))


def _within_reach(uri: str, defaults: Defaults | None) -> Defaults:
    """A manifest that is not local reaches its own bucket, if nothing else is said."""
    defaults = defaults or Defaults()
    return defaults if defaults.reach else replace(defaults, reach=Reach.of(uri))


def numbered_rows(
    uri: str,
    columns: Mapping[str, str] | None = None,
    defaults: Defaults | None = None,
    validator: Validator | None = None,
    wanted: Callable[[int, int], bool] = lambda _first, _end: True,
) -> Iterator[tuple[int, ManifestRow]]:
    """As `read_rows`, with row numbers from 0. Batches of rows [first, end) that are not `wanted` are not checked."""
    fs, files = parts(uri)
    renamed = {theirs: ours for ours, theirs in (columns or {}).items()}
    checker = validator or Validator(folder_of(uri), _within_reach(uri, defaults))
    number = 0
    for path in files:
        with _opened(uri, fs, path) as file:
            faults = check_schema(file.schema_arrow, renamed)
            if faults:
                raise ManifestError(uri, faults)
            names = [renamed.get(name, name) for name in file.schema_arrow.names]
            for batch in file.iter_batches(_IMAGE_ROWS if "image_bytes" in names else BATCH_ROWS):
                if not wanted(number, number + batch.num_rows):
                    number += batch.num_rows
                    continue
                try:
                    records = batch.rename_columns(names).to_pylist()
                except (ValueError, OverflowError) as error:  # such as a time in nanoseconds, which Python lacks
                    message = f"{path}: a value in row {number} or later cannot be read ({error})"
                    raise ManifestError(uri, [Problem("bad_value", None, None, message)]) from error
                for values in ({**folders_of(uri, fs, path), **record} for record in records):
                    row = checker.check(number, values)
                    number += 1
                    if row is not None:
                        yield number - 1, row
                if validator is None and checker.problems:
                    raise ManifestError(uri, checker.problems)


def validated(
    uri: str,
    columns: Mapping[str, str] | None = None,
    defaults: Defaults | None = None,
    seen: Callable[[ManifestRow], None] = lambda _row: None,
) -> int:
    """Checks a whole manifest without keeping it; returns its number of rows.

    Args:
        seen: called with every valid row.

    Raises:
        ManifestError: with every problem found.
    """
    fs, files = parts(uri)
    differing = _differing_parts(uri, fs, files, columns)
    within, count = _within_reach(uri, defaults), 0
    validator = Validator(folder_of(uri), within)
    for row in read_rows(uri, columns, within, validator):
        seen(row)
        count += 1
    if repeated := validator.repeated_ids():  # rare enough for a second pass that finds their rows
        validator = Validator(folder_of(uri), within, repeated)
        deque(read_rows(uri, columns, within, validator), maxlen=0)
    validator.problems[:0] = differing
    if not count and not validator.problems:
        validator.problems.append(Problem("empty", None, None, "the manifest has no rows"))
    if validator.problems:
        raise ManifestError(uri, validator.problems)
    return count


def _differing_parts(
    uri: str, fs: fsspec.AbstractFileSystem, files: list[str], columns: Mapping[str, str] | None
) -> list[Problem]:
    """Parts whose carried columns differ from the first part's; they cannot become one table of results."""
    carried = []
    for path in files:
        with _opened(uri, fs, path) as file:
            whole = _with_folders(file.schema_arrow, folders_of(uri, fs, path))
            carried.append(extra_columns(whole, columns).remove_metadata())
    return [
        Problem("parts_differ", None, None, f"{path} carries {_named(schema)}, {files[0]} {_named(carried[0])}")
        for path, schema in zip(files, carried, strict=True)
        if not _alike(schema, carried[0])
    ]


def _named(schema: pa.Schema) -> str:
    return ", ".join(f"{item.name} ({item.type})" for item in schema) or "no columns"


def _alike(one: pa.Schema, other: pa.Schema) -> bool:
    """Whether rows of both can be in one table: the same columns; texts may be stored in any way."""
    return one.names == other.names and all(
        left.type.equals(right.type) or (accepts(left.type, pa.string()) and accepts(right.type, pa.string()))
        for left, right in zip(one, other, strict=True)
    )


def extra_columns(schema: pa.Schema, columns: Mapping[str, str] | None = None) -> pa.Schema:
    """The fields that are carried into the results: all but our own columns."""
    ours = set(COLUMNS) | set((columns or {}).values())
    return pa.schema([item for item in schema if item.name not in ours])


@dataclass(frozen=True, kw_only=True)
class RecolorRequest:
    """A row's new prompts; none: those that it has. Where its colours are known, and the picture whose colours it
    takes; none: as they were before.

    Attributes:
        reference: URI of a picture, or the key of a picture of the same output.
    """

    id: str
    prompts: tuple[str, ...] = ()
    places: tuple[ColorPlace, ...] = ()
    reference: str | None = None


def read_recolor_requests(uri: str) -> Iterator[RecolorRequest]:
    """Ids, target prompts, known colours and references of a Parquet file that asks for recolouring.

    Raises:
        ManifestError: column id is missing, a column is of another type, or a row asks for nothing.
    """
    names = ("id", "target_prompts", "color_points", "color_boxes", "reference")
    fs, files = parts(uri)
    number = -1
    for path in files:
        with _opened(uri, fs, path) as file:
            schema = file.schema_arrow
            for name in names:
                if name == "id" and name not in schema.names:
                    raise ManifestError(uri, [Problem("missing_column", None, None, f"column {name!r} is missing")])
                if name in schema.names and not accepts(schema.field(name).type, SCHEMA.field(name).type):
                    message = f"column {name!r} is {schema.field(name).type}, expected {SCHEMA.field(name).type}"
                    raise ManifestError(uri, [Problem("bad_type", None, None, message)])
            for batch in file.iter_batches(BATCH_ROWS, columns=[name for name in names if name in schema.names]):
                for values in batch.to_pylist():
                    number += 1
                    yield _recolor_request(uri, number, values)


def _recolor_request(uri: str, number: int, values: Mapping[str, Any]) -> RecolorRequest:
    def fault(kind: str, message: str) -> ManifestError:
        return ManifestError(uri, [Problem(kind, number, values["id"], message)])

    prompts = tuple(prompt.strip() for prompt in values.get("target_prompts") or () if prompt and prompt.strip())
    try:
        places = read_places(values.get("color_points"), values.get("color_boxes"))
    except ValueError as error:
        raise fault("bad_place", f"color_points or color_boxes: {error}") from error
    try:
        reference = resolve(values["reference"], folder_of(uri), Reach.of(uri)) if values.get("reference") else None
    except ValueError as error:
        raise fault("bad_reference", f"reference: {error}") from error
    if not values["id"] or not (prompts or places or reference):
        message = "needs an id and a target prompt, a point or box whose colour is known, or a reference"
        raise fault("no_prompt", message)
    return RecolorRequest(id=values["id"], prompts=prompts, places=places, reference=reference)
