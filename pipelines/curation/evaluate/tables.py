"""Evaluations as files and as text."""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.curation.evaluate.evaluate import Evaluation
from pipelines.curation.evaluate.verdict import OURS, Verdict
from pipelines.store.store import Store

FOLDER = "evaluation"
LOWER_IS_BETTER = {"ciede2000", "ciede2000_p95", "ab_error", "ab_ratio", "hint_hue_error", "bleed", "lpips"}


def write_tables(store: Store, evaluation: Evaluation, name: str) -> list[str]:
    """Writes `evaluation/<name>.parquet` with a row per picture, and `.md` and `.json` with the summary.

    Returns:
        The keys of the files.
    """
    buffer = io.BytesIO()
    columns = dict.fromkeys(key for row in evaluation.rows for key in row)
    table = pa.Table.from_pylist([{key: row.get(key) for key in columns} for row in evaluation.rows])
    pq.write_table(table, buffer)
    names = ("mean", "low", "high", "pictures")
    summary = {key: dict(zip(names, value, strict=True)) for key, value in evaluation.summary().items()}
    pooled = {"verdict": {**asdict(evaluation.verdict()), "sentence": evaluation.verdict().sentence()}}
    document = {
        "simulated_points": evaluation.points,
        **pooled,
        "summary": summary,
        "crowd": evaluation.dataset_metrics,
        "missing": evaluation.missing,
    }
    contents = {
        f"{FOLDER}/{name}.parquet": buffer.getvalue(),
        f"{FOLDER}/{name}.md": markdown(evaluation).encode(),
        f"{FOLDER}/{name}.json": json.dumps(document, indent=1).encode(),
    }
    for key, content in contents.items():
        store.write(key, content)
    return list(contents)


def _table(evaluation: Evaluation) -> list[tuple[str, str, str, str]]:
    """Name, mean, interval and number of pictures of each figure, as text; those of all pictures together last."""
    lines = []
    for name, (mean, low, high, count) in evaluation.summary().items():
        better = " (lower is better)" if name in LOWER_IS_BETTER else ""
        lines.append((f"{name}{better}", f"{mean:.3f}", f"{low:.3f} to {high:.3f}", str(count)))
    for name, value in evaluation.dataset_metrics.items():
        is_series = name.startswith("series")
        better, pictures = ("", "") if is_series else (" (lower is better)", str(len(evaluation.rows)))
        lines.append((f"{name}{better}", f"{value:.4g}", "", pictures))
    return lines


def markdown(evaluation: Evaluation) -> str:
    """What the pictures are worth together, and the summary as a table."""
    lines = [*_pooled(evaluation.verdict()), ""]
    if evaluation.points:
        lines = [
            f"**With {evaluation.points} true colours at points of each picture: not the job's own pictures.**",
            "",
            *lines,
        ]
    lines += ["| figure | mean | 95 % interval | pictures |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _table(evaluation)]
    lines += ["", *(f"- not compared: {row_id}: {reason}" for row_id, reason in evaluation.missing.items())]
    return "\n".join(lines).rstrip() + "\n"


_LABELS = {
    OURS: "**these pictures**",
    "gray": "floor: gray",
    "tint": "floor: one tint",
    "table": "floor: a table of gray values",
    "own_tint": "oracle: each picture's own mean tint",
    "truth_2x2": "oracle: the truth in 2 x 2 cells",
    "truth_4x4": "oracle: the truth in 4 x 4 cells",
    "truth_8x8": "oracle: the truth in 8 x 8 cells",
}


def _pooled(verdict: Verdict) -> list[str]:
    lines = [verdict.sentence(), "", "| what | a*b* error / gray's | colourfulness / truth's |", "|---|---|---|"]
    lines += [f"| {_LABELS[one.name]} | {one.error.text()} | {one.colorfulness.text('.2f')} |" for one in verdict.lines]
    hue = f"hue within 35 degrees of the truth's, where it has one: {verdict.hue_agreement.text('.2f')}"
    return [*lines, "", f"{hue}; nearer to the truth than gray: {verdict.nearer:.0%} of {verdict.pictures}"]


def rows_of(evaluation: Evaluation) -> Iterator[str]:
    """A line per picture for the terminal, the worst last."""
    for row in sorted(evaluation.rows, key=lambda row: row["ab_ratio"]):
        colourfulness = f"{row['colorfulness']:.0f} (truth {row['colorfulness_truth']:.0f})"
        figures = f"a*b* ratio {row['ab_ratio']:.2f}, CIEDE2000 {row['ciede2000']:.1f}"
        yield f"{row['id']}: {figures}, colourfulness {colourfulness}"
