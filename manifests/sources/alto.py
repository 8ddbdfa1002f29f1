"""Rows from ALTO: one for each illustration of a page, with its box and its caption."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from lxml import etree

from manifests.errors import ManifestError, Problem
from manifests.ids import slug_id, stem_of
from manifests.sources.pages import Page, read_xml
from manifests.xml import local_name

_SIZE_TOLERANCE = 0.01
_MIN_SIDE = 64
_UNITS_PER_INCH = {"mm10": 254.0, "inch1200": 1200.0}
# A caption below its picture begins within this many heights of the picture; used if its block holds no text.
_CAPTION_REACH = 0.15


@dataclass(frozen=True)
class Size:
    """Of an image file: pixels, and pixels per inch if the file states them."""

    width: int
    height: int
    dpi: float | None = None


Measure = Callable[[str], Size]


def rows_of_pages(pages: list[Page], measure: Measure) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for each illustration of all pages, with ids that begin with the image's name; and messages about the
    pages that are left out (a bitonal scan, a damaged file)."""
    rows: list[dict[str, Any]] = []
    left_out = []
    paths = [PurePosixPath(unquote(urlsplit(page.image).path)) for page in pages]
    times = Counter(path.stem.casefold() for path in paths)
    for page, path in zip(pages, paths, strict=True):
        # "0001.tif" of two issues: the folder tells them apart.
        name = path.name if times[path.stem.casefold()] == 1 else f"{path.parent.name}/{path.name}"
        try:
            rows += rows_of_page(page, slug_id(stem_of(name)), measure)
        except ManifestError as error:
            left_out += [f"{page.image}: {problem.kind}: {problem.message}" for problem in error.problems]
    return rows, left_out


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float

    @staticmethod
    def of(element: etree._Element) -> "_Box | None":
        try:
            return _Box(*(float(element.get(name)) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")))
        except (TypeError, ValueError):
            return None


def rows_of_page(page: Page, page_id: str, measure: Measure) -> Iterator[dict[str, Any]]:
    """One manifest row for each illustration of a page: its box in pixels, its caption if ALTO has one.

    Raises:
        ManifestError: `alto_size`, ALTO and image are of different pages or scans.
    """
    root, size = read_xml(page.alto), measure(page.image)
    unit = (root.findtext(".//{*}MeasurementUnit") or "pixel").strip().lower()
    seen: set[str] = set()
    for number, alto_page in enumerate(root.iter("{*}Page")):
        if number:
            message = f"{page.alto} describes several pages; one ALTO file per image is read"
            raise ManifestError(page.alto, [Problem("alto_size", None, page_id, message)])
        across, down = _scales(page, page_id, alto_page, unit, size)
        blocks = [(box, _text(block)) for block in alto_page.iter("{*}TextBlock") if (box := _Box.of(block))]
        for picture in _illustrations(alto_page):
            box = _Box.of(picture)
            if box is None:
                continue
            x, y = max(0, round(box.x * across)), max(0, round(box.y * down))
            width = min(size.width, round((box.x + box.width) * across)) - x
            height = min(size.height, round((box.y + box.height) * down)) - y
            if min(width, height) < _MIN_SIDE:  # ornaments and rules
                continue
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", picture.get("ID") or "").strip("-.") or f"picture{len(seen)}"
            while name in seen:
                name += "_"
            seen.add(name)
            yield {
                "id": f"{page_id}-{name}",
                "image": page.image,
                "caption": _caption(picture, box, blocks) or None,
                "regions": [[x, y, width, height]],
                "group_id": page_id,
            }


def _scales(page: Page, page_id: str, alto_page: etree._Element, unit: str, size: Size) -> tuple[float, float]:
    """Pixels per unit, across and down."""

    def wrong(message: str) -> ManifestError:
        remedy = "pair each ALTO file with the image that it was made from"
        return ManifestError(page.alto, [Problem("alto_size", None, page_id, f"{message}; {remedy}")])

    try:
        width, height = float(alto_page.get("WIDTH")), float(alto_page.get("HEIGHT"))
    except (TypeError, ValueError):
        width = height = 0.0
    if unit == "pixel" and not (width > 0 and height > 0):
        return 1.0, 1.0
    if width > 0 and height > 0:
        across, down = size.width / width, size.height / height
        if abs(across / down - 1) > _SIZE_TOLERANCE:
            raise wrong(f"ALTO's page is {width:g} x {height:g} {unit}, the image {size.width} x {size.height} pixels")
        return across, down
    if unit not in _UNITS_PER_INCH or not size.dpi:
        raise wrong(f"unit {unit!r} without the page's WIDTH and HEIGHT, and the image states no resolution")
    scale = size.dpi / _UNITS_PER_INCH[unit]
    return scale, scale


def _illustrations(alto_page: etree._Element) -> Iterator[etree._Element]:
    """Outermost illustrations: composed blocks of that type, and Illustration elements outside them."""
    inside: set[etree._Element] = set()
    for element in alto_page.iter():
        is_block = local_name(element) == "ComposedBlock" and "illustration" in (element.get("TYPE") or "").lower()
        if (is_block or local_name(element) == "Illustration") and element.getparent() not in inside:
            yield element
        if is_block or element.getparent() in inside:
            inside.add(element)


def _text(block: etree._Element) -> str:
    words = []
    for string in block.iter("{*}String"):
        part = string.get("SUBS_TYPE")
        if part == "HypPart2":  # the first part holds the whole word
            continue
        words.append((string.get("SUBS_CONTENT") if part == "HypPart1" else None) or string.get("CONTENT") or "")
    return " ".join(word for word in words if word)


def _caption(picture: etree._Element, box: _Box, blocks: list[tuple[_Box, str]]) -> str:
    """The text inside the picture's block; else the nearest text right below it."""
    inside = " ".join(filter(None, (_text(block) for block in picture.iter("{*}TextBlock"))))
    if inside:
        return inside
    bottom = box.y + box.height
    below = [
        (block.y - bottom, text)
        for block, text in blocks
        if text
        and -0.02 * box.height <= block.y - bottom <= _CAPTION_REACH * box.height
        and min(block.x + block.width, box.x + box.width) - max(block.x, box.x) > 0.5 * block.width
    ]
    return min(below)[1] if below else ""
