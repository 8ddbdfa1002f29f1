"""The true pictures that `evaluate` compares with."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import ManifestError, Problem
from manifests.locations import absolute, folder_of, resolve
from pipelines.images.formats.table import SUFFIXES


@dataclass(frozen=True)
class Truth:
    """The true picture of a row, and the colour hint of its prompt, if any.

    Attributes:
        image: URI.
        hint_color: a colour that the prompt asks for on one object. The object is where `hint_mask` (URI of a picture)
            is white, or inside `hint_box` (x, y, width, height).
    """

    image: str
    hint_color: str | None = None
    hint_mask: str | None = None
    hint_box: tuple[int, ...] | None = None


def truths(uri: str) -> dict[str, Truth]:
    """True pictures by row id: a folder of files named by id, or a Parquet file with `id`, `image` and, optionally, the
    columns of hints.

    Raises:
        ManifestError: neither.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    if not uri.endswith(".parquet"):
        folder = absolute(uri).rstrip("/")
        files = [file for file in fs.find(path) if PurePosixPath(file).suffix.lower() in SUFFIXES]
        if not files:
            message = f"no pictures below it ({', '.join(sorted(SUFFIXES))})"
            raise ManifestError(uri, [Problem("no_images", None, None, message)])
        return {PurePosixPath(file).stem: Truth(f"{folder}/{file.removeprefix(path).lstrip('/')}") for file in files}
    try:
        with fs.open(path, "rb") as file:
            table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise ManifestError(uri, [Problem("not_parquet", None, None, str(error))]) from error
    if not {"id", "image"} <= set(table.column_names):
        message = f"columns id and image are needed, found {table.column_names}"
        raise ManifestError(uri, [Problem("missing_column", None, None, message)])
    base, by_id = folder_of(uri), {}
    for row in table.to_pylist():
        mask, box = row.get("hint_mask"), row.get("hint_box")
        by_id[row["id"]] = Truth(
            resolve(row["image"], base),
            row.get("hint_color"),
            resolve(mask, base) if mask else None,
            tuple(int(side) for side in box) if box else None,
        )
    return by_id
