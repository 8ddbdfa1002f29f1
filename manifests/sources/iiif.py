"""Rows from a IIIF Presentation 3 manifest, read from a local file (or any fsspec URI)."""

import json
from collections.abc import Iterator
from typing import Any

import fsspec

from manifests.errors import ManifestError, Problem
from manifests.ids import slug_id, stem_of

MAX_BYTES = 64 << 20


def rows_of_iiif(uri: str) -> list[dict[str, Any]]:
    """One row per canvas: its first painted image, and the labels of manifest and canvas as a caption.

    Images are not copied; usually they are JPEGs of an image server, and their sha256 is recorded when they are read.

    Raises:
        ManifestError: not a Presentation 3 manifest, or without images.
    """

    def bad(kind: str, message: str) -> ManifestError:
        return ManifestError(uri, [Problem(kind, None, None, message)])

    try:
        with fsspec.open(uri, "rb") as file:
            document = json.loads(file.read(MAX_BYTES))
    except OSError as error:
        raise bad("not_found", f"cannot be read ({error})") from error
    except ValueError as error:
        raise bad("bad_iiif", f"not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("type") != "Manifest":
        kind = document.get("@type") or document.get("type") if isinstance(document, dict) else type(document).__name__
        raise bad("bad_iiif", f"not a IIIF Presentation 3 manifest (type {kind!r}); convert older ones first")
    title, series = (
        _label(document.get("label")),
        slug_id(stem_of(str(document.get("id") or "iiif").rpartition("://")[2])),
    )
    rows = []
    for number, canvas in enumerate(document.get("items") or (), start=1):
        image = next(_images(canvas), None)
        if image is None:
            continue
        own = _label(canvas.get("summary")) or _label(canvas.get("label"))
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
    return rows


def _images(canvas: dict[str, Any]) -> Iterator[str]:
    """URIs of the images painted on a canvas."""
    for page in canvas.get("items") or ():
        for annotation in page.get("items") or ():
            body = annotation.get("body") or {}
            for resource in body if isinstance(body, list) else [body]:
                if not isinstance(resource, dict):  # a bare URL, which may be anything
                    continue
                choices = resource.get("items") or [resource] if resource.get("type") == "Choice" else [resource]
                yield from (choice["id"] for choice in choices if choice.get("type") == "Image" and choice.get("id"))


def _label(value: Any) -> str:
    """The text of a language map: English, else "none" (no language), else the first."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        return ""
    texts: Any = value.get("en") or value.get("none") or next(iter(value.values()), [])
    return " ".join(map(str, texts)) if isinstance(texts, list) else str(texts)
