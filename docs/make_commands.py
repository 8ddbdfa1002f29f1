"""Writes docs/commands.md: every command with its options, as `--help` has them.

python docs/make_commands.py
"""

import sys
from collections.abc import Iterator
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from typer.main import get_command  # noqa: E402

import cli  # noqa: E402

HEAD = """# Commands

Made from the program by `python docs/make_commands.py`; `diffcolor-batch COMMAND --help` says the same. Every option
can also stand in a settings file or in the environment, see [schedules](cluster.md#schedules).
"""


def page() -> str:
    """The whole page."""
    command = get_command(cli.app)
    return "\n".join([HEAD, *_options(command), *_commands(command, ())])


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[str]:
    for name, command in group.commands.items():
        words = " ".join((*path, name))
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
            continue
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        shown = [one.name.upper() if one.required else f"[{one.name.upper()}]" for one in arguments]
        yield f"\n## {words}\n\n`{' '.join(('diffcolor-batch', words, *shown))}`\n\n{_plain(command.help)}\n"
        yield from (f"- `{one.name.upper()}`: {_plain(one.help)}" for one in arguments if one.help)
        yield from _options(command)


def _options(command: Any) -> Iterator[str]:
    options = [one for one in command.params if one.param_type_name == "option" and "--help" not in one.opts]
    for panel, some in groupby(sorted(options, key=_panel), key=_panel):
        yield f"\n| {panel or 'Options'} | |\n|---|---|"
        for one in some:
            names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
            kind = one.type_descriptor.annotation
            choices = (
                [f"`{choice.value}`" for choice in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []
            )
            parts = [_plain(one.help or ""), f"One of {', '.join(choices)}." if choices else ""]
            if not (one.is_flag or one.default in (None, (), [])):
                parts.append(f"Default: `{getattr(one.default, 'value', one.default)}`.")
            if one.required:
                parts.append("Required.")
            text = " ".join(filter(None, parts)).replace("|", "\\|").replace("<", "&lt;")
            yield f"| {names} | {text} |"


def _panel(option: Any) -> str:
    return option.rich_help_panel or ""


def _plain(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    (ROOT / "docs" / "commands.md").write_text(page() + "\n", encoding="utf-8")
