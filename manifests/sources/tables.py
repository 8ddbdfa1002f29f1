"""What is known of images, line by line: a spreadsheet or catalogue records."""

from typing import NamedTuple

import fsspec

from manifests.errors import ManifestError, Problem
from manifests.sources.records import is_xml, read_records
from manifests.sources.spreadsheet import Line, read_spreadsheet

MAX_BYTES = 512 << 20


class Table(NamedTuple):
    """A table.

    Attributes:
        is_catalogue: it holds things that may have no image.
    """

    headings: list[str]
    lines: list[Line]
    is_catalogue: bool


def read_table(uri: str) -> Table:
    """A CSV, an .xlsx, or XML of Dublin Core, MARC or EAD, told apart by their first bytes.

    Raises:
        ManifestError: `not_found`, `bad_csv` or `bad_records`, with the line.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except Exception as error:  # each store has exceptions of its own
        reason = f"cannot be read ({type(error).__name__}: {error})"
        raise ManifestError(uri, [Problem("not_found", None, None, reason)]) from error
    if len(raw) > MAX_BYTES:
        raise ManifestError(uri, [Problem("bad_csv", None, None, f"more than {MAX_BYTES >> 20} MB")])
    if is_xml(raw):
        return Table(*read_records(uri, raw), is_catalogue=True)
    return Table(*read_spreadsheet(uri, raw), is_catalogue=False)
