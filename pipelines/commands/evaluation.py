"""`evaluate`: a job's pictures compared with their true colours."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.exit_codes import ExitCode
from pipelines.commands.terminal import DeviceOption, Json, Output, open_output, print_json, reported, say
from pipelines.job import Device

app = typer.Typer()


@app.command()
def evaluate(
    output: Output,
    truth: Annotated[
        str,
        typer.Option(
            help="Folder of true pictures named by id, or Parquet with id, image, hint_color, hint_mask, hint_box."
        ),
    ],
    variant: Annotated[
        int, typer.Option(min=0, help="Which of a row's prompts, counted from 1; 0 is stage 1's own picture.")
    ] = 1,
    simulate_points: Annotated[
        int,
        typer.Option(
            min=0, max=200, metavar="K", help="Give each picture K true colours at points first, as a curator could."
        ),
    ] = 0,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="CLIP model to score with: 'mini', an open_clip folder, or MODEL:TAG. Repeatable."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="lpips, fid or kid; their networks are downloaded once. Repeatable.")
    ] = None,
    hub_folder: Annotated[
        Path | None, typer.Option(help="torch hub folder whose checkpoints/ holds the networks of --metric.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the tables in OUT/evaluation/. Default: evaluation, or evaluation-K-points."),
    ] = None,
    device: DeviceOption = Device.auto,
    as_json: Json = False,
) -> None:
    """Compare pictures with true colours: CIEDE2000, a*b* error, colourfulness, PSNR, SSIM, LPIPS, hints, CLIP."""
    store = open_output(output)
    try:
        from pipelines.curation.evaluate.evaluate import clip_judge
        from pipelines.curation.evaluate.evaluate import evaluate as evaluated
        from pipelines.curation.evaluate.perceptual import Metric, MetricUnavailableError, Perceptual
        from pipelines.curation.evaluate.tables import markdown, rows_of, write_tables
        from pipelines.curation.evaluate.truths import truths
    except ImportError as error:
        say(f"{error}: evaluation needs the extra: pip install 'diffcolor-batch[evaluate]'")
        raise typer.Exit(ExitCode.USAGE) from error
    from diffcolor.base_model import resolve_device
    from diffcolor.judge import load_judge

    with reported():
        where = resolve_device(device.value)
        names = {
            model: f"clip_{re.sub('[^A-Za-z0-9]+', '_', model.rstrip('/').rpartition('/')[2])}" for model in judge or []
        }
        if len(set(names.values())) < len(names):
            say(f"two judges would have one name: {', '.join(names.values())}; give them folders of different names")
            raise typer.Exit(ExitCode.USAGE)
        judges = {name: load_judge(one, where) for one, name in names.items()}
        judged = {name: clip_judge(judge) for name, judge in judges.items()}
        known = truths(truth)
        try:
            perceptual = Perceptual([Metric(one) for one in metric or []], judges, hub_folder, where)
        except (ValueError, MetricUnavailableError) as error:
            say(str(error))
            raise typer.Exit(ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.UNAVAILABLE) from error
        found = evaluated(output, known, variant=variant, points=simulate_points, judged=judged, perceptual=perceptual)
        if not found.rows:
            say("; ".join(f"{row_id}: {reason}" for row_id, reason in list(found.missing.items())[:5]) or "no rows")
            raise typer.Exit(ExitCode.USAGE)
        keys = write_tables(
            store, found, name or (f"evaluation-{simulate_points}-points" if simulate_points else "evaluation")
        )
    if as_json:
        document = {
            "simulated_points": found.points,
            "verdict": {**asdict(found.verdict()), "sentence": found.verdict().sentence()},
            "summary": found.summary(),
            "crowd": found.dataset_metrics,
        }
        print_json({**document, "missing": found.missing, "rows": found.rows})
        return
    for line in rows_of(found):
        typer.echo(line)
    typer.echo(markdown(found))
    say(f"written to {output.rstrip('/')}/: {', '.join(keys)}")
