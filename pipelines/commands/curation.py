"""`verify`, `report`, `review`, `export`: what has been made, what of it is wanted, and where it goes."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.terminal import OK, ROWS_FAILED, USAGE, Json, Output, open_output, print_json, reported, say

app = typer.Typer()


@app.command()
def verify(
    output: Annotated[str | None, typer.Argument(help="Output folder or URI.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Look at about so many rows only.")] = None,
    pair: Annotated[
        tuple[str, str] | None, typer.Option(help="Compare any two files instead: the scan, the colour picture.")
    ] = None,
    page: Annotated[int | None, typer.Option(min=0, help="With --pair: page of the scan, from 0.")] = None,
    as_json: Json = False,
) -> None:
    """Read every output again: its hash, its size, its luminance against the scan, its tone curve, its mark.
    Exits 3 on any difference."""
    if (pair is None) == (output is None):
        raise typer.BadParameter("give an output, or --pair SCAN PICTURE")
    if pair:
        raise typer.Exit(_verify_pair(*pair, page, as_json))
    open_output(output)
    from pipelines.curation.verify import verify as verify_output

    with reported():
        found = verify_output(output, sample)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(
            f"{found.rows} rows, {found.pictures} pictures ({found.against_input} against their input file), "
            f"{found.luminance_mismatches} luminance mismatches, {len(found.differences)} differences"
            + (f"; {found.pending} rows have no result yet" if found.pending else "")
        )
        for difference in found.differences:
            typer.echo(f"  {difference.id}: {difference.file}: {difference.what}")
    raise typer.Exit(ROWS_FAILED if found.differences or found.luminance_mismatches else OK)


def _verify_pair(scan: str, picture: str, page: int | None, as_json: bool) -> int:
    from pipelines.curation.verify import verify_pair
    from pipelines.images.errors import InputImageError

    try:
        with reported():
            found = verify_pair(scan, picture, page)
    except (InputImageError, ValueError, FileNotFoundError) as error:
        say(f"cannot be compared: {error}")
        return ROWS_FAILED
    if as_json:
        print_json({"pixels": found.pixels, "mismatches": found.mismatches, "largest": found.largest})
    else:
        where = f", by up to {found.largest}, first at x={found.first[0]}, y={found.first[1]}" if found.first else ""
        typer.echo(f"{found.mismatches} of {found.pixels} pixels differ in luminance{where}")
    return ROWS_FAILED if found.mismatches else OK


@app.command()
def report(output: Output) -> None:
    """Write the report: OUT/report/index.html, to look at every picture and decide. (A job's end writes it, too.)"""
    from pipelines.curation.report.report import write_report

    store = open_output(output)
    with reported():
        write_report(store)
    typer.echo(f"{output.rstrip('/')}/report/index.html")


@app.command()
def review(
    output: Output,
    decisions: Annotated[str, typer.Option(help="The CSV that the report saved; file or URI.")],
    as_json: Json = False,
) -> None:
    """Apply a curator's decisions: approved pictures go to OUT/final, picked variants become the default."""
    from dataclasses import asdict

    from pipelines.curation.report.report import write_report
    from pipelines.curation.review import apply, read_decisions
    from pipelines.errors import RecolorError

    store = open_output(output)
    with reported():
        try:
            done = apply(output, read_decisions(decisions))
        except RecolorError as error:
            say(str(error))
            raise typer.Exit(ROWS_FAILED) from error
        write_report(store)
    if as_json:
        print_json(asdict(done))
    else:
        typer.echo(
            f"{done.applied} decisions applied; {output.rstrip('/')}/final holds {done.final} pictures"
            + (f", {done.removed} were taken out" if done.removed else "")
        )
        for row_id in done.stale:
            say(f"  {row_id}: its picture was made anew since it was looked at; decide again in the new report")
        for row_id in done.unknown:
            say(f"  {row_id}: no such id")
        for row_id, reason in done.failed.items():
            say(f"  {row_id}: the picked runner-up could not be made: {reason}")
    raise typer.Exit(ROWS_FAILED if done.failed else USAGE if done.stale or done.unknown else OK)


@app.command()
def export(
    output: Output,
    destination: Annotated[str, typer.Argument(help="Folder or URI; nothing in it is overwritten.")],
    everything: Annotated[bool, typer.Option("--all", help="Rows that nobody has decided about, too.")] = False,
    variants: Annotated[bool, typer.Option(help="The other prompts' pictures, too, as ..._a02 and so on.")] = False,
    premis: Annotated[bool, typer.Option(help="A PREMIS record beside each picture.")] = False,
    bagit: Annotated[bool, typer.Option(help="Make the destination a BagIt bag.")] = False,
    iiif: Annotated[
        str | None, typer.Option(help="URL at which the destination will be served: writes a IIIF manifest.")
    ] = None,
    c2pa_certificate: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM chain: sign the pictures (extra [c2pa]).")
    ] = None,
    c2pa_key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="PEM of its private key.")] = None,
    c2pa_algorithm: Annotated[str, typer.Option(help="es256, es384, ps256, ed25519, ...")] = "es256",
    c2pa_timestamp: Annotated[str | None, typer.Option(help="URL of a time-stamping authority.")] = None,
) -> None:
    """Copy approved pictures to a place of their own, under the scans' names, with their records."""
    from pipelines.curation.export.c2pa import Certificate, SigningError
    from pipelines.curation.export.export import ExportError, Options
    from pipelines.curation.export.export import export as export_to

    if (c2pa_certificate is None) != (c2pa_key is None):
        raise typer.BadParameter("--c2pa-certificate and --c2pa-key go together")
    open_output(output)
    certificate = c2pa_certificate and Certificate(c2pa_certificate, c2pa_key, c2pa_algorithm, c2pa_timestamp)
    options = Options(
        everything=everything, variants=variants, premis=premis, bagit=bagit, iiif=iiif, certificate=certificate
    )
    try:
        with reported():
            made = export_to(output, destination, options)
    except (ExportError, SigningError) as error:
        say(str(error))
        raise typer.Exit(USAGE) from error
    typer.echo(f"{destination}: {len(made)} pictures")
    if not made:
        say("nothing is approved yet: look at report/index.html, then `review`; or export --all")
