"""What identifies a set of models. Quick to import: the driver of a job needs it, and no torch."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Names, and sha256 (hex) of the weights, of a base model, a judge and the coarse colorizer as they were loaded.

    Outputs of version 0.1.0 have no `coarse_digest`.
    """

    base_model: str
    base_model_digest: str
    judge: str
    judge_digest: str
    coarse_digest: str = ""


def embedded_folder(part: str) -> Path:
    """Folder of the embedded model: `part` is "mini" (the base) or "judge"."""
    return Path(str(resources.files("diffcolor.embedded") / part))


def weights_digest(folder: Path) -> tuple[str, dict[str, str]]:
    """sha256 over the folder's weight files (path and content), and each file's own."""
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }
    return hashlib.sha256("".join(f"{name}\0{sha}\n" for name, sha in files.items()).encode()).hexdigest(), files
