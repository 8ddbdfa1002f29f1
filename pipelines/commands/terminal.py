"""What all commands share: options, messages on stderr, JSON on stdout, errors as a line and an exit code."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from diffcolor.config import MINI, NO_BASE, Config, Precision, Preset, Start, preset_for
from pipelines.commands.exit_codes import ExitCode
from pipelines.images.rules import Toned
from pipelines.job import Device

if TYPE_CHECKING:
    from manifests.locations import Reach
    from pipelines.store.store import Store

console = Console(stderr=True)

# Panels of the help of commands that have many options.
PICTURES, METHOD, WORKERS, RESUMING, CLUSTER = "Pictures", "Method", "Workers", "Stopping and resuming", "Cluster"
PresetOption = Annotated[
    Preset, typer.Option(help="How long each image is trained and sampled.", rich_help_panel=METHOD)
]
BaseModelOption = Annotated[
    str,
    typer.Option(
        help="'mini' (embedded), a diffusers folder, a hub id of a Stable Diffusion 1.x, 2.x or XL model, or 'none': "
        "the coarse colorizer alone, without diffusion or training, seconds per picture.",
        rich_help_panel=METHOD,
    ),
]
JudgeOption = Annotated[
    str,
    typer.Option(help="CLIP model: 'mini' (embedded), an open_clip folder, or MODEL:TAG.", rich_help_panel=METHOD),
]
LossDecoderOption = Annotated[
    str | None,
    typer.Option(
        help="AutoencoderTiny (folder or hub id, such as madebyollin/taesd) for stage 1's loss: less time and memory.",
        rich_help_panel=METHOD,
    ),
]
DeviceOption = Annotated[Device, typer.Option(help="auto: cuda where the workers have a GPU.", rich_help_panel=WORKERS)]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="Numbers of the frozen models. auto: fp32 on CPUs, bf16 on GPUs that have it, else fp16.",
        rich_help_panel=WORKERS,
    ),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="OURS=THEIRS: read our column from one with another name. Repeatable."),
]
DefaultCaption = Annotated[
    str | None, typer.Option(help="Context prompt for rows without a caption, such as 'a colorful photograph'.")
]
DefaultPage = Annotated[
    int | None,
    typer.Option(
        "--page",
        min=0,
        help="Page of files with several, counted from 0, for rows that name none.",
        rich_help_panel=PICTURES,
    ),
]
AllowInput = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-input",
        metavar="PREFIX",
        help="What a manifest that is not local may reach besides its own bucket, such as s3://scans/. Repeatable.",
        rich_help_panel=PICTURES,
    ),
]
AllowScheme = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-scheme",
        metavar="SCHEME",
        help="Kind of URI of fsspec that rows may name besides the usual ones. Repeatable.",
        rich_help_panel=PICTURES,
    ),
]
NegativeOption = Annotated[
    bool,
    typer.Option(
        "--negative",
        help="The scans are negatives, unless a row says no: their pictures are the inverse.",
        rich_help_panel=PICTURES,
    ),
]
WholeSheetOption = Annotated[
    bool,
    typer.Option(
        "--whole-sheet",
        help="Colour everything, not only the photograph that is found on a mount, in a border or a film's rebate.",
        rich_help_panel=PICTURES,
    ),
]
ImagesPerStep = Annotated[
    str,
    typer.Option(
        "--images-per-step",
        "-k",
        metavar="K|auto",
        help="Images of one size adapted together; auto: as many as fit on the GPU, 4 on a CPU.",
        rich_help_panel=WORKERS,
    ),
]
StartOption = Annotated[
    Start | None,
    typer.Option(
        help="From the gray scan (as in the paper) or the coarse colorizer's colours. Default: the preset's.",
        rich_help_panel=METHOD,
    ),
]
EtaOption = Annotated[
    list[float] | None,
    typer.Option(
        "--eta", help="Interpolation weight(s) to try instead of the preset's. Repeatable.", rich_help_panel=METHOD
    ),
]
MaxPixelsOption = Annotated[
    int, typer.Option(min=1, help="Refuse larger images before they are decoded.", rich_help_panel=PICTURES)
]
TonedOption = Annotated[
    Toned, typer.Option(help="Reject scans with a tone or colour, or take their luminance.", rich_help_panel=PICTURES)
]
AssumeSrgbOption = Annotated[
    bool,
    typer.Option(
        "--assume-srgb", help="Accept scans whose ICC profile is broken or not a gray one.", rich_help_panel=PICTURES
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Output = Annotated[str, typer.Argument(help="Output folder or URI of a submitted job.")]


def configured(preset: Preset, base_model: str, start: Start | None) -> Config:
    """The preset's configuration for a base model, with another start where one is given."""
    if base_model not in (MINI, NO_BASE) and Path(base_model).exists():  # in a cluster, it may be elsewhere
        from diffcolor.base_folder import read_base_folder
        from diffcolor.errors import BaseModelError

        try:
            read_base_folder(base_model, Path(base_model))
        except BaseModelError as error:
            raise typer.BadParameter(str(error), param_hint="--base-model") from error
    if base_model == NO_BASE and start is Start.gray:
        raise typer.BadParameter("--start gray: without a base model there are no colours but the coarse colorizer's")
    config = preset_for(preset.value, base_model)
    return config.starting_from(start) if start else config


def say(message: str) -> None:
    """A line for people."""
    console.print(message, soft_wrap=True, highlight=False, markup=False)


def print_json(document: Any) -> None:
    """A document for machines."""
    typer.echo(json.dumps(document, indent=2, default=str))


@contextmanager
def reported() -> Iterator[None]:
    """Turns the errors that a user can do something about into a message and an exit code."""
    from diffcolor.errors import DiffColorError
    from manifests.errors import ManifestError
    from pipelines.errors import JobError, OutputInUseError, ReplanError

    try:
        yield
    except (ManifestError, ReplanError) as error:
        say(str(error))
        raise typer.Exit(ExitCode.USAGE) from error
    except OutputInUseError as error:
        say(str(error))
        raise typer.Exit(ExitCode.IN_USE) from error
    except (JobError, DiffColorError) as error:
        say(str(error))
        raise typer.Exit(ExitCode.UNAVAILABLE) from error
    except KeyboardInterrupt as error:
        say("interrupted; submit again to resume")
        raise typer.Exit(ExitCode.INTERRUPTED) from error


def images_together(text: str) -> int | None:
    """K, or None for as many images as fit on the GPU."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a number from 1 on nor auto", param_hint="--images-per-step")
    return int(text)


def columns(pairs: list[str] | None) -> dict[str, str]:
    """`--column` values as a mapping."""
    mapping = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise typer.BadParameter(f"{pair!r} is not OURS=THEIRS, such as caption=title", param_hint="--column")
        mapping[ours] = theirs
    return mapping


def reach_of(manifest: str, allow_input: list[str] | None, allow_scheme: list[str] | None) -> "Reach":
    """What a manifest's rows may reach."""
    from manifests.locations import Reach

    try:
        return Reach.of(manifest, allow_input or (), allow_scheme or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--allow-input") from error


def open_output(output: str) -> "Store":
    """The store of a submitted job's output, with a short retry budget.

    Raises:
        typer.Exit: it is not one, or cannot be reached; the reason has been printed.
    """
    from pipelines.ledger.layout import JOB_KEY
    from pipelines.store.store import Store

    with reported():
        store = Store(output).with_timeout()
        if store.exists(JOB_KEY):
            return store
    say(f"{output}: not a diffcolor-batch output folder (no {JOB_KEY})")
    raise typer.Exit(ExitCode.UNEXPECTED)
