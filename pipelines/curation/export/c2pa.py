"""C2PA content credentials, with the optional extra `[c2pa]`. The institution provides certificate and key."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.images.formats.table import FORMATS
from pipelines.images.xmp import SOURCE_TYPE

_MIME = {name: row.mime for name, row in FORMATS.items() if row.is_signable}
_PARENT = "the-scan"


class SigningError(Exception):
    """The extra is missing, or the certificate or its key cannot sign."""


@dataclass(frozen=True)
class Certificate:
    """A certificate chain and its private key, both PEM; the key is read here and never logged."""

    chain: Path
    key: Path = field(repr=False)
    algorithm: str = "es256"
    timestamp_url: str | None = None

    def sign(
        self, source: BinaryIO, target: BinaryIO, format_: str, record: dict[str, Any], scan: BinaryIO | None = None
    ) -> str | None:
        """Writes a signed copy of `source` to `target`.

        Args:
            scan: the original file, if it is available; it becomes the parent ingredient.

        Returns:
            None, or why nothing was written: the format cannot be signed.

        Raises:
            SigningError: the extra is missing, or the certificate or its key cannot sign.
        """
        if format_ not in _MIME:
            return f"not signed: C2PA does not support {format_}; the mark is in its XMP"
        try:
            import c2pa
        except ImportError as error:
            raise SigningError("signing needs the extra: pip install 'diffcolor-batch[c2pa]'") from error
        try:
            info = c2pa.C2paSignerInfo(
                self.algorithm, self.chain.read_bytes(), self.key.read_bytes(), self.timestamp_url or None
            )
            source.seek(0)
            parent = _MIME.get(record["input"].get("format")) if scan else None
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(_claim(record, parent))) as builder:
                if parent and scan:
                    scan.seek(0)
                    ingredient = {"title": record["input"]["id"], "relationship": "parentOf", "label": _PARENT}
                    builder.add_ingredient(json.dumps(ingredient), parent, scan)
                builder.sign(signer, _MIME[format_], source, target)
        except (c2pa.C2paError, OSError, ValueError) as error:
            raise SigningError(f"the certificate or key cannot sign: {error}") from error
        target.flush()
        return None


def _claim(record: dict[str, Any], has_parent: object) -> dict[str, Any]:
    """The manifest that asserts that a scan was opened and a machine added colours to it."""
    method = record["method"]
    agent = {"name": method["software"], "version": method["version"]}
    colored = {
        "action": "c2pa.color_adjustments" if has_parent else "c2pa.created",
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": agent,
        "description": record["statement"],
        "parameters": {
            "prompt": method["target_prompt"],
            "model": method["base_model"],
            "original_sha256": record["input"]["sha256"],
        },
    }
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [_PARENT]}}
    actions = [opened, colored] if has_parent else [colored]
    return {
        "claim_generator_info": [agent],
        "title": record["input"]["id"],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
