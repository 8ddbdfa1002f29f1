"""Rows from what a digitized newspaper says of itself: illustrations of ALTO with boxes and captions, pages of METS."""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
from lxml import etree

from manifests.build import images_below, slug_id
from manifests.errors import ManifestError, Problem
from manifests.locations import absolute, resolve
from manifests.xml import UnsafeXmlError, local_name, parse_xml

_ALTO_SUFFIX = re.compile(r"([._-]alto)?\.xml$")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_SIZE_TOLERANCE = 0.01
_MIN_SIDE = 64
_UNITS_PER_INCH = {"mm10": 254.0, "inch1200": 1200.0}
# How far below a picture, in heights of its own, a line may stand to be its caption, if nothing in the block is.
_CAPTION_REACH = 0.15
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Size:
    """Of an image file: pixels, and pixels per inch if it says so."""

    width: int
    height: int
    dpi: float | None = None


Measure = Callable[[str], Size]


@dataclass(frozen=True)
class Page:
    """An image of a page and the ALTO file that describes it, both URIs."""

    image: str
    alto: str


def pages_of_folders(folder: str, alto_folder: str) -> tuple[list[Page], tuple[str, ...]]:
    """Images and the ALTO files of the same name ("p1.tif": "p1.xml", "p1_alto.xml", "p1.alto.xml"), and who is alone.

    Raises:
        ManifestError: not one of them matches.
    """
    images = images_below(folder)
    fs, root = fsspec.core.url_to_fs(alto_folder)
    place = absolute(alto_folder).rstrip("/")
    altos: dict[str, str] = {}
    for path in sorted(fs.find(root)):
        if path.lower().endswith(".xml"):
            relative = path.removeprefix(root).lstrip("/")
            altos[_ALTO_SUFFIX.sub("", relative.casefold())] = f"{place}/{relative}"
    image_stems = {relative: str(PurePosixPath(relative).with_suffix("")).casefold() for relative in images}
    # By the whole path if both folders are built alike; by the name alone only where it is the only one of its kind.
    names = Counter(stem.rpartition("/")[2] for stem in altos)
    image_names = Counter(stem.rpartition("/")[2] for stem in image_stems.values())
    by_name = {stem.rpartition("/")[2]: stem for stem in altos}
    pages, alone, used = [], [], set()
    for relative, stem in image_stems.items():
        name = stem.rpartition("/")[2]
        found = stem if stem in altos else by_name.get(name) if names[name] == image_names[name] == 1 else None
        if found is None:
            alone.append(relative)
        else:
            used.add(found)
            pages.append(Page(images[relative], altos[found]))
    alone += [uri for stem, uri in altos.items() if stem not in used]
    if not pages:
        message = f"no XML file in {alto_folder} has the name of an image in {folder}"
        raise ManifestError(alto_folder, [Problem("no_pages", None, None, message)])
    return pages, tuple(alone)


def rows_of_pages(pages: list[Page], measure: Measure) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for each illustration of all pages, ids beginning with the image's name; and what is wrong with the pages
    that are left out (a bitonal scan, a damaged file)."""
    rows, left_out = [], []
    paths = [PurePosixPath(unquote(urlsplit(page.image).path)) for page in pages]
    times = Counter(path.stem.casefold() for path in paths)
    for page, path in zip(pages, paths, strict=True):
        # "0001.tif" of two issues: the folder tells them apart.
        name = path.name if times[path.stem.casefold()] == 1 else f"{path.parent.name}/{path.name}"
        try:
            rows += rows_of_page(page, slug_id(name), measure)
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


def read_xml(uri: str) -> etree._Element:
    """The root of an XML file at any fsspec URI.

    Raises:
        ManifestError: `not_found` or `xml_unsafe`.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(uri, [Problem("not_found", None, None, f"cannot be read ({error})")]) from error
    if len(content) > MAX_BYTES:
        raise ManifestError(uri, [Problem("xml_unsafe", None, None, f"more than {MAX_BYTES >> 20} MB")])
    try:
        return parse_xml(content)
    except UnsafeXmlError as error:
        raise ManifestError(uri, [Problem("xml_unsafe", None, None, str(error))]) from error


def pages_of_mets(uri: str) -> list[Page]:
    """The pages of a METS file, in the order of its physical structure (else of its files).

    Raises:
        ManifestError: no page has both an image and an ALTO file.
    """
    root, base = read_xml(uri), posixpath.dirname(absolute(uri))
    places, kinds = {}, {}
    for file in root.iter("{*}file"):
        locations = [one.get(_XLINK) for one in file.iter("{*}FLocat") if one.get(_XLINK)]
        if not locations:
            continue
        place = locations[0]
        try:
            parts = urlsplit(place)
            local = unquote(parts.path) if parts.scheme in ("", "file") else place
            places[file.get("ID")] = resolve(local.removeprefix("./"), base)
        except ValueError as error:
            raise ManifestError(uri, [Problem("bad_image", None, file.get("ID"), str(error))]) from error
        group = file.getparent().get("USE") or file.getparent().get("ID") or ""
        kinds[file.get("ID")] = _kind(file.get("MIMETYPE") or "", place, group)
    pages = []
    structures = [one for one in root.iter("{*}structMap") if (one.get("TYPE") or "").upper() == "PHYSICAL"]
    for structure in structures or list(root.iter("{*}structMap")):
        for division in structure.iter("{*}div"):
            named = [pointer.get("FILEID") for pointer in division.findall("{*}fptr")]
            named += [area.get("FILEID") for area in division.findall("{*}fptr//{*}area")]
            images = [one for one in named if kinds.get(one) == "image"]
            altos = [one for one in named if kinds.get(one) == "alto"]
            if images and altos:
                pages.append(Page(places[images[0]], places[altos[0]]))
        if pages:
            break
    pages = list(dict.fromkeys(pages))
    if not pages:
        message = "no page with an image and an ALTO file (fptr of one div in its structMap)"
        raise ManifestError(uri, [Problem("no_pages", None, None, message)])
    return pages


def _kind(mime: str, place: str, group: str) -> str | None:
    suffix = PurePosixPath(place).suffix.lower()
    if suffix == ".xml" and ("alto" in place.lower() or "alto" in group.lower() or "xml" in mime):
        return "alto"
    is_image = mime.startswith("image/") or suffix in (".tif", ".tiff", ".jp2", ".j2k", ".jpg", ".jpeg", ".png")
    # Of several image groups the master comes first in METS; reduced ones are named for what they are.
    reduced = any(word in group.lower() for word in ("thumb", "preview", "reduced", "min"))
    return "image" if is_image and not reduced else None


def rows_of_page(page: Page, page_id: str, measure: Measure) -> Iterator[dict[str, Any]]:
    """One manifest row for each illustration of a page: its box in pixels, its caption if ALTO has one.

    Raises:
        ManifestError: `alto_size`, ALTO and image are of different pages or scans.
    """
    root, size = read_xml(page.alto), measure(page.image)
    unit = (root.findtext(".//{*}MeasurementUnit") or "pixel").strip().lower()
    seen = set()
    for number, alto_page in enumerate(root.iter("{*}Page")):
        if number:
            message = f"{page.alto} describes several pages; one ALTO file per image is read"
            raise ManifestError(page.alto, [Problem("alto_size", None, page_id, message)])
        across, down = _scales(page, page_id, alto_page, unit, size)
        lines = [(box, _text(one)) for one in alto_page.iter("{*}TextBlock") if (box := _Box.of(one))]
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
                "caption": _caption(picture, box, lines) or None,
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
    if unit == "pixel":
        if width and (abs(width - size.width) > 1 or abs(height - size.height) > 1):
            raise wrong(f"ALTO's page is {width:g} x {height:g} pixels, the image {size.width} x {size.height}")
        return 1.0, 1.0
    if width > 0 and height > 0:
        across, down = size.width / width, size.height / height
        if abs(across / down - 1) > _SIZE_TOLERANCE:
            raise wrong(f"ALTO's page is {width:g} x {height:g} {unit}, the image {size.width} x {size.height} pixels")
        return across, down
    if unit not in _UNITS_PER_INCH or not size.dpi:
        raise wrong(f"unit {unit!r} without the page's WIDTH and HEIGHT, and the image names no resolution")
    scale = size.dpi / _UNITS_PER_INCH[unit]
    return scale, scale


def _illustrations(alto_page: etree._Element) -> Iterator[etree._Element]:
    """Outermost illustrations: composed blocks that say so, and Illustration elements outside them."""
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
        if part == "HypPart2":  # its first part has the whole word
            continue
        words.append((string.get("SUBS_CONTENT") if part == "HypPart1" else None) or string.get("CONTENT") or "")
    return " ".join(word for word in words if word)


def _caption(picture: etree._Element, box: _Box, lines: list[tuple[_Box, str]]) -> str:
    """The text inside the picture's block; else the nearest text right below it."""
    inside = " ".join(filter(None, (_text(one) for one in picture.iter("{*}TextBlock"))))
    if inside:
        return inside
    bottom = box.y + box.height
    below = [
        (line.y - bottom, text)
        for line, text in lines
        if text
        and -0.02 * box.height <= line.y - bottom <= _CAPTION_REACH * box.height
        and min(line.x + line.width, box.x + box.width) - max(line.x, box.x) > 0.5 * line.width
    ]
    return min(below)[1] if below else ""
