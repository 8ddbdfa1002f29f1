"""`estimate` and `doctor` before a job, `evaluate` after it."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.terminal import (
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
    open_output,
    print_json,
    reported,
    say,
)

app = typer.Typer()


@app.command()
def estimate(
    manifest: Annotated[str, typer.Argument(help="The manifest to be submitted.")],
    preset: PresetOption = Preset.balanced,
    base_model: BaseModelOption = "mini",
    judge: JudgeOption = "mini",
    column: ColumnOption = None,
    default_caption: DefaultCaption = None,
    device: DeviceOption = Device.auto,
    images_per_step: Annotated[int, typer.Option("--images-per-step", "-k", min=1)] = 4,
    workers: Annotated[int, typer.Option(min=1, help="That the job will have.")] = 1,
    batches: Annotated[int, typer.Option(min=1, help="Batches of K images to measure; more, narrower.")] = 2,
    price: Annotated[float | None, typer.Option(min=0, help="Of a worker's hour, in any currency.")] = None,
    as_json: Json = False,
) -> None:
    """Time, worker hours, storage and cost of a job, from a few of its images run for real here."""
    from diffcolor.config import preset_for
    from manifests.read import read_rows, validated
    from pipelines.job import JobSpec
    from pipelines.operations.estimate import estimate as estimated

    with reported():
        rows = validated(manifest, columns(column), default_caption)
        wanted = min(rows, batches * images_per_step)
        every, sample = max(1, rows // wanted), []
        for number, row in enumerate(read_rows(manifest, columns(column), default_caption)):
            if number % every == 0 and len(sample) < wanted:
                sample.append(row)
        spec = JobSpec(
            output="",
            base_model=base_model,
            judge=judge,
            config=preset_for(preset.value, base_model),
            device=device.value,
            images_per_step=images_per_step,
        )
        locksteps = [sample[first : first + images_per_step] for first in range(0, len(sample), images_per_step)]
        say(f"running {len(sample)} of {rows} images in {len(locksteps)} batches ...")
        try:
            found = estimated(locksteps, spec, rows, workers, price)
        except ValueError as error:
            say(str(error))
            raise typer.Exit(USAGE) from error
    if as_json:
        print_json(found.to_json())
        return
    unit = "GPU hours" if found.device.startswith("cuda") else "worker hours (CPU)"
    typer.echo(f"measured on {found.device}, {found.batches} batches; in brackets the 90 % interval of the mean")
    typer.echo(f"  per image    {found.seconds_per_image.text(' s')}, {found.megabytes_per_image.text(' MB', 2)}")
    whole = f"{found.hours.text(' h', 2)} on {workers} workers, {found.worker_hours.text('', 2)} {unit}"
    typer.echo(f"  {rows} images  {whole}")
    typer.echo(f"  storage      {found.gigabytes.text(' GB', 3)}")
    if found.cost_per_1000:
        typer.echo(f"  cost         {found.cost_per_1000.text('', 2)} per 1,000 images")
    for kind, count in found.failed.items():
        say(f"  {count} of the {len(sample)} would not be colorized: {kind}; see `manifest validate --look`")
    if found.batches < 2:
        say("  one batch has no interval: give more with --batches")


@app.command()
def doctor(
    output: Annotated[str | None, typer.Argument(help="Output folder or URI to try, too.")] = None,
    base_model: BaseModelOption = "mini",
    judge: JudgeOption = "mini",
    as_json: Json = False,
) -> None:
    """Check this machine, the models' weights, and an output store's access and preconditions."""
    from pipelines.operations.doctor import BAD, examine

    findings = []
    for finding in examine(output, base_model, judge):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{finding.state:4}  {finding.what}: {finding.found}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    raise typer.Exit(UNAVAILABLE if any(finding.state == BAD for finding in findings) else 0)


@app.command()
def evaluate(
    output: Output,
    truth: Annotated[
        str,
        typer.Option(help="Folder of true pictures named by id; or Parquet: id, image, hint_color, _mask, _box."),
    ],
    variant: Annotated[int, typer.Option(min=0, help="Which of a row's prompts; 0 is stage 1's own picture.")] = 1,
    judge: Annotated[
        list[str] | None, typer.Option(help="CLIP models to ask: 'mini', an open_clip folder, MODEL:TAG. Repeatable.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="lpips, fid, kid: other networks' opinion, downloaded once. Repeatable.")
    ] = None,
    hub_folder: Annotated[
        Path | None, typer.Option(help="torch hub folder: its checkpoints/ holds the networks of --metric.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the tables in OUT/evaluation/.")] = "evaluation",
    device: DeviceOption = Device.auto,
    as_json: Json = False,
) -> None:
    """Compare pictures with the truth: CIEDE2000, a*b* error, colourfulness, PSNR, SSIM, LPIPS, hints, CLIP."""
    store = open_output(output)
    try:
        from pipelines.curation.evaluate.evaluate import clip_judge, markdown, rows_of, truths, write_tables
        from pipelines.curation.evaluate.evaluate import evaluate as evaluated
        from pipelines.curation.evaluate.perceptual import Metric, MetricUnavailableError, Perceptual
    except ImportError as error:
        say(f"{error}: evaluation needs the extra: pip install 'diffcolor-batch[evaluate]'")
        raise typer.Exit(USAGE) from error
    from diffcolor.base_model import load_judge, resolve_device

    with reported():
        where = resolve_device(device.value)
        names = {one: f"clip_{re.sub('[^A-Za-z0-9]+', '_', one.rstrip('/').rpartition('/')[2])}" for one in judge or []}
        if len(set(names.values())) < len(names):
            say(f"two judges would have one name: {', '.join(names.values())}; give them folders of different names")
            raise typer.Exit(USAGE)
        judges = {name: load_judge(one, where) for one, name in names.items()}
        judged = {name: clip_judge(judge) for name, judge in judges.items()}
        known = truths(truth)
        try:
            perceptual = Perceptual([Metric(one) for one in metric or []], judges, hub_folder, where)
        except (ValueError, MetricUnavailableError) as error:
            say(str(error))
            raise typer.Exit(USAGE if isinstance(error, ValueError) else UNAVAILABLE) from error
        found = evaluated(output, known, variant=variant, judged=judged, perceptual=perceptual)
        if not found.rows:
            say("; ".join(f"{row_id}: {reason}" for row_id, reason in list(found.missing.items())[:5]) or "no rows")
            raise typer.Exit(USAGE)
        keys = write_tables(store, found, name)
    if as_json:
        print_json({"summary": found.summary(), "crowd": found.crowd, "missing": found.missing, "rows": found.rows})
        return
    for line in rows_of(found):
        typer.echo(line)
    typer.echo(markdown(found))
    say(f"written to {output.rstrip('/')}/: {', '.join(keys)}")
