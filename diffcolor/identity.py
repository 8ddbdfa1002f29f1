"""What identifies a set of models. Quick to import: the driver of a job needs it, and no torch."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Names, and sha256 (hex) of the weights, of a base model, a judge and the coarse colorizer as they were loaded.

    Outputs of version 0.1.0 have no `coarse_digest`. `loss_decoder` and its digest are "" where stage 1's loss uses the
    base model's own.
    """

    base_model: str
    base_model_digest: str
    judge: str
    judge_digest: str
    coarse_digest: str = ""
    loss_decoder: str = ""
    loss_decoder_digest: str = ""


def embedded_folder(part: str) -> Path:
    """Folder of the embedded model: `part` is "mini" (the base) or "judge"."""
    return Path(str(resources.files("diffcolor.embedded") / part))


def weights_digest(folder: Path, weights: Iterable[Path] | None = None) -> tuple[str, dict[str, str]]:
    """sha256 over a folder's weight files (path and content), and each file's own.

    Args:
        weights: those that count; all in the folder, if not given.
    """
    files = {}
    for path in sorted(folder.rglob("*.safetensors") if weights is None else weights):
        with path.open("rb") as file:
            files[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256("".join(f"{name}\0{sha}\n" for name, sha in files.items()).encode()).hexdigest(), files
