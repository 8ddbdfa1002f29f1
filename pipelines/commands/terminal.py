"""What all commands share: exit codes, messages on stderr, JSON on stdout, errors as a line and a code."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console

OK, UNEXPECTED, USAGE, ROWS_FAILED, STOPPED, UNAVAILABLE, IN_USE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 7, 130
EXIT_CODES = (
    "Exit codes: 0 all rows ok or skipped; 1 unexpected; 2 bad usage or manifest; 3 rows failed, or files differ; "
    "4 stopped, submit again to go on; 5 store or cluster unavailable, submit again to go on; 7 output in use; "
    "130 interrupted twice."
)
console = Console(stderr=True)


class Preset(StrEnum):
    paper = "paper"
    balanced = "balanced"
    draft = "draft"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


PresetOption = Annotated[Preset, typer.Option(help="How long each image is trained and sampled.")]
BaseModelOption = Annotated[
    str, typer.Option(help="'mini' (embedded), a diffusers folder, or a hub id of a Stable Diffusion 1.x/2.x model.")
]
JudgeOption = Annotated[str, typer.Option(help="'mini' (embedded), a local open_clip folder, or MODEL:TAG.")]
DeviceOption = Annotated[Device, typer.Option(help="auto: cuda where the workers have a GPU.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="OURS=THEIRS: read our column from one of another name. Repeatable."),
]
DefaultCaption = Annotated[
    str | None, typer.Option(help="Context prompt of rows without a caption, such as 'a colorful photograph'.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Output = Annotated[str, typer.Argument(help="Output folder or URI of a submit.")]


def say(message: str) -> None:
    """A line for people."""
    console.print(message, soft_wrap=True, highlight=False, markup=False)


def print_json(document: Any) -> None:
    """A document for machines."""
    typer.echo(json.dumps(document, indent=2, default=str))


def exit_code(state: str, failed: int) -> int:
    """The code of a run that ended in `state`."""
    if state == "stopped":
        return STOPPED
    if state in ("failed", "interrupted"):
        return UNAVAILABLE
    return ROWS_FAILED if failed or state == "too_many_failures" else OK


@contextmanager
def reported() -> Iterator[None]:
    """Turns the errors that a user can do something about into a message and an exit code."""
    from diffcolor.errors import DiffColorError
    from manifests.errors import ManifestError
    from pipelines.errors import JobError, OutputInUseError

    try:
        yield
    except ManifestError as error:
        say(str(error))
        raise typer.Exit(USAGE) from error
    except OutputInUseError as error:
        say(str(error))
        raise typer.Exit(IN_USE) from error
    except (JobError, DiffColorError) as error:
        say(str(error))
        raise typer.Exit(UNAVAILABLE) from error
    except KeyboardInterrupt as error:
        say("interrupted; submit again to go on with what is missing")
        raise typer.Exit(INTERRUPTED) from error


def columns(pairs: list[str] | None) -> dict[str, str]:
    """`--column` values as a mapping."""
    mapping = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise typer.BadParameter(f"{pair!r} is not OURS=THEIRS, such as caption=title", param_hint="--column")
        mapping[ours] = theirs
    return mapping


def open_output(output: str):
    """The store of a submit's output, for who asks questions.

    Raises:
        typer.Exit: it is not one, or cannot be reached; said why.
    """
    from pipelines.ledger.ledger import JOB_KEY
    from pipelines.store.store import Store

    with reported():
        store = Store(output).hurried()
        if store.exists(JOB_KEY):
            return store
    say(f"{output} holds no {JOB_KEY}: it is not an output of diffcolor-batch submit")
    raise typer.Exit(UNEXPECTED)
