"""`estimate`, `doctor`, `models`: what to know before a job."""

from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer

from diffcolor.config import MINI, Precision, Preset
from manifests.schema import Defaults
from pipelines.commands.dials import (
    ConfigOption,
    Dials,
    GuidanceOption,
    LearningRateOption,
    RankOption,
    StepsOption,
    StrengthOption,
)
from pipelines.commands.exit_codes import ExitCode
from pipelines.commands.terminal import (
    AllowInput,
    AllowScheme,
    BaseModelOption,
    ColumnOption,
    DefaultCaption,
    DefaultPage,
    DeviceOption,
    ImagesPerStep,
    Json,
    JudgeOption,
    LossDecoderOption,
    NegativeOption,
    PrecisionOption,
    PresetOption,
    StartOption,
    WholeSheetOption,
    columns,
    configured,
    images_together,
    print_json,
    reach_of,
    reported,
    say,
)
from pipelines.job import IMAGES_PER_STEP, Device, JobSpec

app = typer.Typer()


@app.command()
def estimate(
    manifest: Annotated[str, typer.Argument(help="The manifest to be submitted.")],
    preset: PresetOption = Preset.balanced,
    base_model: BaseModelOption = MINI,
    judge: JudgeOption = MINI,
    loss_decoder: LossDecoderOption = None,
    start: StartOption = None,
    config: ConfigOption = None,
    steps: StepsOption = None,
    learning_rate: LearningRateOption = None,
    rank: RankOption = None,
    strength: StrengthOption = None,
    guidance: GuidanceOption = None,
    column: ColumnOption = None,
    default_caption: DefaultCaption = None,
    page: DefaultPage = None,
    allow_input: AllowInput = None,
    allow_scheme: AllowScheme = None,
    negative: NegativeOption = False,
    whole_sheet: WholeSheetOption = False,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
    images_per_step: ImagesPerStep = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Number of workers the job will use.")] = 1,
    batches: Annotated[
        int, typer.Option(min=1, help="Measure so many times K images; more give narrower intervals.")
    ] = 2,
    price: Annotated[float | None, typer.Option(min=0, help="Price per worker-hour, in any currency.")] = None,
    as_json: Json = False,
) -> None:
    """Estimate a job's time, worker hours, storage and cost by running a few of its images here."""
    from manifests.read import read_rows, validated
    from pipelines.operations.estimate import estimate as estimated

    dials = Dials(
        file=config, steps=steps, learning_rate=learning_rate, rank=rank, strength=strength, guidance=guidance
    )
    reach = reach_of(manifest, allow_input, allow_scheme)
    defaults = Defaults(caption=default_caption, page=page, negative=negative, whole_sheet=whole_sheet, reach=reach)
    with reported():
        k = images_together(images_per_step)
        rows = validated(manifest, columns(column), defaults)
        wanted = min(rows, batches * (k or IMAGES_PER_STEP))
        every = max(1, rows // wanted)
        spread = islice(read_rows(manifest, columns(column), defaults), 0, None, every)
        sample = list(islice(spread, wanted))
        spec = JobSpec(
            output="",
            base_model=base_model,
            judge=judge,
            config=dials.turn(configured(preset, base_model, start)),
            device=device,
            precision=precision,
            loss_decoder=loss_decoder,
            images_per_step=k,
            reach=reach,
        )
        say(f"running {len(sample)} of {rows} images ...")
        try:
            found = estimated(sample, spec, rows, workers, price)
        except ValueError as error:
            say(str(error))
            raise typer.Exit(ExitCode.USAGE) from error
    if as_json:
        print_json(found.to_json())
        return
    unit = "GPU hours" if found.device.startswith("cuda") else "worker hours (CPU)"
    run = f"{found.images} images in {found.locksteps} locksteps"
    typer.echo(f"measured on {found.device}, {run}; 90 % interval of the mean in brackets")
    typer.echo(f"  per image    {found.seconds_per_image.text(' s')}, {found.megabytes_per_image:.2f} MB")
    parts = f"{found.model_seconds_per_image:.1f} s of models, {found.file_seconds_per_image:.1f} s of files"
    typer.echo(f"               {parts}: {found.file_cores + 1} cores per worker, or its models wait")
    whole = f"{found.hours.text(' h', 2)} on {workers} workers, {found.worker_hours.text('', 2)} {unit}"
    typer.echo(f"  {rows} images  {whole}")
    typer.echo(f"  storage      {found.gigabytes:.3f} GB")
    if found.cost_per_1000:
        typer.echo(f"  cost         {found.cost_per_1000.text('', 2)} per 1,000 images")
    for kind, count in found.failed.items():
        say(f"  {count} of the {len(sample)} cannot be colorized: {kind}; see `manifest validate --look`")
    if found.locksteps < 2:
        say("  a single lockstep gives no interval; measure more with --batches")


@app.command()
def doctor(
    output: Annotated[str | None, typer.Argument(help="Output folder or URI to check as well.")] = None,
    base_model: BaseModelOption = MINI,
    judge: JudgeOption = MINI,
    as_json: Json = False,
) -> None:
    """Check this machine, the model weights, and access to an output store."""
    from pipelines.operations.doctor import BAD, examine

    findings = []
    for finding in examine(output, base_model, judge):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{finding.state:4}  {finding.what}: {finding.found}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    raise typer.Exit(ExitCode.UNAVAILABLE if any(finding.state == BAD for finding in findings) else ExitCode.OK)


@app.command()
def models(as_json: Json = False) -> None:
    """List the embedded models: files, sizes and digests."""
    from diffcolor.identity import embedded_folder, weights_digest

    document = []
    for part, use in ((MINI, "base model"), ("judge", "CLIP judge"), ("coarse", "coarse colorizer")):
        folder = embedded_folder(part)
        digest, files = weights_digest(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        document.append(
            {"name": MINI, "use": use, "folder": str(folder), "bytes": size, "digest": digest, "files": files}
        )
        if not as_json:
            typer.echo(f"{MINI} ({use}): {size / 1e6:.1f} MB, digest {digest[:16]}")
            for name, sha in files.items():
                typer.echo(f"  {sha[:16]}  {name}")
    if as_json:
        print_json(document)
