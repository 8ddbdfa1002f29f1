"""Catalogue records as lines of a spreadsheet: Dublin Core, MARCXML and EAD.

A field is a heading: `dc:title` of Dublin Core, `245$a` of MARC, `ead:unittitle` of EAD. What is repeated within a
record has a number from the second on (`dc:subject`, `dc:subject.2`). Which of them names the file and which is the
caption is said as for a spreadsheet: `--column file=dc:identifier.2 --column caption=dc:title`.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain

from lxml import etree

from manifests.errors import ManifestError, Problem
from manifests.sources.spreadsheet import Line
from manifests.xml import UnsafeXmlError, local_name, parse_xml

_DUBLIN_CORE = ("http://purl.org/dc/elements/1.1/", "http://purl.org/dc/terms/")
_EAD_TEXTS = ("unitid", "unittitle", "unitdate", "physdesc", "scopecontent", "abstract", "origination", "note")
_COMPONENT = re.compile(r"c(0[1-9]|1[0-2])?")

Field = tuple[str, str]  # name, text


def is_xml(raw: bytes) -> bool:
    """Whether a file's bytes begin as XML does."""
    return raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"


def read_records(uri: str, raw: bytes) -> tuple[list[str], list[Line]]:
    """Headings and records, like `read_spreadsheet`; a line's number is that of the record's first line in the file.

    Raises:
        ManifestError: `bad_records`, not well-formed, or without a record of a kind that is read.
    """
    try:
        root = parse_xml(raw)
    except UnsafeXmlError as error:
        raise ManifestError(uri, [Problem("bad_records", None, None, str(error))]) from error
    for read in (_marc, _ead, _dublin_core):
        lines = [Line(element.sourceline or 0, _cells(fields)) for element, fields in read(root)]
        lines = [line for line in lines if line.cells]
        if lines:
            return list(dict.fromkeys(chain.from_iterable(line.cells for line in lines))), lines
    message = f"<{local_name(root)}> holds no record of Dublin Core, MARCXML or EAD"
    raise ManifestError(uri, [Problem("bad_records", None, None, message)])


def _cells(fields: Iterator[Field]) -> dict[str, str]:
    """Fields by name; repeated ones are numbered."""
    cells: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name, text in fields:
        text = " ".join(text.split())
        if text:
            counts[name] = counts.get(name, 0) + 1
            cells[name if counts[name] == 1 else f"{name}.{counts[name]}"] = text
    return cells


def _text(element: etree._Element) -> str:
    return " ".join(str(part) for part in element.itertext())


Records = Iterator[tuple[etree._Element, Iterator[Field]]]


def _below(root: etree._Element, fits: Callable[[etree._Element], bool]) -> Iterator[etree._Element]:
    return (element for element in root.iter() if isinstance(element.tag, str) and fits(element))


def _dublin_core(root: etree._Element) -> Records:
    """Every element that has elements of Dublin Core below it: `oai_dc:dc`, `rdf:Description`, `record` and others."""

    def is_ours(element: etree._Element) -> bool:
        return isinstance(element.tag, str) and etree.QName(element).namespace in _DUBLIN_CORE

    for record in _below(root, lambda element: not is_ours(element) and any(map(is_ours, element))):
        yield record, ((f"dc:{local_name(child)}", _text(child)) for child in record if is_ours(child))


def _marc(root: etree._Element) -> Records:
    """Control fields by their tag (`001`), data fields by tag and subfield (`245$a`)."""
    for record in _below(root, lambda element: local_name(element) == "record"):
        if any(local_name(child) in ("datafield", "controlfield") for child in record):
            yield record, _marc_fields(record)


def _marc_fields(record: etree._Element) -> Iterator[Field]:
    for field in record:
        tag = field.get("tag", "")
        if local_name(field) == "controlfield":
            yield tag, _text(field)
        elif local_name(field) == "datafield":
            yield from ((f"{tag}${sub.get('code', '')}", _text(sub)) for sub in field if local_name(sub) == "subfield")


def _ead(root: etree._Element) -> Records:
    """The components that hold no others, or that have a digital object; the titles above them are `ead:series`."""
    for part in _below(root, lambda element: bool(_COMPONENT.fullmatch(local_name(element)))):
        inner = [child for child in part if _COMPONENT.fullmatch(local_name(child))]
        own = list(_own_of(part))
        if not inner or any(name == "ead:dao" for name, _ in own):
            above = [_title_of(parent) for parent in part.iterancestors() if _COMPONENT.fullmatch(local_name(parent))]
            series = " / ".join(title for title in reversed(above) if title)
            yield part, iter([*own, *([("ead:series", series)] if series else [])])


def _own_of(part: etree._Element) -> Iterator[Field]:
    """What a component says of itself, not of those within it."""
    for child in part:
        if _COMPONENT.fullmatch(local_name(child)):
            continue
        for element in _below(child, lambda one: local_name(one) in (*_EAD_TEXTS, "dao", "daoloc")):
            if local_name(element) in _EAD_TEXTS:
                yield f"ead:{local_name(element)}", _text(element)
            else:
                yield from (
                    ("ead:dao", str(value)) for key, value in element.items() if key.rpartition("}")[2] == "href"
                )


def _title_of(part: etree._Element) -> str:
    return next((text for name, text in _own_of(part) if name == "ead:unittitle"), "").strip()
