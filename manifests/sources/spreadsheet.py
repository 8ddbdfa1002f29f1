"""Spreadsheets with a heading line: CSV as Excel, LibreOffice and databases write it, and .xlsx. Strict: what cannot be
meant is refused with its line, never guessed."""

import csv
import datetime
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from manifests.errors import ManifestError, Problem

MAX_UNPACKED = 1 << 30  # of an .xlsx, which is a ZIP
_DELIMITERS = ",;\t"
_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_ENCODING = (
    "not UTF-8 (line {line}): save it as 'CSV UTF-8 (Comma delimited)' in Excel, or as UTF-8 in LibreOffice, or give "
    "the .xlsx itself"
)


@dataclass(frozen=True)
class Line:
    """A row of a spreadsheet: its line number, from 1 with the headings counted, and its cells by heading."""

    number: int
    cells: dict[str, str]


def read_spreadsheet(uri: str, raw: bytes) -> tuple[list[str], list[Line]]:
    """Headings and rows of a file's bytes. Blanks around cells and headings are stripped, empty rows left out.

    Raises:
        ManifestError: `bad_csv` with the line.
    """
    rows = _rows_of_xlsx(uri, raw) if raw.startswith(b"PK\3\4") else _rows_of_csv(uri, raw)
    headings: list[str] = []
    lines: list[Line] = []
    for number, row in rows:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if not headings:
            headings = _headings(uri, number, cells)
        elif len(cells) > len(headings) and any(cells[len(headings) :]):
            message = f"{len(cells)} cells, but {len(headings)} headings; put texts with a separator in them in quotes"
            raise _fault(uri, "bad_csv", f"line {number}: {message}")
        else:
            lines.append(Line(number, dict(zip(headings, cells, strict=False))))
    if not headings:
        raise _fault(uri, "bad_csv", "it is empty; the first line holds the headings, such as file,caption")
    return headings, lines


def _fault(uri: str, kind: str, message: str) -> ManifestError:
    return ManifestError(uri, [Problem(kind, None, None, message)])


def _headings(uri: str, number: int, cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells.pop()
    if "" in cells:
        raise _fault(uri, "bad_csv", f"line {number}: heading {cells.index('') + 1} of {len(cells)} is empty")
    twice = [name for name, count in Counter(cells).items() if count > 1]
    if twice:
        raise _fault(uri, "bad_csv", f"line {number}: the heading {twice[0]!r} occurs twice; rename or remove one")
    return cells


def _rows_of_csv(uri: str, raw: bytes) -> Iterator[tuple[int, list[str]]]:
    encoding = next((name for bom, name in _BOMS.items() if raw.startswith(bom)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise _fault(uri, "bad_csv", _ENCODING.format(line=raw[: error.start].count(b"\n") + 1)) from error
    if "\0" in text:
        raise _fault(uri, "bad_csv", _ENCODING.format(line=1))
    start, delimiter = 0, ""
    first = text.lstrip("\r\n").split("\n", 1)[0].split("\r", 1)[0]
    if first.strip('" ').lower().startswith("sep=") and len(first.strip('" \r')) == 5:  # Excel's own line
        delimiter, start = first.strip('" \r')[4], text.index(first) + len(first)
        first = text[start:].lstrip("\r\n").split("\n", 1)[0].split("\r", 1)[0]
    if not delimiter:
        unquoted = "".join(first.split('"')[::2])
        delimiter = max(_DELIMITERS, key=unquoted.count)
    offset = text[:start].count("\n") + (start > 0)
    reader = csv.reader(io.StringIO(text[start:].lstrip("\r\n") if start else text, newline=""), delimiter=delimiter,
                        strict=True, skipinitialspace=True)  # fmt: skip
    began = offset + 1
    try:
        for row in reader:
            yield began, row
            began = offset + reader.line_num + 1
    except csv.Error as error:
        remedy = "a quote that is opened must be closed before the next separator, and is doubled within a text"
        if "field larger" in str(error):
            remedy = f"a cell holds more than {csv.field_size_limit()} characters, or a quote was never closed"
        raise _fault(uri, "bad_csv", f"line {began}: {error}; {remedy}") from error


def _rows_of_xlsx(uri: str, raw: bytes) -> Iterator[tuple[int, list[str]]]:
    """The first sheet."""
    try:
        import openpyxl
    except ImportError as error:
        remedy = "an .xlsx file needs the extra: pip install 'diffcolor-batch[excel]'; or save it as CSV UTF-8"
        raise _fault(uri, "bad_csv", remedy) from error
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED:
                raise _fault(uri, "bad_csv", f"it unpacks to more than {MAX_UNPACKED >> 20} MB")
        book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
            yield number, [_text(value) for value in row]
    except ManifestError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsers raise
        raise _fault(uri, "bad_csv", f"cannot be read as .xlsx ({type(error).__name__}: {error})") from error


def _text(value: object) -> str:
    """A cell as a person reads it: 5.0 is 5, and a day has no time."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)
