"""`diffcolor-batch manifest ...`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.terminal import ColumnOption, DefaultCaption, Json, columns, print_json, reported, say

app = typer.Typer(no_args_is_help=True, help="Build, validate and look at manifests.")


@app.command("build")
def build_manifest(
    folder: Annotated[str, typer.Argument(help="Folder of images, any fsspec URI; subfolders too.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest to write.")] = Path("manifest.parquet"),
    captions: Annotated[
        str | None, typer.Option(help="CSV with columns file, caption, and others of a manifest; lists as 'a|b'.")
    ] = None,
) -> None:
    """Make a manifest from a folder of images and a CSV of captions."""
    from manifests.build import build

    with reported():
        built = build(folder, output, captions)
    typer.echo(f"{output}: {built.rows} rows")
    for row_id in built.uncaptioned:
        say(f"  no caption: {row_id}")
    for file in built.unmatched:
        say(f"  caption without an image: {file}")


@app.command()
def validate(manifest: str, column: ColumnOption = None, default_caption: DefaultCaption = None) -> None:
    """Check every row; list every problem. Exits 2 if there is one."""
    from manifests.read import validated

    with reported():
        count = validated(manifest, columns(column), default_caption)
    typer.echo(f"{manifest}: {count} rows, no problems")


@app.command()
def show(
    manifest: str,
    column: ColumnOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows to show.")] = 10,
    as_json: Json = False,
) -> None:
    """Show the first rows as they are understood: colour hints applied, seeds filled in."""
    from dataclasses import asdict
    from itertools import islice

    from manifests.locations import folder_of
    from manifests.read import read_rows
    from manifests.validate import Validator

    with reported():
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
