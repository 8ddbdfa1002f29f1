"""`diffcolor-batch init`: from a folder to the first command, with nothing to know before."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.exit_codes import ExitCode
from pipelines.commands.settings import FILE
from pipelines.commands.terminal import reported, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from manifests.build import Built

DEFAULT_CAPTION = "a photograph"
_LOOK = 50  # images that are read

app = typer.Typer()


@app.command(
    epilog="Example: `diffcolor-batch init scans/`, then `diffcolor-batch submit`.",
)
def init(
    folder: Annotated[str, typer.Argument(help="Folder of scans, any fsspec URI; subfolders are included.")],
    captions: Annotated[
        str | None,
        typer.Option(
            help="CSV, .xlsx or catalogue records (XML) of them. Default: the spreadsheet in the folder or beside it."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the manifest and the settings of an earlier time.")
    ] = False,
) -> None:
    """Look at a folder of scans, say what it holds, and write a manifest and a settings file for it here."""
    name = _name_of(folder)
    manifest = Path(f"{name}.parquet")
    if not force and (there := [path for path in (manifest, Path(FILE)) if path.exists()]):
        say(f"{', '.join(map(str, there))} is here already; --force replaces it, or go on: diffcolor-batch submit")
        raise typer.Exit(ExitCode.USAGE)
    with reported():
        built = _built(folder, captions, manifest)
    typer.echo(f"{manifest}: {built.rows} images")
    for note in built.notes:
        say(f"  {note}")
    for reason, count in built.left_out.items():
        say(f"  left out: {count} x {reason}")
    _tell_captions(built)
    failing = _looked_at(manifest, built.rows, DEFAULT_CAPTION if built.uncaptioned else None)
    Path(FILE).write_text(_settings(name, manifest, bool(built.uncaptioned)), encoding="utf-8")
    typer.echo(f"{FILE}: what `submit` needs; every option can stand there (diffcolor-batch submit --help)")
    typer.echo("next: diffcolor-batch submit")
    if failing:
        raise typer.Exit(ExitCode.ROWS_FAILED)


def _name_of(folder: str) -> str:
    """The folder's name as a file's."""
    from manifests.ids import slug_id

    last = folder.rstrip("/").rpartition("/")[2]
    if last in ("", ".", ".."):
        last = Path(folder).resolve().name
    return slug_id(last) or "scans"


def _built(folder: str, captions: str | None, manifest: Path) -> "Built":
    """Writes the manifest; what was guessed is said."""
    from manifests.build import build
    from manifests.guess import guessed_columns, spreadsheets_beside
    from manifests.sources.folder import images_below
    from manifests.sources.tables import read_table
    from pipelines.images.formats.table import SUFFIXES

    images = images_below(folder, SUFFIXES).images
    columns: dict[str, str] = {}
    if captions is None:
        beside = [one for one in spreadsheets_beside(folder) if _is_about(one, images)]
        if len(beside) > 1:
            raise typer.BadParameter(
                f"which of these is about the scans? {', '.join(beside)}; name it", param_hint="--captions"
            )
        captions = beside[0] if beside else None
    if captions:
        table = read_table(captions)
        columns = dict(guessed_columns(table.headings, table.lines, images))
        said = "".join(f"; {theirs!r} is read as {ours}" for ours, theirs in columns.items())
        say(f"{captions}: {len(table.lines)} lines{said}")
    return build(folder, manifest, SUFFIXES, captions, columns)


def _is_about(spreadsheet: str, images: "Mapping[str, str]") -> bool:
    """Whether a spreadsheet that lies there has a column that names the images."""
    from manifests.errors import ManifestError
    from manifests.guess import guessed_columns
    from manifests.sources.tables import read_table

    try:
        table = read_table(spreadsheet)
    except ManifestError as error:
        say(f"{spreadsheet} cannot be read and is left aside: {error.problems[0].message}")
        return False
    names_them = "file" in guessed_columns(table.headings, table.lines, images)
    if not names_them and "file" not in [heading.casefold() for heading in table.headings]:
        say(f"{spreadsheet} has no column that names the images, and is left aside")
        return False
    return True


def _tell_captions(built: "Built") -> None:
    if built.uncaptioned:
        many = f"{len(built.uncaptioned)} have no caption, for example {built.uncaptioned[0]}"
        say(f"  {many}: they get {DEFAULT_CAPTION!r} (default-caption in {FILE}); a title makes better colours")
    if built.unmatched:
        say(f"  {len(built.unmatched)} lines name no image of the folder, for example {built.unmatched[0]!r}")


def _looked_at(manifest: Path, rows: int, default_caption: str | None) -> int:
    """Reads some of the images and says what they are; returns how many would fail."""
    from manifests.errors import Kinds
    from manifests.read import read_rows
    from manifests.schema import Defaults
    from pipelines.images.rules import Rules
    from pipelines.operations.input_survey import InputSurvey
    from pipelines.operations.prompt_survey import PromptSurvey

    defaults, every = Defaults(caption=default_caption), max(1, rows // _LOOK)
    outlook, prompts, advice = InputSurvey(), PromptSurvey("mini"), Kinds()
    for number, row in enumerate(read_rows(str(manifest), {}, defaults)):
        for text in prompts.advice(row):
            advice.add(text.partition(":")[0], f"{row.id}: {text}")
        if number % every == 0:
            outlook.add(row, Rules())
    for line in outlook.lines(rows):
        typer.echo(line)
    for line in advice.lines():
        say(f"  {line}")
    return outlook.problems.total()


def _settings(name: str, manifest: Path, needs_caption: bool) -> str:
    caption = f"default-caption = {json.dumps(DEFAULT_CAPTION)}"
    return "\n".join(
        (
            "# Options of diffcolor-batch. The command line counts before them.",
            "",
            "[submit]",
            f"manifest = {json.dumps(str(manifest))}",
            f"output = {json.dumps(f'{name}-colorized')}",
            caption if needs_caption else f"# {caption}",
            '# toned = "desaturate"         # scans with a tint: take their gray values',
            '# base-model = "none"          # seconds per picture, without diffusion',
            "",
        )
    )
