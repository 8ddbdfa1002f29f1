"""The software that makes a result."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SYSTEM = "diffcolor-batch"
_LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch", "numpy", "pillow", "tifffile", "imagecodecs")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


VERSION = _installed(SYSTEM) or "unreleased"


@cache
def libraries() -> dict[str, str | None]:
    """Versions of the libraries that a result may depend on."""
    return {name: _installed(name) for name in _LIBRARIES}


@cache
def commit() -> str | None:
    """The git commit of the running source tree, with "+" if it has local changes; None outside a repository."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD").strip()
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None


def software() -> str:
    """Name, version and commit."""
    return f"{SYSTEM} {VERSION}" + (f" ({commit()})" if commit() else "")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout
