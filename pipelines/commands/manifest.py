"""`diffcolor-batch manifest ...`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from diffcolor.config import MINI
from manifests.schema import Defaults
from pipelines.commands.exit_codes import ExitCode
from pipelines.commands.terminal import (
    AllowInput,
    AllowScheme,
    AssumeSrgbOption,
    BaseModelOption,
    ColumnOption,
    DefaultCaption,
    DefaultPage,
    DeviceOption,
    Json,
    MaxPixelsOption,
    NegativeOption,
    TonedOption,
    WholeSheetOption,
    columns,
    print_json,
    reach_of,
    reported,
    say,
)
from pipelines.images.rules import MAX_PIXELS, Rules, Toned
from pipelines.job import Device

if TYPE_CHECKING:
    from manifests.sources.alto import Size

EXAMPLES = 3
_SAY_SECONDS = 5.0

app = typer.Typer(no_args_is_help=True, help="Build, validate and show manifests.")


@app.command("build")
def build_manifest(
    folder: Annotated[
        str | None, typer.Argument(help="Folder of images, any fsspec URI; subfolders are included.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Manifest file to write, any fsspec URI.")
    ] = "manifest.parquet",
    captions: Annotated[
        str | None,
        typer.Option(
            help="CSV or .xlsx with a column file, caption and others of a manifest; lists as 'a|b'. Columns that a "
            "manifest does not have are carried into the results. Or catalogue records in XML: Dublin Core, MARCXML, "
            "EAD; --column says which fields are file and caption."
        ),
    ] = None,
    column: ColumnOption = None,
    alto: Annotated[
        str | None, typer.Option(help="Folder of ALTO files: a row for each illustration of the folder's pages.")
    ] = None,
    mets: Annotated[
        str | None, typer.Option(help="METS file instead of a folder: a row for each illustration of its pages.")
    ] = None,
    iiif: Annotated[
        str | None, typer.Option(help="IIIF Presentation 3 or 2 manifest (file or URI) instead of a folder.")
    ] = None,
) -> None:
    """Build a manifest from a folder of images and a CSV of captions, from METS/ALTO, or from IIIF."""
    from manifests.build import build, write
    from manifests.sources.alto import rows_of_pages
    from manifests.sources.iiif import rows_of_iiif
    from manifests.sources.pages import pages_of_folders, pages_of_mets
    from pipelines.images.formats.table import SUFFIXES

    if sum(source is not None for source in (folder, mets, iiif)) != 1:
        raise typer.BadParameter("give one of FOLDER, --mets and --iiif")
    if (alto and not folder) or (captions and (alto or not folder)):
        raise typer.BadParameter("--alto and --captions go with FOLDER, one at a time")
    if column and not captions:
        raise typer.BadParameter("--column names columns of --captions")
    left_out: list[str] = []
    with reported():
        if iiif:
            rows, left_out = rows_of_iiif(iiif)
            built = write(rows, output, iiif)
        elif folder and not alto:
            built = build(folder, output, SUFFIXES, captions, columns(column))
        else:
            alone: tuple[str, ...] = ()
            if folder and alto:
                pages, alone = pages_of_folders(folder, alto, SUFFIXES)
            else:
                pages = pages_of_mets(mets or "", SUFFIXES)
            rows, left_out = rows_of_pages(pages, _size_of)
            built = write(rows, output, mets or folder or "", alone)
    typer.echo(f"{output}: {built.rows} rows")
    for reason in left_out:
        say(f"  left out: {reason}")
    for note in built.notes:
        say(f"  {note}")
    for what, names in (("without a caption", built.uncaptioned), ("without a counterpart", built.unmatched)):
        if names:
            say(f"  {len(names)} {what}: {', '.join(names[:EXAMPLES])}{', ...' if len(names) > EXAMPLES else ''}")
    for reason, count in built.left_out.items():
        say(f"  left out: {count} x {reason}")
    if captions and not built.matched:
        say(f"no row of {captions} names an image of {folder}: column 'file' holds paths within the folder, or names")
        raise typer.Exit(ExitCode.ROWS_FAILED)


def _size_of(uri: str) -> "Size":
    """An image's size and resolution, from its header."""
    from manifests.errors import ManifestError, Problem
    from manifests.sources.alto import Size
    from pipelines.images.errors import InputImageError
    from pipelines.images.formats.codecs import open_raster
    from pipelines.store.fetch import fetch_uri

    try:
        with fetch_uri(uri) as file:
            raster = open_raster(file, 1 << 62)
    except (InputImageError, OSError) as error:
        kind = getattr(error, "kind", "not_found")
        raise ManifestError(uri, [Problem(kind, None, None, str(error))]) from error
    return Size(raster.width, raster.height, raster.metadata.dpi[0] if raster.metadata.dpi else None)


@app.command()
def validate(
    manifest: str,
    column: ColumnOption = None,
    default_caption: DefaultCaption = None,
    page: DefaultPage = None,
    allow_input: AllowInput = None,
    allow_scheme: AllowScheme = None,
    negative: NegativeOption = False,
    whole_sheet: WholeSheetOption = False,
    base_model: BaseModelOption = MINI,
    look: Annotated[
        int | None, typer.Option(min=1, help="Also read about this many of the images, spread over the manifest.")
    ] = None,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    toned: TonedOption = Toned.reject,
    assume_srgb: AssumeSrgbOption = False,
    as_json: Json = False,
) -> None:
    """Check every row, list every problem (exit code 2), and warn of prompts that the model will not read as meant.

    With --look, report which images would fail, and why; exit code 3 if any would.
    """
    from manifests.errors import Kinds
    from manifests.read import read_rows, validated
    from pipelines.operations.prompt_survey import PromptSurvey

    reach = reach_of(manifest, allow_input, allow_scheme)
    defaults = Defaults(caption=default_caption, page=page, negative=negative, whole_sheet=whole_sheet, reach=reach)
    rules = Rules(max_pixels=max_pixels, toned=toned, assume_srgb=assume_srgb, reach=reach)
    with reported():
        count = validated(manifest, columns(column), defaults)
        prompts, advice = PromptSurvey(base_model), Kinds()
        if look:
            from pipelines.operations.input_survey import InputSurvey

            outlook, every = InputSurvey(), max(1, count // look)
        for number, row in enumerate(read_rows(manifest, columns(column), defaults)):
            for text in prompts.advice(row):
                advice.add(text.partition(":")[0], f"row {number} ({row.id}): {text}")
            if look and number % every == 0:
                outlook.add(row, rules)
    if as_json:
        warned = {"counts": advice.counts, "examples": advice.examples}
        print_json({"rows": count, "prompts": warned, **(outlook.to_json() if look else {})})
    else:
        typer.echo(f"{manifest}: {count} rows, no problems")
        for line in advice.lines():
            say(f"  {line}")
        for line in outlook.lines(count) if look else ():
            typer.echo(line)
    if look and outlook.problems:
        raise typer.Exit(ExitCode.ROWS_FAILED)


@app.command("caption")
def caption_rows(
    manifest: str,
    output: Annotated[str, typer.Option("--output", "-o", help="Manifest file to write, any fsspec URI.")],
    model: Annotated[
        str, typer.Option(help="A folder of transformers, or a hub id, of an image-to-text model.")
    ] = "Salesforce/blip-image-captioning-base",
    column: ColumnOption = None,
    default_page: DefaultPage = None,
    allow_input: AllowInput = None,
    allow_scheme: AllowScheme = None,
    negative: NegativeOption = False,
    device: DeviceOption = Device.auto,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    toned: TonedOption = Toned.reject,
) -> None:
    """Fill in missing captions by an image-to-text model, and mark them as a machine's (column caption_source).

    Example: manifest caption scans.parquet -o captioned.parquet --model ./blip
    """
    from diffcolor.errors import BaseModelError
    from pipelines.operations.captioning import Captioned, Captioner, caption

    if manifest == output:
        raise typer.BadParameter("give another file than the manifest", param_hint="--output")
    reach = reach_of(manifest, allow_input, allow_scheme)
    defaults = Defaults(caption="?", page=default_page, negative=negative, reach=reach)
    rules = Rules(max_pixels=max_pixels, toned=toned, reach=reach)
    done = Captioned()
    with reported():
        say(f"loading {model} ...")
        try:
            captioner = Captioner(model, device)
        except BaseModelError as error:
            say(str(error))
            raise typer.Exit(ExitCode.UNAVAILABLE) from error
        said = time.monotonic()
        for done in caption(manifest, output, captioner, columns(column), rules, defaults):
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                say(f"{done.rows} rows, {done.given} captions written")
    typer.echo(f"{output}: {done.rows} rows, {done.given} with a caption by {model}; check them before a job")
    for row_id, reason in list(done.failed.items())[:EXAMPLES]:
        say(f"  {row_id}: {reason}")
    if done.failed:
        say(f"  {len(done.failed)} images cannot be read; their rows have no caption")
        raise typer.Exit(ExitCode.ROWS_FAILED)


@app.command()
def show(
    manifest: str,
    column: ColumnOption = None,
    base_model: BaseModelOption = MINI,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows to show.")] = 10,
    as_json: Json = False,
) -> None:
    """Show the first rows as they will be run: colour hints applied, seeds filled in."""
    from dataclasses import asdict
    from itertools import islice

    from manifests.locations import folder_of
    from manifests.read import read_rows
    from manifests.validate import Validator
    from pipelines.operations.prompt_survey import PromptSurvey

    with reported():
        survey = PromptSurvey(base_model)
        # A validator of its own: rows with problems are left out here, `validate` names them.
        rows = list(islice(read_rows(manifest, columns(column), None, Validator(folder_of(manifest))), limit))
    if as_json:
        hidden = {"image_bytes"}
        print_json([{key: value for key, value in asdict(row).items() if key not in hidden} for row in rows])
        return
    for row in rows:
        typer.echo(f"{row.id}\n  image    {row.image or 'image_bytes'}\n  caption  {row.caption}")
        for prompt in row.target_prompts:
            typer.echo(f"  target   {prompt}")
        for warning in survey.advice(row):
            typer.echo(f"  warning  {warning}")
