"""Rows from a IIIF Presentation 3 manifest, read from a local file (or any fsspec URI)."""

import json
from collections.abc import Iterator
from typing import Any

import fsspec

from manifests.errors import ManifestError, Problem
from manifests.ids import slug_id, stem_of

MAX_BYTES = 64 << 20


def rows_of_iiif(uri: str) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per canvas of a Presentation 3 or 2 manifest: its first painted image, and the labels of manifest and
    canvas as a caption; and what was left out.

    Images are not copied; usually they are JPEGs of an image server, and their sha256 is recorded when they are read.

    Raises:
        ManifestError: not a manifest, or one without images.
    """

    def bad(kind: str, message: str) -> ManifestError:
        return ManifestError(uri, [Problem(kind, None, None, message)])

    try:
        with fsspec.open(uri, "rb") as file:
            document = json.loads(file.read(MAX_BYTES))
    except OSError as error:
        raise bad("not_found", f"cannot be read ({error})") from error
    except (ValueError, RecursionError) as error:
        raise bad("bad_iiif", f"not JSON ({error})") from error
    kind = _text_of(document, "type", "@type") if isinstance(document, dict) else type(document).__name__
    if kind in ("Collection", "sc:Collection"):
        parts = [*_listed(document.get("items")), *_listed(document.get("manifests"))]
        examples = ", ".join(_text_of(part, "id", "@id") for part in parts[:2] if isinstance(part, dict))
        raise bad("bad_iiif", f"a collection of {len(parts)} manifests; build each by itself, for example {examples}")
    if kind not in ("Manifest", "sc:Manifest"):
        raise bad("bad_iiif", f"not a IIIF Presentation 2 or 3 manifest (type {kind!r})")
    name = _text_of(document, "id", "@id") or "iiif"
    title, series = _label(document.get("label")), slug_id(stem_of(name.rpartition("://")[2]))
    rows, left_out = [], []
    for number, canvas in enumerate(_canvases(document), start=1):
        image = next(_images(canvas), None) if isinstance(canvas, dict) else None
        if image is None:
            left_out.append(f"canvas {number}: {'no image is painted on it' if canvas else 'it is null'}")
            continue
        own = _label(canvas.get("summary") or canvas.get("description")) or _label(canvas.get("label"))
        # "p. 3" or "12r" is a picture's place in the volume, not what it shows.
        parts = [part for part in (title, own if len(own) > 8 else "") if part]
        rows.append(
            {
                "id": f"{series[-96:].strip('-.')}-{number:04d}",
                "image": image,
                "caption": ". ".join(dict.fromkeys(parts)) or None,
                "group_id": series,
            }
        )
    if not rows:
        raise bad("no_images", "no canvas has a painted image")
    return rows, left_out


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _text_of(thing: dict[str, Any], *names: str) -> str:
    """The first of these values that is a text."""
    return next((thing[name] for name in names if isinstance(thing.get(name), str)), "")


def _canvases(document: dict[str, Any]) -> list[Any]:
    """Of Presentation 3, or of the first sequence of Presentation 2."""
    if "sequences" not in document:
        return _listed(document.get("items"))
    first = next((one for one in _listed(document["sequences"]) if isinstance(one, dict)), {})
    return _listed(first.get("canvases"))


def _images(canvas: dict[str, Any]) -> Iterator[str]:
    """URIs of the images painted on a canvas."""
    for body in _bodies(canvas):
        if not isinstance(body, dict):  # a bare URL, which may be anything
            continue
        is_choice = _text_of(body, "type", "@type") in ("Choice", "oa:Choice")
        for choice in [*_listed(body.get("default")), *_listed(body.get("items"))] if is_choice else [body]:
            is_image = isinstance(choice, dict) and _text_of(choice, "type", "@type") in ("Image", "dctypes:Image")
            if is_image and (found := _text_of(choice, "id", "@id")):
                yield found


def _bodies(canvas: dict[str, Any]) -> Iterator[Any]:
    """What the annotations of a canvas paint: Presentation 3's pages of annotations, and Presentation 2's images."""
    for page in _listed(canvas.get("items")):
        for annotation in _listed(page.get("items")) if isinstance(page, dict) else ():
            if isinstance(annotation, dict):
                yield from _listed(annotation.get("body"))
    for annotation in _listed(canvas.get("images")):
        if isinstance(annotation, dict):
            yield from _listed(annotation.get("resource"))


def _label(value: Any) -> str:
    """A text as IIIF writes it: a string, a list, Presentation 2's {@value}, or Presentation 3's language map, of which
    English, else "none" (no language), else the first is taken."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        english = [one for one in value if isinstance(one, dict) and one.get("@language") == "en"]
        return " ".join(filter(None, map(_label, english or value)))
    if not isinstance(value, dict):
        return ""
    if "@value" in value:
        return _label(value["@value"])
    known = [value.get("en"), value.get("none"), *value.values()]
    return next(filter(None, (_label(one) for one in known if one is not None)), "")
