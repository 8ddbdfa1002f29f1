"""Pages of digitized newspapers, each an image with its ALTO file: from two folders, or from a METS file."""

import posixpath
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import fsspec
from lxml import etree

from manifests.errors import ManifestError, Problem
from manifests.locations import absolute, resolve
from manifests.sources.folder import images_below
from manifests.xml import UnsafeXmlError, parse_xml

_ALTO_SUFFIX = re.compile(r"([._-]alto)?\.xml$")
_XLINK = "{http://www.w3.org/1999/xlink}href"
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Page:
    """An image of a page and the ALTO file that describes it, both URIs."""

    image: str
    alto: str


def pages_of_folders(folder: str, alto_folder: str, suffixes: Collection[str]) -> tuple[list[Page], tuple[str, ...]]:
    """Images paired with the ALTO files of the same name ("p1.tif": "p1.xml", "p1_alto.xml", "p1.alto.xml"), and the
    files without a counterpart.

    Raises:
        ManifestError: no image has an ALTO file.
    """
    images = images_below(folder, suffixes).images
    fs, root = fsspec.core.url_to_fs(alto_folder)
    place = absolute(alto_folder).rstrip("/")
    altos: dict[str, str] = {}
    for path in sorted(fs.find(root)):
        if path.lower().endswith(".xml"):
            relative = path.removeprefix(root).lstrip("/")
            altos[_ALTO_SUFFIX.sub("", relative.casefold())] = f"{place}/{relative}"
    image_stems = {relative: str(PurePosixPath(relative).with_suffix("")).casefold() for relative in images}
    # By the relative path if both folders have the same structure; by the file name only if it is unique in both.
    names = Counter(stem.rpartition("/")[2] for stem in altos)
    image_names = Counter(stem.rpartition("/")[2] for stem in image_stems.values())
    by_name = {stem.rpartition("/")[2]: stem for stem in altos}
    pages, unmatched, used = [], [], set()
    for relative, stem in image_stems.items():
        name = stem.rpartition("/")[2]
        match = stem if stem in altos else by_name.get(name) if names[name] == image_names[name] == 1 else None
        if match is None:
            unmatched.append(relative)
        else:
            used.add(match)
            pages.append(Page(images[relative], altos[match]))
    unmatched += [uri for stem, uri in altos.items() if stem not in used]
    if not pages:
        message = f"no XML file in {alto_folder} has the name of an image in {folder}"
        raise ManifestError(alto_folder, [Problem("no_pages", None, None, message)])
    return pages, tuple(unmatched)


def pages_of_mets(uri: str, suffixes: Collection[str]) -> list[Page]:
    """The pages of a METS file, in the order of its physical structure (else of its files).

    Raises:
        ManifestError: no page has both an image and an ALTO file.
    """
    root, base = read_xml(uri), posixpath.dirname(absolute(uri))
    places, kinds = {}, {}
    for file in root.iter("{*}file"):
        locations = [location.get(_XLINK) for location in file.iter("{*}FLocat") if location.get(_XLINK)]
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
        kinds[file.get("ID")] = _kind(file.get("MIMETYPE") or "", place, group, suffixes)
    pages = []
    structures = list(root.iter("{*}structMap"))
    physical = [structure for structure in structures if (structure.get("TYPE") or "").upper() == "PHYSICAL"]
    for structure in physical or structures:
        for division in structure.iter("{*}div"):
            file_ids = [pointer.get("FILEID") for pointer in division.findall("{*}fptr")]
            file_ids += [area.get("FILEID") for area in division.findall("{*}fptr//{*}area")]
            images = [file_id for file_id in file_ids if kinds.get(file_id) == "image"]
            altos = [file_id for file_id in file_ids if kinds.get(file_id) == "alto"]
            if images and altos:
                pages.append(Page(places[images[0]], places[altos[0]]))
        if pages:
            break
    pages = list(dict.fromkeys(pages))
    if not pages:
        message = "no page with an image and an ALTO file (fptr of one div in its structMap)"
        raise ManifestError(uri, [Problem("no_pages", None, None, message)])
    return pages


def _kind(mime: str, place: str, group: str, suffixes: Collection[str]) -> str | None:
    suffix = PurePosixPath(place).suffix.lower()
    if suffix == ".xml" and ("alto" in place.lower() or "alto" in group.lower() or "xml" in mime):
        return "alto"
    is_image = mime.startswith("image/") or suffix in suffixes
    # METS lists the master images first; groups of reduced images are recognized by their names.
    reduced = any(word in group.lower() for word in ("thumb", "preview", "reduced", "min"))
    return "image" if is_image and not reduced else None


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
