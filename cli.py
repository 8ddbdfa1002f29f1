"""`diffcolor-batch`: parse, call one function of `pipelines` or `manifests`, print, exit code."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

OK, COULD_NOT_RUN, USAGE, ROWS_FAILED = 0, 1, 2, 3

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Colorize archives of gray photographs by text (DiffColor). The scan's luminance is kept exactly.",
    epilog="Exit codes: 0 all rows ok or skipped; 1 could not run; 2 bad usage or manifest; 3 rows failed or differ.",
)
manifest_app = typer.Typer(no_args_is_help=True, help="Build, validate and look at manifests.")
app.add_typer(manifest_app, name="manifest")
console = Console(stderr=True)


class Preset(StrEnum):
    paper = "paper"
    balanced = "balanced"
    draft = "draft"


ColumnOption = Annotated[
    list[str] | None,
    typer.Option("--column", help="OURS=THEIRS: read our column from one of another name. Repeatable."),
]
DefaultCaption = Annotated[
    str | None, typer.Option(help="Context prompt of rows without a caption, such as 'a colorful photograph'.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
PresetOption = Annotated[Preset, typer.Option(help="How long each image is trained and sampled.")]
BaseModelOption = Annotated[
    str, typer.Option(help="'mini' (embedded), a diffusers folder, or a hub id of a Stable Diffusion 1.x/2.x model.")
]
JudgeOption = Annotated[str, typer.Option(help="'mini' (embedded), a local open_clip folder, or MODEL:TAG.")]


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[Device, typer.Option(help="auto: cuda where the workers have a GPU.")]
EtaOption = Annotated[
    list[float] | None,
    typer.Option("--eta", help="Interpolation weight(s) to try instead of the preset's. Repeatable."),
]


@contextmanager
def _reported() -> Iterator[None]:
    """Turns the errors that a user can do something about into a message and an exit code."""
    from diffcolor.errors import DiffColorError
    from manifests.errors import ManifestError
    from pipelines.errors import JobError

    try:
        yield
    except ManifestError as error:
        _say(str(error))
        raise typer.Exit(USAGE) from error
    except (JobError, DiffColorError) as error:
        _say(str(error))
        raise typer.Exit(COULD_NOT_RUN) from error
    except KeyboardInterrupt as error:
        _say("interrupted; submit again to go on with what is missing")
        raise typer.Exit(COULD_NOT_RUN) from error


def _say(message: str) -> None:
    console.print(message, soft_wrap=True, highlight=False, markup=False)


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, default=str))


def _columns(pairs: list[str] | None) -> dict[str, str]:
    mapping = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise typer.BadParameter(f"{pair!r} is not OURS=THEIRS, such as caption=title", param_hint="--column")
        mapping[ours] = theirs
    return mapping


def _config(preset: Preset, etas: list[float] | None):
    from diffcolor.config import PRESETS

    config = PRESETS[preset.value]
    return replace(config, etas=tuple(etas)) if etas else config


@app.command()
def submit(
    manifest: Annotated[str, typer.Argument(help="Parquet file or folder, local or any fsspec URI (s3://...).")],
    output: Annotated[
        str | None, typer.Option(help="Output folder or URI. Default: <manifest>-colorized here.")
    ] = None,
    preset: PresetOption = Preset.balanced,
    base_model: BaseModelOption = "mini",
    judge: JudgeOption = "mini",
    column: ColumnOption = None,
    default_caption: DefaultCaption = None,
    device: DeviceOption = Device.auto,
    images_per_step: Annotated[
        int, typer.Option("--images-per-step", "-k", min=1, help="Images adapted together.")
    ] = 4,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes. Default: one per GPU, else one.")
    ] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(min=0, help="GPUs that each worker reserves.")] = None,
    cpus_per_worker: Annotated[int | None, typer.Option(min=1, help="CPUs that each worker reserves.")] = None,
    eta: EtaOption = None,
    max_pixels: Annotated[int, typer.Option(help="Larger images are refused before they are decoded.")] = 400_000_000,
    retry_failed: Annotated[bool, typer.Option(help="Run rows again that failed before.")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Ray dashboard URL (http://HEAD:8265) to run there; default: a Ray of its own here."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(help="Environment variable to forward to the cluster, whose users can read it: no secrets."),
    ] = None,
    run_id: Annotated[str, typer.Option(hidden=True)] = "",
    follow: Annotated[bool, typer.Option(help="With --address: show the job's output until it ends.")] = True,
    as_json: Json = False,
) -> None:
    """Colorize a manifest. Submitting again to the same output does only what is missing."""
    with _reported():
        columns = _columns(column)
        output = output or f"{Path(manifest.rstrip('/')).stem}-colorized"
        if address and address.startswith("http"):
            code = _submit_to_cluster(address, manifest, output, env or [], follow)
            raise typer.Exit(code)
        from pipelines.console import summary, watching
        from pipelines.run import JobRequest, run_job
        from pipelines.worker import JobSpec

        spec = JobSpec(
            output=output,
            base_model=base_model,
            judge=judge,
            config=_config(preset, eta),
            device=device.value,
            images_per_step=images_per_step,
            max_pixels=max_pixels,
        )
        request = JobRequest(
            manifest=manifest,
            spec=spec,
            columns=columns,
            default_caption=default_caption,
            address=address,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            cpus_per_worker=cpus_per_worker,
            retry_failed=retry_failed,
            run_id=run_id,
        )
        with watching(console) as watch:
            snapshot = run_job(request, watch)
    _say(f"{summary(snapshot, None)}; results in {output}")
    if as_json:
        _print_json(_status(output))
    raise typer.Exit(ROWS_FAILED if snapshot.failed else OK)


def _submit_to_cluster(address: str, manifest: str, output: str, env: list[str], follow: bool) -> int:
    """The same command line, run by a driver in the cluster; the exit code is read from the output store."""
    import os
    import uuid

    from pipelines.errors import JobError
    from pipelines.jobs import RayJob

    if missing := [name for name in env if name not in os.environ]:
        raise typer.BadParameter(f"not set here: {', '.join(missing)}", param_hint="--env")
    # On the cluster's machines a relative path would mean another place.
    place, run_id = _absolute(output), uuid.uuid4().hex
    arguments = ["submit", _absolute(manifest), "--output", place, "--address", "auto", "--run-id", run_id]
    given = iter(sys.argv[2:])
    for argument in given:
        name, equals, value = argument.partition("=")
        if name in ("--address", "--output", "--env", "--base-model", "--judge"):
            value = value if equals else next(given)
            if name in ("--base-model", "--judge"):
                arguments += [name, _absolute(value) if Path(value).is_dir() else value]
        elif argument != manifest and name not in ("--follow", "--no-follow", "--json"):
            arguments.append(argument)
    job = RayJob(address)
    job_id = job.submit(arguments, {name: os.environ[name] for name in env})
    _say(f"submitted {job_id} to {address}; see how far it is with: diffcolor-batch status {place}")
    if not follow:
        return OK
    try:
        for lines in job.follow():
            console.print(lines, end="", highlight=False, markup=False)
    except KeyboardInterrupt:
        _say(f"no longer following; the job goes on in the cluster as {job_id}")
        return OK
    from pipelines.ledger import Ledger
    from pipelines.store import Store

    ledger = Ledger(Store(place))
    # Ray's word for a job's state is not to be trusted; the output of an earlier submit is not this one's either.
    if not ledger.store.exists("job.json") or ledger.read_job().get("run_id") != run_id:
        code = job.exit_code()
        if code == USAGE:
            return USAGE
        raise JobError(f"the job ended before it began to work (exit code {code}); its lines above say why")
    found = ledger.status()
    if found["state"] != "finished":
        raise JobError(f"the job ended, the output says {found['state']}; submit again to go on")
    return ROWS_FAILED if found["failed"] else OK


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())


def _status(output: str) -> dict:
    from pipelines.ledger import Ledger
    from pipelines.store import Store

    try:
        return Ledger(Store(output)).status()
    except FileNotFoundError as error:
        _say(f"{output} holds no job.json: it is not an output of diffcolor-batch submit")
        raise typer.Exit(COULD_NOT_RUN) from error


@app.command()
def status(
    output: Annotated[str, typer.Argument(help="Output folder or URI of a submit.")], as_json: Json = False
) -> None:
    """How far a job is, from its output alone."""
    document = _status(output)
    if as_json:
        _print_json(document)
        return
    typer.echo(
        f"{document['state']}: {document['rows']} rows, {document['ok']} ok, {document['failed']} failed, "
        f"{document['skipped']} skipped, {document['pending']} pending"
    )
    from pipelines.console import worker_line

    for worker in document["workers"]:
        typer.echo(f"  {worker_line(worker)}")


@app.command()
def recolor(
    output: Annotated[str, typer.Argument(help="Output folder or URI of a submit.")],
    id: Annotated[str | None, typer.Option(help="The row to recolour.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Target prompt; repeatable.")] = None,
    manifest: Annotated[str | None, typer.Option(help="Parquet with id and target_prompts, instead of --id.")] = None,
    preset: Annotated[Preset | None, typer.Option(help="Default: the job's.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Default: the job's.")] = None,
    judge: Annotated[str | None, typer.Option(help="Default: the job's.")] = None,
    device: DeviceOption = Device.auto,
    eta: EtaOption = None,
    as_json: Json = False,
) -> None:
    """Give finished rows new colours by text. No training; the original image file is not needed."""
    if bool(manifest) == bool(id) or bool(id) != bool(prompt):
        raise typer.BadParameter("give --id with one --prompt or more, or --manifest alone")
    from dataclasses import asdict

    from diffcolor.errors import DiffColorError
    from manifests.read import read_recolor_requests
    from pipelines.errors import RecolorError
    from pipelines.recolor import Recolorer

    made, failed = [], False
    with _reported():
        requests = list(read_recolor_requests(manifest)) if manifest else [(id, tuple(prompt))]
        _status(output)
        config = _config(preset or Preset.balanced, eta) if preset or eta else None
        recolorer = Recolorer(output, config=config, device=device.value, base_model=base_model, judge=judge)
        for row_id, prompts in requests:
            try:
                made += [(row_id, one) for one in recolorer.recolor(row_id, prompts, again=config is not None)]
            except (RecolorError, DiffColorError) as error:
                _say(f"{row_id}: {error}")
                failed = True
    if as_json:
        _print_json([{"id": row_id, **asdict(one)} for row_id, one in made])
    else:
        for row_id, one in made:
            typer.echo(f"{row_id}: {one.prompt}: {output.rstrip('/')}/{one.image} (eta {one.eta:g})")
    raise typer.Exit(ROWS_FAILED if failed else OK)


@app.command()
def verify(
    output: Annotated[str, typer.Argument(help="Output folder or URI of a submit.")], as_json: Json = False
) -> None:
    """Read every output again: its hash, its size, and its luminance against the scan. Exits 3 on any difference."""
    from pipelines.verify import verify as verify_output

    _status(output)
    found = verify_output(output)
    if as_json:
        _print_json(found.to_json())
    else:
        typer.echo(
            f"{found.rows} rows, {found.pictures} pictures ({found.against_input} against their input file), "
            f"{found.luminance_mismatches} luminance mismatches, {len(found.differences)} differences"
            + (f"; {found.pending} rows have no result yet" if found.pending else "")
        )
        for difference in found.differences:
            typer.echo(f"  {difference.id}: {difference.file}: {difference.what}")
    raise typer.Exit(ROWS_FAILED if found.differences or found.luminance_mismatches else OK)


@app.command()
def models(as_json: Json = False) -> None:
    """The embedded models: their files, sizes and digests."""
    from diffcolor.base_model import embedded_folder, weights_digest

    document = []
    for part, use in (("mini", "base model"), ("judge", "CLIP judge")):
        folder = embedded_folder(part)
        digest, files = weights_digest(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        document.append(
            {"name": "mini", "use": use, "folder": str(folder), "bytes": size, "digest": digest, "files": files}
        )
    if as_json:
        _print_json(document)
        return
    for entry in document:
        typer.echo(f"{entry['name']} ({entry['use']}): {entry['bytes'] / 1e6:.1f} MB, digest {entry['digest'][:16]}")
        for name, sha in entry["files"].items():
            typer.echo(f"  {sha[:16]}  {name}")


@manifest_app.command("build")
def manifest_build(
    folder: Annotated[str, typer.Argument(help="Folder of images, any fsspec URI; subfolders too.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The manifest to write.")] = Path("manifest.parquet"),
    captions: Annotated[
        str | None, typer.Option(help="CSV with columns file, caption, and others of a manifest; lists as 'a|b'.")
    ] = None,
) -> None:
    """Make a manifest from a folder of images and a CSV of captions."""
    from manifests.build import build

    with _reported():
        built = build(folder, output, captions)
    typer.echo(f"{output}: {built.rows} rows")
    for row_id in built.uncaptioned:
        _say(f"  no caption: {row_id}")
    for file in built.unmatched:
        _say(f"  caption without an image: {file}")


@manifest_app.command("validate")
def manifest_validate(manifest: str, column: ColumnOption = None, default_caption: DefaultCaption = None) -> None:
    """Check every row; list every problem. Exits 2 if there is one."""
    from manifests.read import validated

    with _reported():
        count = validated(manifest, _columns(column), default_caption)
    typer.echo(f"{manifest}: {count} rows, no problems")


@manifest_app.command("show")
def manifest_show(
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

    with _reported():
        # A validator of its own: rows with problems are left out here, `validate` names them.
        rows = list(islice(read_rows(manifest, _columns(column), None, Validator(folder_of(manifest))), limit))
    if as_json:
        hidden = {"image_bytes"}
        _print_json([{key: value for key, value in asdict(row).items() if key not in hidden} for row in rows])
        return
    for row in rows:
        typer.echo(f"{row.id}\n  image    {row.image or 'image_bytes'}\n  caption  {row.caption}")
        for prompt in row.target_prompts:
            typer.echo(f"  target   {prompt}")


if __name__ == "__main__":
    app()
