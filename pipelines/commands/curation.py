"""`recolor`, `verify`, `report`, `review`, `export`: what becomes of finished pictures."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffcolor.config import Preset
from pipelines.commands.exit_codes import ExitCode
from pipelines.commands.terminal import (
    DeviceOption,
    EtaOption,
    Json,
    Output,
    StartOption,
    open_output,
    print_json,
    reported,
    say,
)
from pipelines.job import Device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from manifests.color_places import ColorPlace
    from manifests.read import RecolorRequest
    from pipelines.store.store import Store

app = typer.Typer()


@app.command()
def recolor(
    output: Output,
    id: Annotated[str | None, typer.Option(help="The row to recolour.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Target prompt; repeatable. Default: the row's own.")] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,COLOR",
            help="A pixel of the scan and its colour: #rrggbb, a name, or neutral. Replaces the row's known colours.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X,Y,W,H,COLOR", help="The same for a box; both repeatable.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="A colour picture of the same thing or kind; its colours are taken where it is alike."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP_ID",
            help="Instead of one row: give a series the colours of its first approved picture, else of its first.",
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Instead of the options above: Parquet with id and target_prompts, color_points, color_boxes or "
            "reference."
        ),
    ] = None,
    preset: Annotated[Preset | None, typer.Option(help="Default: the job's.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Default: the job's.")] = None,
    judge: Annotated[str | None, typer.Option(help="Default: the job's.")] = None,
    device: DeviceOption = Device.auto,
    start: StartOption = None,
    eta: EtaOption = None,
    as_json: Json = False,
) -> None:
    """Give finished rows new colours by text, place or example. No training; the original image file is not needed.

    Example: recolor OUT --id depot-17 --point 420,310,"olive drab" --box 0,0,900,180,"light blue"
    """
    asked = bool(prompt or point or box or reference)
    if sum(map(bool, (id, group, manifest))) != 1 or bool(id) != asked:
        message = "give --id with --prompt, --point, --box or --reference; or --group alone; or --manifest alone"
        raise typer.BadParameter(message)
    places = _places(point or [], box or [])
    store = open_output(output)
    from dataclasses import asdict

    from manifests.locations import absolute
    from manifests.read import RecolorRequest, read_recolor_requests
    from pipelines.curation.recolor import Recolorer
    from pipelines.ledger.results import Output as OutputRecord

    made: list[tuple[str, OutputRecord]] = []
    has_failures = False
    with reported():
        if group:
            requests: Iterable[RecolorRequest] = _series(store, group)
        elif manifest:
            requests = read_recolor_requests(manifest)
        else:
            uri = absolute(reference) if reference else None
            requests = [RecolorRequest(id=id or "", prompts=tuple(prompt or ()), places=places, reference=uri)]
        recolorer = Recolorer(
            output,
            preset=preset and preset.value,
            etas=eta,
            start=start,
            device=device,
            base_model=base_model,
            judge=judge,
        )
        for row_id, outcome in recolorer.recolor_all(requests, again=bool(preset or eta or start)):
            if isinstance(outcome, Exception):
                say(f"{row_id}: {outcome}")
                has_failures = True
            else:
                made += [(row_id, picture) for picture in outcome]
    if as_json:
        print_json([{"id": row_id, **asdict(picture)} for row_id, picture in made])
    else:
        for row_id, picture in made:
            typer.echo(f"{row_id}: {picture.prompt}: {output.rstrip('/')}/{picture.image} (eta {picture.eta:g})")
            if picture.reference_likeness == 0:
                say(f"  {row_id}: nothing in it is like {picture.reference}; the reference changed nothing")
    raise typer.Exit(ExitCode.ROWS_FAILED if has_failures else ExitCode.OK)


def _series(store: "Store", group: str) -> "list[RecolorRequest]":
    from pipelines.curation.series import series_requests

    try:
        requests = list(series_requests(store, group))
    except LookupError as error:
        raise typer.BadParameter(str(error.args[0])) from error
    if not requests:
        say(f"{group}: every picture of the series is approved already")
    return requests


def _places(points: list[str], boxes: list[str]) -> "tuple[ColorPlace, ...]":
    from manifests.color_places import distinct, parse_place

    try:
        return distinct([*(parse_place(one, 2) for one in points), *(parse_place(one, 4) for one in boxes)])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def verify(
    output: Annotated[str | None, typer.Argument(help="Output folder or URI.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Check only about this many rows, spread over the manifest.")
    ] = None,
    pair: Annotated[
        tuple[str, str] | None, typer.Option(help="Compare any two files instead: the scan and the colour picture.")
    ] = None,
    page: Annotated[int | None, typer.Option(min=0, help="With --pair: page of the scan, counted from 0.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Restore files of _engine/ and results/ from each other.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every output file: hash, size, luminance against the scan, tone curve and AI label; and the engine's files.

    Exits with 3 if anything differs."""
    if pair and output is None:
        raise typer.Exit(_verify_pair(*pair, page, as_json))
    if pair or output is None:
        raise typer.BadParameter("give an output, or --pair SCAN PICTURE")
    if repair and sample:
        raise typer.BadParameter("--repair looks at everything: leave --sample out")
    open_output(output)
    from pipelines.curation.verify import verify as verify_output

    with reported(), _held(output) if repair else nullcontext():
        found = verify_output(output, sample, repair)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(
            f"{found.rows} rows, {found.pictures} pictures ({found.against_input} against their input file), "
            f"{found.luminance_mismatches} luminance mismatches, {len(found.differences)} differences"
            + (f"; {found.pending} rows have no result yet" if found.pending else "")
        )
        for difference in found.differences:
            whose = f"{difference.id}: " if difference.id else ""
            typer.echo(f"  {whose}{difference.file}: {difference.what}")
        for key in found.repaired:
            typer.echo(f"  repaired: {key}")
        if any(not difference.id for difference in found.differences):
            typer.echo("  files of the engine are restored by: verify --repair")
    raise typer.Exit(ExitCode.ROWS_FAILED if found.differences or found.luminance_mismatches else ExitCode.OK)


@contextmanager
def _held(output: str) -> Iterator[None]:
    """Holds the output, so that no run writes meanwhile."""
    from pipelines.store.lease import acquire

    lease = acquire(open_output(output), "repair", {})
    try:
        yield
    finally:
        lease.release(**lease.previous)


def _verify_pair(scan: str, picture: str, page: int | None, as_json: bool) -> int:
    from pipelines.curation.verify import verify_pair
    from pipelines.images.errors import InputImageError

    try:
        with reported():
            found = verify_pair(scan, picture, page)
    except (InputImageError, ValueError, FileNotFoundError) as error:
        say(f"the files cannot be compared: {error}")
        return ExitCode.ROWS_FAILED
    if as_json:
        print_json({"pixels": found.pixels, "mismatches": found.mismatches, "largest": found.largest})
    else:
        where = f", by up to {found.largest}, first at x={found.first[0]}, y={found.first[1]}" if found.first else ""
        typer.echo(f"{found.mismatches} of {found.pixels} pixels differ in luminance{where}")
    return ExitCode.ROWS_FAILED if found.mismatches else ExitCode.OK


@app.command()
def report(
    output: Output,
    part: Annotated[
        int | None,
        typer.Option(min=1, help="Write this part, too, of a report of more than 100,000 rows: 20,000 rows each."),
    ] = None,
) -> None:
    """Write the review page OUT/report/index.html. (Every job writes it when it ends.)"""
    from pipelines.curation.report.report import NoSuchPartError, page_of, write_report

    store = open_output(output)
    with reported():
        try:
            write_report(store, part)
        except NoSuchPartError as error:
            raise typer.BadParameter(str(error), param_hint="--part") from error
    typer.echo(f"{output.rstrip('/')}/{page_of((part or 1) - 1)}")


@app.command()
def review(
    output: Output,
    decisions: Annotated[
        list[str] | None,
        typer.Option(help="The CSV file saved from the report; file or URI. Repeatable: of several curators."),
    ] = None,
    approvals: Annotated[
        int | None,
        typer.Option(min=1, help="From now on so many people must approve a picture before it is in OUT/final."),
    ] = None,
    take_back: Annotated[bool, typer.Option("--undo", help="Take back what was applied last.")] = False,
    as_json: Json = False,
) -> None:
    """Apply curators' decisions: approved pictures are copied to OUT/final, picked variants become the default.

    Rows on which several files decide differently are named, and left as they are (exit code 3).
    """
    from dataclasses import asdict

    from pipelines.curation.report.report import write_report
    from pipelines.curation.review import UnsignedError, apply, merged, read_decisions, undo
    from pipelines.curation.series import undecided_in_group
    from pipelines.errors import RecolorError

    if take_back == bool(decisions):
        raise typer.BadParameter("give --decisions FILE, once or several times, or --undo")
    store = open_output(output)
    with reported():
        if take_back:
            ids, final, _ = undo(output)
            write_report(store)
            typer.echo(f"{len(ids)} decisions taken back; {output.rstrip('/')}/final holds {final} pictures")
            return
        try:
            decided, conflicts = merged([read_decisions(file) for file in decisions or ()])
            done = apply(output, decided, approvals=approvals)
        except UnsignedError as error:
            raise typer.BadParameter(str(error), param_hint="--approvals") from error
        except RecolorError as error:
            say(str(error))
            raise typer.Exit(ExitCode.ROWS_FAILED) from error
        write_report(store)
    if as_json:
        print_json({**asdict(done), "conflicts": [asdict(conflict) for conflict in conflicts]})
    else:
        typer.echo(
            f"{done.applied} decisions applied; {output.rstrip('/')}/final holds {done.final} pictures"
            + (f", {done.removed} were taken out" if done.removed else "")
        )
        if done.lacking:
            say(f"  {done.lacking} pictures wait for the approval of others")
        for conflict in conflicts:
            say(f"  conflict: {conflict}; agree on one, and apply that")
        for group, count in undecided_in_group(store, {one.id for one in decided}).items():
            remedy = f"to give them these colours: recolor {output} --group {group}"
            say(f"  series {group}: {count} not approved yet; {remedy}")
        for row_id in done.stale:
            say(f"  {row_id}: its picture has changed since it was reviewed; decide again in the new report")
        for row_id in done.unknown:
            say(f"  {row_id}: no such id")
        for row_id, reason in done.failed.items():
            say(f"  {row_id}: the picked variant could not be made: {reason}")
    raise typer.Exit(
        ExitCode.ROWS_FAILED
        if done.failed or conflicts
        else ExitCode.USAGE
        if done.stale or done.unknown
        else ExitCode.OK
    )


@app.command()
def export(
    output: Output,
    destination: Annotated[str, typer.Argument(help="Folder or URI. Existing files are never overwritten.")],
    everything: Annotated[bool, typer.Option("--all", help="Also export rows that have not been reviewed.")] = False,
    variants: Annotated[
        bool, typer.Option(help="Also export the pictures of the other prompts, as ..._a02 and so on.")
    ] = False,
    premis: Annotated[bool, typer.Option(help="Write a PREMIS record beside each picture.")] = False,
    bagit: Annotated[bool, typer.Option(help="Make the destination a BagIt bag.")] = False,
    iiif: Annotated[
        str | None, typer.Option(help="Write a IIIF manifest; the URL at which the destination will be served.")
    ] = None,
    c2pa_certificate: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Sign the pictures with this PEM certificate chain (needs the extra [c2pa]).",
        ),
    ] = None,
    c2pa_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of the certificate's private key.")
    ] = None,
    c2pa_algorithm: Annotated[str, typer.Option(help="es256, es384, ps256, ed25519, ...")] = "es256",
    c2pa_timestamp: Annotated[str | None, typer.Option(help="URL of a time-stamping authority.")] = None,
) -> None:
    """Copy approved images to another folder, named after the originals, with their metadata records."""
    from pipelines.curation.export.c2pa import Certificate, SigningError
    from pipelines.curation.export.export import ExportError, Options
    from pipelines.curation.export.export import export as export_to

    certificate = None
    if c2pa_certificate and c2pa_key:
        certificate = Certificate(c2pa_certificate, c2pa_key, c2pa_algorithm, c2pa_timestamp)
    elif c2pa_certificate or c2pa_key:
        raise typer.BadParameter("--c2pa-certificate and --c2pa-key must be given together")
    open_output(output)
    options = Options(
        everything=everything, variants=variants, premis=premis, bagit=bagit, iiif=iiif, certificate=certificate
    )
    try:
        with reported():
            made = export_to(output, destination, options)
    except (ExportError, SigningError) as error:
        say(str(error))
        raise typer.Exit(ExitCode.USAGE) from error
    typer.echo(f"{destination}: {len(made)} pictures")
    if not made:
        say("nothing is approved yet: open report/index.html, then run `review`; or export with --all")
