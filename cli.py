"""`diffcolor-batch`: parse, call one function of `pipelines` or `manifests`, print, exit code."""

import sys
import time
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.curation import app as curation_app
from pipelines.commands.manifest import app as manifest_app
from pipelines.commands.planning import app as planning_app
from pipelines.commands.runs import app as runs_app
from pipelines.commands.terminal import (
    EXIT_CODES,
    IN_USE,
    INTERRUPTED,
    OK,
    ROWS_FAILED,
    STOPPED,
    UNAVAILABLE,
    USAGE,
    BaseModelOption,
    ColumnOption,
    DefaultCaption,
    Device,
    DeviceOption,
    Json,
    JudgeOption,
    Output,
    Preset,
    PresetOption,
    columns,
    console,
    exit_code,
    open_output,
    print_json,
    reported,
    say,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Colorize archives of gray photographs by text (DiffColor). The scan's luminance is kept exactly.",
    epilog=EXIT_CODES,
)
app.add_typer(manifest_app, name="manifest")
app.add_typer(runs_app)
app.add_typer(curation_app)
app.add_typer(planning_app)


class Format(StrEnum):
    input = "input"
    tiff = "tiff"
    png = "png"
    jp2 = "jp2"
    webp = "webp"


class AccessCopy(StrEnum):
    jpeg = "jpeg"


class Toned(StrEnum):
    reject = "reject"
    desaturate = "desaturate"


class OnRunning(StrEnum):
    refuse = "refuse"
    wait = "wait"
    attach = "attach"


EtaOption = Annotated[
    list[float] | None,
    typer.Option("--eta", help="Interpolation weight(s) to try instead of the preset's. Repeatable."),
]


def _config(preset: Preset, base_model: str, etas: list[float] | None):
    from diffcolor.config import preset_for

    config = preset_for(preset.value, base_model)
    return replace(config, etas=tuple(etas)) if etas else config


def _failures(text: str | None) -> str | None:
    from pipelines.job import failure_limit

    try:
        failure_limit(text, 1)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither a number nor a share such as 5%") from error
    return text


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
    format: Annotated[
        Format, typer.Option(help="Of the outputs, all lossless. input: the scan's own; TIFF for JPEG, PNG for BMP.")
    ] = Format.input,
    access_copy: Annotated[
        AccessCopy | None, typer.Option(help="Write a smaller, lossy copy of each output beside it.")
    ] = None,
    access_size: Annotated[int, typer.Option(min=64, help="Longest side of the access copies in pixels.")] = 4000,
    toned: Annotated[Toned, typer.Option(help="What to do with sepia and other toned scans.")] = Toned.reject,
    assume_srgb: Annotated[
        bool, typer.Option("--assume-srgb", help="Accept scans whose ICC profile is broken or not a gray one.")
    ] = False,
    mark: Annotated[bool, typer.Option(help="Write into each picture's XMP that its colours are machine-made.")] = True,
    retry_failed: Annotated[
        bool, typer.Option(help="Run rows again that failed before, or whose files `verify` found damaged.")
    ] = False,
    max_failures: Annotated[
        str | None, typer.Option(callback=_failures, help="N or P%: stop when more rows fail. Default: no limit.")
    ] = None,
    timeout_per_image: Annotated[
        float | None, typer.Option(min=0, help="Seconds of training that an image may take before it fails.")
    ] = None,
    checkpoint_every: Annotated[
        float, typer.Option(min=0, help="Seconds between saves of an image's training state.")
    ] = 60.0,
    stall: Annotated[float, typer.Option(min=1, help="Seconds without a step after which a worker is killed.")] = 600.0,
    on_running: Annotated[
        OnRunning, typer.Option(help="When another run holds the output: refuse, wait, or attach to it.")
    ] = OnRunning.refuse,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that a stopped run may take to save its work.")] = 60.0,
    store_patience: Annotated[float, typer.Option(min=0, help="Seconds to wait for a store that is away.")] = 600.0,
    shard_rows: Annotated[int, typer.Option(min=1, max=10_000, help="Rows of one file of results/.")] = 1000,
    dry_run: Annotated[bool, typer.Option(help="Say what is to be done, and end.")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Ray dashboard URL (http://HEAD:8265) to run there; default: a Ray of its own here."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(help="Environment variable to forward to the cluster, whose users can read it: no secrets."),
    ] = None,
    run: Annotated[str | None, typer.Option(hidden=True)] = None,
    follow: Annotated[bool, typer.Option(help="With --address: show the job's output until it ends.")] = True,
    as_json: Json = False,
) -> None:
    """Colorize a manifest. Submitting again to the same output does only what is missing."""
    from pipelines.errors import OutputInUseError
    from pipelines.job import JobRequest, JobSpec, OutputOptions, new_run_id
    from pipelines.store.retry import Patience

    output = output or f"{Path(manifest.rstrip('/')).stem}-colorized"
    if address and address.startswith("http"):
        with reported():
            raise typer.Exit(_submit_to_cluster(address, manifest, output, env or [], follow, grace))
    spec = JobSpec(
        output=output,
        base_model=base_model,
        judge=judge,
        config=_config(preset, base_model, eta),
        device=device.value,
        images_per_step=images_per_step,
        max_pixels=max_pixels,
        outputs=OutputOptions(
            format=format.value,
            access_copy=access_copy and access_copy.value,
            access_size=access_size,
            toned=toned.value,
            assume_srgb=assume_srgb,
            mark=mark,
        ),
        checkpoint_seconds=checkpoint_every,
        timeout_seconds=timeout_per_image,
        patience=Patience(total=store_patience),
        run=run or new_run_id(),
    )
    request = JobRequest(
        manifest=manifest,
        spec=spec,
        columns=columns(column),
        default_caption=default_caption,
        address=address,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        retry_failed=retry_failed,
        max_failures=max_failures,
        on_running=on_running.value,
        grace_seconds=grace,
        stall_seconds=stall,
        shard_rows=shard_rows,
        dry_run=dry_run,
    )
    with reported():
        from pipelines.commands.console import summary, watching
        from pipelines.curation.report.report import refresh_report
        from pipelines.driver.run import run_job

        try:
            with watching(console) as watch:
                snapshot = run_job(request, watch, say, refresh_report)
        except OutputInUseError:
            if on_running is not OnRunning.attach:
                raise
            raise typer.Exit(_attach(output, as_json)) from None
    if dry_run:
        left = snapshot.rows - snapshot.done
        say(f"{summary(snapshot, None)} here or in an earlier plan; {left} to do, at most: known fits are only sampled")
        raise typer.Exit(OK)
    what = {"stopped": "stopped, submit again to go on; ", "too_many_failures": "too many failures; "}
    imported = f", {snapshot.imported} of them from an earlier plan" if snapshot.imported else ""
    say(f"{summary(snapshot, None)}{imported}; {what.get(snapshot.state, '')}results in {output}")
    if as_json:
        from pipelines.operations.status import status as status_of

        print_json(status_of(open_output(output)))
    raise typer.Exit(exit_code(snapshot.state, snapshot.failed))


def _submit_to_cluster(address: str, manifest: str, output: str, env: list[str], follow: bool, grace: float) -> int:
    """The same command line, run by a driver in the cluster; the exit code is read from the output store."""
    import os

    from pipelines.driver.ray_job import EndedEarlyError, RayJob, absolute_path, cluster_arguments, end_of_run
    from pipelines.job import new_run_id
    from pipelines.store.store import Store

    if missing := [name for name in env if name not in os.environ]:
        raise typer.BadParameter(f"not set here: {', '.join(missing)}", param_hint="--env")
    place, run = absolute_path(output), new_run_id()
    job = RayJob(address)
    arguments = cluster_arguments(sys.argv[2:], manifest, output, run)
    job_id = job.submit(arguments, {name: os.environ[name] for name in env}, grace)
    say(f"submitted {job_id} to {address}; see how far it is with: diffcolor-batch status {place}")
    if not follow:
        return OK
    try:
        with suppress(RuntimeError):  # the log stream broke: the store tells how it goes on
            for lines in job.follow():
                console.print(lines, end="", highlight=False, markup=False)
        return exit_code(*end_of_run(Store(place), run, job))
    except KeyboardInterrupt:
        say(f"no longer following; the job goes on in the cluster as {job_id}")
        return INTERRUPTED
    except EndedEarlyError as error:
        if error.code in (OK, USAGE, ROWS_FAILED, STOPPED, UNAVAILABLE, IN_USE):  # it was refused, or attached
            return error.code
        raise


def _attach(output: str, as_json: bool) -> int:
    """Follows the run that holds the output; its exit code."""
    from pipelines.commands.console import status_line
    from pipelines.ledger.ledger import JOB_KEY
    from pipelines.operations.status import status as status_of
    from pipelines.store.lease import look
    from pipelines.store.store import Store

    with reported():
        starting = Store(output).hurried()
        while not starting.exists(JOB_KEY) and (held := look(starting)) and held.is_alive:
            time.sleep(2.0)
    store, shown = open_output(output), ""
    with reported():
        document = status_of(store)
        say(f"attached to run {document['run']} on {document['host']}")
        while document["state"] == "running":
            if (line := status_line(document)) != shown:
                say(line)
                shown = line
            time.sleep(5.0)
            document = status_of(store)
    say(status_line(document))
    if as_json:
        print_json(document)
    return exit_code(document["state"], document["failed"])


@app.command()
def recolor(
    output: Output,
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
    open_output(output)
    from dataclasses import asdict

    from manifests.read import read_recolor_requests
    from pipelines.curation.recolor import Recolorer

    made, failed = [], False
    with reported():
        requests = read_recolor_requests(manifest) if manifest else [(id, tuple(prompt))]
        recolorer = Recolorer(
            output,
            preset=preset and preset.value,
            etas=eta,
            device=device.value,
            base_model=base_model,
            judge=judge,
        )
        for row_id, outcome in recolorer.recolor_all(requests, again=bool(preset or eta)):
            if isinstance(outcome, Exception):
                say(f"{row_id}: {outcome}")
                failed = True
            else:
                made += [(row_id, one) for one in outcome]
    if as_json:
        print_json([{"id": row_id, **asdict(one)} for row_id, one in made])
    else:
        for row_id, one in made:
            typer.echo(f"{row_id}: {one.prompt}: {output.rstrip('/')}/{one.image} (eta {one.eta:g})")
    raise typer.Exit(ROWS_FAILED if failed else OK)


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
        print_json(document)
        return
    for entry in document:
        typer.echo(f"{entry['name']} ({entry['use']}): {entry['bytes'] / 1e6:.1f} MB, digest {entry['digest'][:16]}")
        for name, sha in entry["files"].items():
            typer.echo(f"  {sha[:16]}  {name}")


if __name__ == "__main__":
    app()
