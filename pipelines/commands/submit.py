"""`submit`: colorize a manifest, here or in a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from diffcolor.config import MINI, NO_BASE, Precision, Preset
from pipelines.commands.dials import (
    ConfigOption,
    Dials,
    GuidanceOption,
    LearningRateOption,
    RankOption,
    StepsOption,
    StrengthOption,
)
from pipelines.commands.running import run_here, run_in_cluster
from pipelines.commands.terminal import (
    CLUSTER,
    PICTURES,
    RESUMING,
    WORKERS,
    AllowInput,
    AllowScheme,
    AssumeSrgbOption,
    BaseModelOption,
    ColumnOption,
    DefaultCaption,
    DefaultPage,
    DeviceOption,
    EtaOption,
    ImagesPerStep,
    Json,
    JudgeOption,
    LossDecoderOption,
    MaxPixelsOption,
    NegativeOption,
    PrecisionOption,
    PresetOption,
    StartOption,
    TonedOption,
    WholeSheetOption,
    columns,
    configured,
    images_together,
    reach_of,
    reported,
    say,
)
from pipelines.images.formats.table import OutputFormat
from pipelines.images.rules import MAX_PIXELS
from pipelines.job import (
    CHECKPOINT_SECONDS,
    GRACE_SECONDS,
    MAX_SHARD_ROWS,
    SHARD_ROWS,
    STALL_SECONDS,
    AccessCopy,
    Device,
    JobRequest,
    JobSpec,
    OnRunning,
    OutputOptions,
    failure_limit,
)
from pipelines.store.retry import Patience

app = typer.Typer()
_OUTPUTS, _PATIENCE = OutputOptions(), Patience()  # their defaults are the options'


def _failures(text: str | None) -> str | None:
    try:
        failure_limit(text, 1)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither a number nor a share such as 5%") from error
    return text


@app.command()
def submit(
    manifest: Annotated[str, typer.Argument(help="Parquet file or folder, local or any fsspec URI (s3://...).")],
    output: Annotated[
        str | None, typer.Option(help="Output folder or URI. Default: <manifest>-colorized in the current folder.")
    ] = None,
    column: ColumnOption = None,
    default_caption: DefaultCaption = None,
    page: DefaultPage = None,
    allow_input: AllowInput = None,
    allow_scheme: AllowScheme = None,
    negative: NegativeOption = False,
    whole_sheet: WholeSheetOption = False,
    as_json: Json = False,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
    format: Annotated[
        OutputFormat,
        typer.Option(
            help="File format of the outputs; all are lossless. input: the scan's own, TIFF for JPEG, PNG for BMP.",
            rich_help_panel=PICTURES,
        ),
    ] = _OUTPUTS.format,
    access_copy: Annotated[
        AccessCopy | None,
        typer.Option(help="Write a smaller, lossy copy of each output beside it.", rich_help_panel=PICTURES),
    ] = _OUTPUTS.access_copy,
    access_size: Annotated[
        int, typer.Option(min=64, help="Longest side of the access copies in pixels.", rich_help_panel=PICTURES)
    ] = _OUTPUTS.access_size,
    toned: TonedOption = _OUTPUTS.toned,
    assume_srgb: AssumeSrgbOption = _OUTPUTS.assume_srgb,
    mark: Annotated[
        bool, typer.Option(help="Label each output in its XMP metadata as AI-colorized.", rich_help_panel=PICTURES)
    ] = _OUTPUTS.mark,
    preset: PresetOption = Preset.balanced,
    base_model: BaseModelOption = MINI,
    judge: JudgeOption = MINI,
    loss_decoder: LossDecoderOption = None,
    start: StartOption = None,
    eta: EtaOption = None,
    config: ConfigOption = None,
    steps: StepsOption = None,
    learning_rate: LearningRateOption = None,
    rank: RankOption = None,
    strength: StrengthOption = None,
    guidance: GuidanceOption = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="The same bits on the same device at each run: one image at a time, slower kernels.",
            rich_help_panel=WORKERS,
        ),
    ] = False,
    images_per_step: ImagesPerStep = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes. Default: one per GPU, else one.", rich_help_panel=WORKERS),
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="GPUs that each worker reserves.", rich_help_panel=WORKERS)
    ] = None,
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, help="CPUs that each worker reserves.", rich_help_panel=WORKERS)
    ] = None,
    timeout_per_image: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds of training that an image may take before it fails.", rich_help_panel=WORKERS
        ),
    ] = None,
    stall: Annotated[
        float,
        typer.Option(
            min=1, help="Kill a worker that makes no progress for this many seconds.", rich_help_panel=WORKERS
        ),
    ] = STALL_SECONDS,
    retry_failed: Annotated[
        bool,
        typer.Option(
            help="Run rows again that failed, or whose files `verify` found damaged.", rich_help_panel=RESUMING
        ),
    ] = False,
    replan: Annotated[
        bool,
        typer.Option(
            "--replan",
            help="Make rows anew that have a result, where the manifest or the settings have changed.",
            rich_help_panel=RESUMING,
        ),
    ] = False,
    max_failures: Annotated[
        str | None,
        typer.Option(
            callback=_failures, help="N or P%: stop when more rows fail. Default: no limit.", rich_help_panel=RESUMING
        ),
    ] = None,
    budget_hours: Annotated[
        float | None,
        typer.Option(
            min=0, help="Stop, to be resumed, when this run has used so many worker hours.", rich_help_panel=RESUMING
        ),
    ] = None,
    on_end: Annotated[
        str | None,
        typer.Option(
            metavar="URL|COMMAND",
            help="Post how the run ended to a URL, or give it to a command, as JSON.",
            rich_help_panel=RESUMING,
        ),
    ] = None,
    checkpoint_every: Annotated[
        float, typer.Option(min=0, help="Seconds between saves of an image's training state.", rich_help_panel=RESUMING)
    ] = CHECKPOINT_SECONDS,
    on_running: Annotated[
        OnRunning, typer.Option(help="What to do when another run holds the output.", rich_help_panel=RESUMING)
    ] = OnRunning.refuse,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds that a stopped run may take to save its work.", rich_help_panel=RESUMING),
    ] = GRACE_SECONDS,
    store_patience: Annotated[
        float,
        typer.Option(min=0, help="Seconds to keep retrying a store that is unreachable.", rich_help_panel=RESUMING),
    ] = _PATIENCE.total,
    shard_rows: Annotated[
        int,
        typer.Option(min=1, max=MAX_SHARD_ROWS, help="Rows per file of results/.", rich_help_panel=RESUMING),
    ] = SHARD_ROWS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what there is to do, and exit.", rich_help_panel=RESUMING)
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray dashboard URL (http://HEAD:8265) of a cluster to run in. Default: a Ray of its own here.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="Environment variable to forward to the cluster, whose users can read it: no secrets.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option(help="With --address: show the job's output until it ends.", rich_help_panel=CLUSTER)
    ] = True,
) -> None:
    """Colorize a manifest. Submitting again to the same output does only what is missing."""
    if eta and base_model == NO_BASE:
        raise typer.BadParameter("--eta: without a base model there are no embeddings to interpolate")
    dials = Dials(
        file=config,
        steps=steps,
        learning_rate=learning_rate,
        rank=rank,
        strength=strength,
        guidance=guidance,
        etas=tuple(eta) if eta else None,
    )
    request = JobRequest(
        manifest=manifest,
        spec=JobSpec(
            output=output or f"{Path(manifest.rstrip('/')).stem}-colorized",
            base_model=base_model,
            judge=judge,
            config=dials.turn(configured(preset, base_model, start)),
            device=device,
            precision=precision,
            loss_decoder=loss_decoder,
            deterministic=deterministic,
            images_per_step=images_together(images_per_step),
            max_pixels=max_pixels,
            outputs=OutputOptions(
                format=format,
                access_copy=access_copy,
                access_size=access_size,
                toned=toned,
                assume_srgb=assume_srgb,
                mark=mark,
            ),
            checkpoint_seconds=checkpoint_every,
            timeout_seconds=timeout_per_image,
            patience=Patience(total=store_patience),
            reach=reach_of(manifest, allow_input, allow_scheme),
        ),
        columns=columns(column),
        default_caption=default_caption,
        default_page=page,
        negative=negative,
        whole_sheet=whole_sheet,
        address=address,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        retry_failed=retry_failed,
        replan=replan,
        max_failures=max_failures,
        on_running=on_running,
        grace_seconds=grace,
        stall_seconds=stall,
        shard_rows=shard_rows,
        dry_run=dry_run,
        budget_hours=budget_hours,
        on_end=on_end,
    )
    if preset is Preset.paper and base_model == MINI:
        say(
            "warning: --preset paper is the paper's 3,000 steps from a gray scan, made for Stable Diffusion; on mini "
            "it takes minutes per image and loses colour. balanced was chosen for mini."
        )
    if address and address.startswith("http"):
        with reported():
            raise typer.Exit(run_in_cluster(request, address, env or [], follow))
    raise typer.Exit(run_here(request, as_json))
