"""A IIIF Presentation 3 manifest: each picture a canvas with a Choice, the scan first (cookbook recipe 0033)."""

import io
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from PIL import Image

from pipelines.curation.export.exported import Exported
from pipelines.statement import STATEMENT
from pipelines.store.store import Store
from pipelines.version import SYSTEM, VERSION


def shown(key: str) -> tuple[str, str]:
    """Keys of the two JPEGs that show an exported picture, the scan and the colours; no other picture has the same."""
    name = key.removeprefix("data/")
    return f"iiif/{name}.scan.jpg", f"iiif/{name}.jpg"


def presentation(store: Store, made: Sequence[Exported], base: str) -> dict[str, bytes]:
    """`manifest.json` and the JPEGs that it shows, by key; `base` is the URL of the folder that they will be in."""
    files, canvases = {}, []
    for exported in made:
        row, output = exported.row, exported.output
        assert row.preview is not None, "an ok row has a preview"
        assert output.preview is not None, "the outputs of an ok row have previews"
        scan, colours = store.read(row.preview), store.read(output.preview)
        name = exported.key.removeprefix("data/")
        scan_key, colours_key = shown(exported.key)
        files[scan_key], files[colours_key] = scan, colours
        with Image.open(io.BytesIO(scan)) as picture:
            width, height = picture.size
        canvas = f"{base}iiif/{quote(name)}"

        def body(key: str, label: str, width: int = width, height: int = height) -> dict[str, Any]:
            return {
                "id": f"{base}{quote(key)}",
                "type": "Image",
                "format": "image/jpeg",
                "width": width,
                "height": height,
                "label": {"en": [label]},
            }

        choice = {
            "type": "Choice",
            "items": [body(scan_key, "Original scan"), body(colours_key, "AI-colorized")],
        }
        painting = {
            "id": f"{canvas}/annotation",
            "type": "Annotation",
            "motivation": "painting",
            "body": choice,
            "target": canvas,
        }
        canvases.append(
            {
                "id": canvas,
                "type": "Canvas",
                "width": width,
                "height": height,
                "label": {"none": [row.context_prompt or row.id]},
                "requiredStatement": _statement(output.prompt),
                "items": [{"id": f"{canvas}/page", "type": "AnnotationPage", "items": [painting]}],
            }
        )
    document = {
        "@context": "http://iiif.io/api/presentation/3/context.json",
        "id": f"{base}manifest.json",
        "type": "Manifest",
        "label": {"en": [f"Colorized by {SYSTEM} {VERSION}"]},
        "requiredStatement": _statement(None),
        "items": canvases,
    }
    return {**files, "manifest.json": json.dumps(document, indent=1, ensure_ascii=False).encode()}


def _statement(prompt: str | None) -> dict[str, Any]:
    text = STATEMENT + (f" Text: {prompt}" if prompt else "")
    return {"label": {"en": ["AI-colorized"]}, "value": {"en": [text]}}
