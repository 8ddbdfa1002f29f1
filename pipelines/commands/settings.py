"""`diffcolor-batch.toml` and `DIFFCOLOR_*`: options of any command, so that a scheduled job is a short line.

    [submit]
    output = "s3://archive/colorized"
    images-per-step = 8

The command line counts before an environment variable (`DIFFCOLOR_SUBMIT_IMAGES_PER_STEP`), that before the file.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FILE = "diffcolor-batch.toml"
PREFIX = "DIFFCOLOR"
_UNSAFE = frozenset(("on_end", "address", "env", "allow_input", "allow_scheme"))


def found_here() -> Path | None:
    """`diffcolor-batch.toml` of the current folder, if there is one."""
    try:
        return Path(FILE) if Path(FILE).is_file() else None
    except OSError:  # a folder that we may not look into
        return None


def read_settings(command: Any, file: Path, is_trusted: bool) -> dict[str, Any]:
    """The file's settings, for click's `default_map`: by command, then by parameter.

    Args:
        command: the whole command line, a click group.
        is_trusted: it was asked for by name. One that merely lies in the current folder may have come with the scans:
            it sets nothing that runs commands, sends anything elsewhere or widens what a manifest may reach.

    Raises:
        ValueError: the file cannot be read, or names what is not there; with the remedy.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    settings = _group(command, tables, file, ())
    if not is_trusted and (unsafe := _UNSAFE & set(_set_names(settings))):
        named = ", ".join(sorted(name.replace("_", "-") for name in unsafe))
        raise ValueError(f"{file}: {named} counts only in a file that is asked for: --settings {file}")
    return settings


def _set_names(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        yield name
        if isinstance(value, dict):
            yield from _set_names(value)


def _group(command: Any, tables: Mapping[str, Any], file: Path, path: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for name, table in tables.items():
        where = ".".join((*path, name))
        if name not in command.commands:
            raise ValueError(f"{file}: [{where}] is no command{_nearest(name, command.commands)}")
        if not isinstance(table, dict):
            raise ValueError(f"{file}: {where} is no option; write a table [{where}] with its options")
        part = command.commands[name]
        found[name] = (_group if hasattr(part, "commands") else _options)(part, table, file, (*path, name))
    return found


def _options(command: Any, table: Mapping[str, Any], file: Path, path: tuple[str, ...]) -> dict[str, Any]:
    known, found = dict(_names(command)), {}
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"{file}: [{'.'.join(path)}] has no option {name!r}{_nearest(name, known)}")
        if isinstance(value, dict):
            raise ValueError(f"{file}: [{'.'.join(path)}] {name}: a value is wanted, not a table")
        found[known[name]] = value
    return found


def _names(command: Any) -> Iterator[tuple[str, str]]:
    """Names by which a command's options and arguments may be set, with their parameters'."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield parameter.name, parameter.name
        for option in parameter.opts:  # "mark = false" is how --no-mark is written
            if option.startswith("--") and option != "--help":
                yield option[2:], parameter.name


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}"


def unknown_variables(command: Any) -> Iterator[str]:
    """A sentence for each `DIFFCOLOR_*` variable that stands for no option: it would be ignored in silence."""
    known = {_variable(place, parameter) for place, part in _commands(command, ()) for _, parameter in _names(part)}
    for name in sorted(os.environ):
        if name.startswith(f"{PREFIX}_") and name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.8)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield f"the variable {name} is ignored: there is no such option{meant}"


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A group itself and all commands below it, with their places."""
    yield path, command
    for name, part in getattr(command, "commands", {}).items():
        yield from _commands(part, (*path, name))


def _variable(place: tuple[str, ...], parameter: str) -> str:
    return "_".join((PREFIX, *place, parameter)).upper().replace("-", "_")


def described(command: Any, settings: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every setting as a line: command, option, value, and where it comes from."""
    for name, part in command.commands.items():
        own, place = settings.get(name, {}), (*path, name)
        if hasattr(part, "commands"):
            yield from described(part, own, place)
            continue
        for option, parameter in _names(part):
            variable = _variable(place, parameter)
            if variable in os.environ:
                yield f"{' '.join(place)} {option} = {json.dumps(os.environ[variable])}  ({variable})"
            elif parameter in own:
                yield f"{' '.join(place)} {option} = {json.dumps(own[parameter], default=str)}  (the file)"
