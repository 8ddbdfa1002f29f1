"""Keys below OUT: readable, and never two contents under one name."""

import re
import unicodedata

from pipelines.ledger.identity import sha256

SLUG_LENGTH = 48


def slug(prompt: str) -> str:
    """Lower-case ASCII letters and digits joined by '-'."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG_LENGTH].strip("-") or "prompt"


def image_key(row_id: str, number: int, prompt: str, digest: str, suffix: str) -> str:
    """`images/<id>/<n>-<slug>-<8 hex of the content's sha256>.<suffix>`; 0 is the primary picture."""
    return f"images/{row_id}/{number}-{slug(prompt)}-{digest[:8]}.{suffix}"


def is_picture_key(text: str) -> bool:
    """Whether a text is a key of `image_key`, and no URI or path."""
    return text.startswith("images/")


def access_key(row_id: str, number: int, prompt: str, digest: str) -> str:
    """`access/<id>/...jpg`, named like the picture of which it is a copy."""
    return f"access/{row_id}/{number}-{slug(prompt)}-{digest[:8]}.jpg"


def preview_key(row_id: str, name: str, content: bytes) -> str:
    """`report/previews/<id>/...jpg`."""
    return f"report/previews/{row_id}/{slug(name)}-{sha256(content)[:8]}.jpg"


def pixels_key(row_id: str, name: str, content: bytes) -> str:
    """`report/previews/<id>/...js`: a preview that the report can read."""
    return preview_key(row_id, name, content).removesuffix(".jpg") + ".js"


def report_link(key: str) -> str:
    """A key as a link from the report's page."""
    return key.removeprefix("report/") if key.startswith("report/") else f"../{key}"


def provenance_key(picture: str) -> str:
    """The provenance record beside a picture."""
    return f"{picture}.json"


def artifact_key(row_id: str, fit_key: str) -> str:
    """`artifacts/<id>/<16 hex of the fit key>.safetensors`."""
    return f"artifacts/{row_id}/{fit_key[:16]}.safetensors"
