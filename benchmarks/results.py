"""The tables and pictures of docs/results.md, from what `ablation.py` left in its folder.

python benchmarks/results.py RUNS/DIGEST docs/results.md

Replaces what stands between `<!-- NAME -->` and `<!-- end -->` in the document; the words around it are ours.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

DRAWS = 4000
Rows = dict[str, dict]  # of one variant and part, by case
Figure = Callable[[list[dict]], float]


def read(runs: Path, name: str, part: str) -> Rows:
    """A variant's rows of a part ("photograph", "scene") by id; empty where it was not run."""
    file = runs / "figures" / f"{name}.parquet"
    rows = pq.read_table(file).to_pylist() if file.exists() else []
    return {row["id"]: row for row in rows if row["id"].startswith(part)}


def pooled_ratio(rows: list[dict]) -> float:
    """Summed a*b* error over that of the gray pictures."""
    return sum(row["ab_error"] for row in rows) / sum(row["ab_error"] / row["ab_ratio"] for row in rows)


def mean_of(name: str) -> Figure:
    """The mean of a column."""
    return lambda rows: float(np.mean([row[name] for row in rows]))


def closer(rows: list[dict]) -> float:
    """Share of the pictures nearer to the truth than gray is, in percent."""
    return 100 * float(np.mean([row["ab_ratio"] < 1 for row in rows]))


def vividness(rows: list[dict]) -> float:
    """Mean colourfulness over the truths' mean."""
    return mean_of("colorfulness")(rows) / mean_of("colorfulness_truth")(rows)


def taken(rows: list[dict]) -> float:
    """Share of the hinted objects that took their hue, in percent."""
    return 100 * mean_of("hint_taken")(rows)


def hue_error(rows: list[dict]) -> float:
    """Median over the objects."""
    return float(np.median([row["hint_hue_error"] for row in rows]))


PHOTOGRAPHS: dict[str, tuple[Figure, str]] = {
    "a*b* error / gray's": (pooled_ratio, ".3f"),
    "nearer than gray, %": (closer, ".0f"),
    "CIEDE2000": (mean_of("ciede2000"), ".2f"),
    "colourfulness / truth's": (vividness, ".2f"),
    "judge's margin": (mean_of("margin"), ".3f"),
}
SCENES: dict[str, tuple[Figure, str]] = {
    "hint taken, %": (taken, ".0f"),
    "hue error, median °": (hue_error, ".0f"),
    "bleed, a*b* units": (mean_of("bleed"), ".1f"),
    "a*b* error / gray's": (pooled_ratio, ".3f"),
    "judge's margin": (mean_of("margin"), ".3f"),
}


def bootstrap(rows: list[dict], figure: Figure, before: list[dict] | None = None) -> tuple[float, float, float]:
    """A figure (less that of `before`, the same cases in the same order) with its 95 % percentile interval."""

    def value(chosen: NDArray[np.int64]) -> float:
        found = figure([rows[i] for i in chosen])
        return found - figure([before[i] for i in chosen]) if before else found

    draws = np.random.default_rng(0).integers(0, len(rows), (DRAWS // 10, len(rows)))
    low, high = np.percentile([value(draw) for draw in draws], [2.5, 97.5])
    return value(np.arange(len(rows))), float(low), float(high)


def table(runs: Path, names: dict[str, str], part: str, reference: str | None = None) -> str:
    """Figures of variants (file name to what is printed) in Markdown; with a reference, the change against it."""
    columns = PHOTOGRAPHS if part == "photograph" else SCENES
    lines = [f"| | n | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    known = read(runs, reference, part) if reference else {}
    for name, label in names.items():
        found = read(runs, name, part)
        if not found:
            continue
        rows = list(found.values())
        cells = []
        for figure, form in columns.values():
            value, low, high = bootstrap(rows, figure)
            cells.append(f"{value:{form}} ({low:{form}} to {high:{form}})")
        lines.append(f"| {label} | {len(rows)} | {' | '.join(cells)} |")
        if known and name != reference and set(found) <= set(known):
            before = [known[one] for one in found]
            changes = []
            for figure, form in columns.values():
                value, low, high = bootstrap(rows, figure, before)
                sure = "**" if low > 0 or high < 0 else ""
                changes.append(f"{sure}{value:+{form}}{sure} ({low:+{form}} to {high:+{form}})")
            lines.append(f"| … against {names.get(reference, reference)} | | {' | '.join(changes)} |")
    return "\n".join(lines)


def ranked(runs: Path, name: str, part: str, key: str) -> list[str]:
    """Ids from best to worst."""
    rows = read(runs, name, part)
    return sorted(rows, key=lambda one: rows[one][key])


def sheet(
    runs: Path, ids: Sequence[str], columns: Sequence[str], truths: dict[str, NDArray], height: int
) -> Image.Image:
    """A row per case: the scan, the variants' pictures, the truth."""
    rows = []
    for one in ids:
        gray = Image.open(runs / "pictures" / "gray" / f"{one}.png")
        pictures = [gray, *(Image.open(runs / "pictures" / name / f"{one}.png") for name in columns)]
        pictures.append(Image.fromarray(truths[one]))
        rows.append([picture.resize((round(picture.width * height / picture.height), height)) for picture in pictures])
    width = max(sum(picture.width + 4 for picture in row) for row in rows)
    whole = Image.new("RGB", (width, len(rows) * (height + 4)), "white")
    for number, row in enumerate(rows):
        x = 0
        for picture in row:
            whole.paste(picture, (x, number * (height + 4)))
            x += picture.width + 4
    return whole


def fill(document: str, name: str, content: str) -> str:
    """Puts a table into its place.

    Raises:
        ValueError: the document has no such place.
    """
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(document):
        raise ValueError(f"no place for {name!r}")
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", document)


TABLES: dict[str, tuple[str, dict[str, str], str | None]] = {
    "parts, photographs": (
        "photograph",
        {
            "gray": "gray",
            "base": "base model alone (SDEdit)",
            "base-aligned": "… with alignment",
            "base-consistent": "… luminance-consistent",
            "base-consistent-aligned": "… both",
            "stage-1": "stage 1",
            "stage-1-no-alignment": "… without alignment",
            "stages-1-2": "stages 1 + 2",
            "stages-1-2-no-alignment": "… without alignment",
            "base-hinted": "base model, hinted",
            "stages-1-2-hinted": "stages 1 + 2, hinted",
        },
        None,
    ),
}
TABLES["parts, scenes"] = (
    "scene",
    TABLES["parts, photographs"][1]
    | {"base-other": "base model, another hue", "stages-1-2-other": "recoloured, another hue"},
    None,
)
for _part in ("photograph", "scene"):
    TABLES[f"stage 1, {_part}s"] = (
        _part,
        {
            "stage-1": "as shipped",
            "stage-1-noise-only": "noise loss only",
            "stage-1-no-negatives": "contrastive without negatives",
            **{f"stage-1-lambda-{value}": f"lambda {value}" for value in (0.05, 0.15, 0.5, 1.5)},
            **{f"stage-1-tau-{value}": f"tau {value}" for value in (0.02, 0.2)},
        },
        "stage-1",
    )
    TABLES[f"eta, {_part}s"] = (
        _part,
        {f"eta-{value}": f"eta {value}" for value in (0.5, 0.7, 0.9)}
        | {"stages-1-2-hinted": "eta 1.0"}
        | {f"eta-{value}": f"eta {value}" for value in (1.2, 1.4)},
        None,
    )
    TABLES[f"sampling, {_part}s"] = (
        _part,
        {"base-hinted": "as shipped"}
        | {f"base-strength-{value}": f"strength {value}" for value in (0.5, 0.65, 0.9, 1.0)}
        | {f"base-guidance-{value}": f"guidance {value}" for value in (1.0, 2.0, 5.0)}
        | {f"base-steps-{value}": f"{value} steps" for value in (10, 50)},
        "base-hinted",
    )


def main(runs: Path, document: Path) -> None:
    """Fills every table of the document."""
    text = document.read_text(encoding="utf-8")
    for name, (part, names, reference) in TABLES.items():
        text = fill(text, name, table(runs, names, part, reference))
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
