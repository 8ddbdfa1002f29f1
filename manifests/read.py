"""Reading a manifest: one Parquet file or a folder of parts, on any fsspec store, row groups streamed."""

import hashlib
from collections.abc import Iterator, Mapping

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import ManifestError, Problem
from manifests.locations import folder_of
from manifests.schema import COLUMNS, ManifestRow
from manifests.validate import Validator, check_schema

BATCH_ROWS = 1024


def parts(uri: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    """The Parquet files of a manifest, in name order.

    Raises:
        ManifestError: nothing is there, or the folder holds no Parquet file.
    """
    try:
        fs, path = fsspec.core.url_to_fs(uri)
        if fs.isdir(path):
            found = sorted(file for file in fs.find(path) if file.endswith(".parquet"))
        else:
            found = [path] if fs.exists(path) else []
    except (ValueError, ImportError, OSError) as error:
        raise ManifestError(uri, [Problem("unreadable", None, None, f"{type(error).__name__}: {error}")]) from error
    if not found:
        message = "no such file, or a folder without .parquet files; check the URI, or make one: manifest build FOLDER"
        raise ManifestError(uri, [Problem("not_found", None, None, message)])
    return fs, found


def read_schema(uri: str) -> pa.Schema:
    """Schema of the first part."""
    fs, found = parts(uri)
    with _opened(uri, fs, found[0]) as file:
        return file.schema_arrow


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
    default_caption: str | None = None,
    validator: Validator | None = None,
) -> Iterator[ManifestRow]:
    """Streams the valid rows of a manifest; problems gather in `validator`.

    Args:
        uri: file or folder, any fsspec URI.
        columns: our name to the file's name, for manifests with other headings.
        default_caption: stands in for an empty caption; without it such a row is a problem.
        validator: collects problems over the whole stream. Without one, the first batch with a problem raises.

    Raises:
        ManifestError: the file cannot be read or its columns have wrong types; or see `validator`.
    """
    fs, found = parts(uri)
    renamed = {theirs: ours for ours, theirs in (columns or {}).items()}
    problems = validator or Validator(folder_of(uri), default_caption)
    number = 0
    for path in found:
        with _opened(uri, fs, path) as file:
            faults = check_schema(file.schema_arrow, renamed)
            if faults:
                raise ManifestError(uri, faults)
            for batch in file.iter_batches(BATCH_ROWS):
                batch = batch.rename_columns([renamed.get(name, name) for name in batch.schema.names])
                for values in batch.to_pylist():
                    row = problems.check(number, values)
                    number += 1
                    if row is not None:
                        yield row
                if validator is None and problems.found:
                    raise ManifestError(uri, problems.found)


def validated(
    uri: str, columns: Mapping[str, str] | None = None, default_caption: str | None = None
) -> tuple[int, str]:
    """Checks a whole manifest without keeping it.

    Returns:
        Number of rows, and sha256 (hex) over the ids in order.

    Raises:
        ManifestError: with every problem found.
    """
    parts(uri)
    validator, ids, count = Validator(folder_of(uri), default_caption), hashlib.sha256(), 0
    for row in read_rows(uri, columns, default_caption, validator):
        ids.update(row.id.encode() + b"\0")
        count += 1
    if not count and not validator.found:
        validator.found.append(Problem("empty", None, None, "the manifest has no rows"))
    if validator.found:
        raise ManifestError(uri, validator.found)
    return count, ids.hexdigest()


def extra_columns(schema: pa.Schema, columns: Mapping[str, str] | None = None) -> pa.Schema:
    """The fields that are carried into the results: all that are not ours."""
    ours = set(COLUMNS) | set((columns or {}).values())
    return pa.schema([item for item in schema if item.name not in ours])


def read_recolor_requests(uri: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Ids and target prompts of a Parquet file that asks for recolouring.

    Raises:
        ManifestError: columns id (string) and target_prompts (list of string) are not both there, or a row is empty.
    """
    fs, found = parts(uri)
    for path in found:
        with _opened(uri, fs, path) as file:
            missing = {"id", "target_prompts"} - set(file.schema_arrow.names)
            if missing:
                message = f"column(s) {sorted(missing)} missing; a recolor manifest needs id and target_prompts"
                raise ManifestError(uri, [Problem("missing_column", None, None, message)])
            for batch in file.iter_batches(BATCH_ROWS, columns=["id", "target_prompts"]):
                for number, values in enumerate(batch.to_pylist()):
                    prompts = tuple(
                        prompt.strip() for prompt in values["target_prompts"] or () if prompt and prompt.strip()
                    )
                    if not values["id"] or not prompts:
                        problem = Problem(
                            "no_prompt", number, values["id"], "needs an id and one target prompt or more"
                        )
                        raise ManifestError(uri, [problem])
                    yield values["id"], prompts
