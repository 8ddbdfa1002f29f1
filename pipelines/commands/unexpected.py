"""The end of a command that met what nobody foresaw."""

import sys
import tempfile
import traceback
from pathlib import Path

from manifests.locations import without_secrets
from pipelines.commands.terminal import say
from pipelines.version import SYSTEM, VERSION


def report(error: Exception) -> None:
    """Says what happened in a sentence; what a developer needs goes to a file, without the secrets of URIs."""
    words = f"{type(error).__name__}: {error}".strip().rstrip(":")
    asked = [
        word.partition("=")[0] for word in sys.argv[1:] if word.startswith("-") or word.isalpha()
    ]  # values may be secret
    told = [f"{SYSTEM} {VERSION}, Python {sys.version.split()[0]}, {sys.platform}", " ".join(asked)]
    text = without_secrets("\n".join([*told, *traceback.format_exception(error)]))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="diffcolor-batch-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
        where = f"details are in {Path(file.name)}"
    except OSError as full:
        where = f"details cannot be written ({full.strerror})"
    say(f"unexpected error: {without_secrets(words)}; this is a fault of the program, finished rows are safe; {where}")
