"""Keys below OUT: readable by a person, and never two contents under one name."""

import re
import unicodedata

from pipelines.identity import sha256

SLUG_LENGTH = 48


def slug(prompt: str) -> str:
    """Lower-case ASCII letters and digits joined by '-'."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG_LENGTH].strip("-") or "prompt"


def image_key(row_id: str, number: int, prompt: str, content: bytes) -> str:
    """`images/<id>/<n>-<slug>-<8 hex of the content's sha256>.png`; number 0 is the primary picture."""
    return f"images/{row_id}/{number}-{slug(prompt)}-{sha256(content)[:8]}.png"


def artifact_key(row_id: str, fit_key: str) -> str:
    """`artifacts/<id>/<16 hex of the fit key>.safetensors`."""
    return f"artifacts/{row_id}/{fit_key[:16]}.safetensors"
