"""The tables and pictures of docs/results.md, from what `ablation.py` left in its folder.

python -m benchmarks.results RUNS/DIGEST docs/results.md

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

from diffcolor.colorize import STRAY_COLOR_WEIGHT
from pipelines.curation.evaluate.figures import spread

DRAWS = 1000
ENOUGH = 12  # pictures, for an interval to say whether a change is sure
Rows = dict[str, dict]  # of one variant and part, by case
Figure = Callable[[list[dict]], float]


def read(runs: Path, name: str, part: str) -> Rows:
    """A variant's (or one of PICKED's) rows of a part ("photograph", "scene") by id; empty where it was not run."""
    if name in PICKED:
        return {row["id"]: row for row in picked(runs, PICKED[name], shipped_score, part)}
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
    "… more than the truth's": (lambda rows: mean_of("bleed")(rows) - mean_of("bleed_truth")(rows), "+.1f"),
    "a*b* error / gray's": (pooled_ratio, ".3f"),
    "judge's margin": (mean_of("margin"), ".3f"),
}


TRAINING: dict[str, tuple[Figure, str]] = {"training, s": (mean_of("seconds"), ".1f")}


def bootstrap(rows: list[dict], figure: Figure, before: list[dict] | None = None) -> tuple[float, float, float]:
    """A figure (less that of `before`, the same cases in the same order) with its 95 % percentile interval.

    Drawn are titles and nouns, not pictures: those of one are alike.
    """

    def value(chosen: NDArray[np.int64]) -> float:
        found = figure([rows[i] for i in chosen])
        return found - figure([before[i] for i in chosen]) if before else found

    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row["group"], []).append(number)
    members = [np.array(group) for group in groups.values()]
    draws = np.random.default_rng(0).integers(0, len(members), (DRAWS, len(members)))
    low, high = np.percentile([value(np.concatenate([members[i] for i in draw])) for draw in draws], [2.5, 97.5])
    return value(np.arange(len(rows))), float(low), float(high)


def table(runs: Path, names: dict[str, str], part: str, reference: str | None = None) -> str:
    """Figures of variants (file name to what is printed) in Markdown.

    With a reference, the change against it on the cases of both, and before other cases its own figures on these.
    """
    columns = (PHOTOGRAPHS if part == "photograph" else SCENES) | (TRAINING if names is PRESETS else {})
    lines = [f"| | n | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]

    def line(label: str, rows: Rows) -> str:
        cells = []
        for figure, form in columns.values():
            value, low, high = bootstrap(list(rows.values()), figure)
            cells.append(f"{value:{form}} ({low:{form}} to {high:{form}})")
        return f"| {label} | {len(rows)} | {' | '.join(cells)} |"

    known, shown = read(runs, reference, part) if reference else {}, set()
    for name, label in names.items():
        found = read(runs, name, part)
        if not found or name == reference:
            continue
        if not known:
            lines.append(line(label, found))
            continue
        found = {one: row for one, row in found.items() if one in known}
        before = {one: known[one] for one in found}
        if set(found) != shown:
            lines.append(line(f"*{names[reference]}*", before))
            shown = set(found)
        lines.append(line(label, found))
        changes = []
        for figure, form in columns.values():
            value, low, high = bootstrap(list(found.values()), figure, list(before.values()))
            sure, signed = "**" if (low > 0 or high < 0) and len(found) >= ENOUGH else "", f"+{form.lstrip('+')}"
            changes.append(f"{sure}{value:{signed}}{sure} ({low:{signed}} to {high:{signed}})")
        lines.append(f"| … the change | | {' | '.join(changes)} |")
    return "\n".join(lines)


def sheet(runs: Path, part: str) -> Image.Image:
    """Three rows each of the best, the median and the worst of `RANKED`'s pictures; a column for each of `SHOWN`."""
    rows = read(runs, RANKED[part], part)
    ids = sorted(rows, key=lambda one: rows[one]["ab_ratio"])
    middle = len(ids) // 2
    whole = []
    for one in [*ids[:3], *ids[middle - 1 : middle + 2], *ids[-3:]]:
        pictures = [Image.open(runs / "pictures" / name / f"{one}.png") for name in SHOWN]
        smaller = min(TILE[0] / pictures[0].width, TILE[1] / pictures[0].height)
        size = tuple(round(side * smaller) for side in pictures[0].size)
        row = Image.new("RGB", (len(SHOWN) * (TILE[0] + 4), TILE[1] + 4), "white")
        for number, picture in enumerate(pictures):
            row.paste(
                picture.resize(size), (number * (TILE[0] + 4) + (TILE[0] - size[0]) // 2, (TILE[1] - size[1]) // 2)
            )
        whole.append(np.asarray(row))
    return Image.fromarray(np.concatenate(whole))


def fill(document: str, name: str, content: str) -> str:
    """Puts a table into its place.

    Raises:
        ValueError: the document has no such place.
    """
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(document):
        raise ValueError(f"no place for {name!r}")
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", document)


# The ladders of `balanced`: of each case's pictures the one that a job would keep.
PICKED = {
    "picked": ["stages-1-2", "stages-1-2-eta-1.2"],
    "picked-hinted": ["stages-1-2-hinted", "eta-1.2"],
    "picked-other": ["stages-1-2-other", "stages-1-2-other-eta-1.2"],
}
PARTS = {
    "gray": "gray",
    "base": "base model alone (SDEdit)",
    "base-aligned": "… with alignment",
    "base-consistent": "… luminance-consistent",
    "base-consistent-aligned": "… both",
    "stage-1-no-alignment": "stage 1, luminance-consistent",
    "stage-1": "… and aligned",
    "stages-1-2-no-alignment": "stages 1 + 2, luminance-consistent, eta 1.0",
    "stages-1-2": "… and aligned",
    "picked": "… and picked of eta 1.0 and 1.2: as shipped",
    "base-hinted": "base model, both, hinted",
    "stages-1-2-hinted": "stages 1 + 2, both, hinted, eta 1.0",
    "picked-hinted": "… and picked of eta 1.0 and 1.2: as shipped",
}
STAGE_1 = {
    "base-consistent-aligned": "base model",
    "stage-1-target-prior": "60 steps, else as shipped",
    "stage-1-noise-only": "noise loss only, on gray",
    "stage-1-no-negatives": "contrastive without negatives",
    "stage-1-target-gray": "noise loss on gray (the paper's)",
    "stage-1-timesteps-all": "all timesteps (the paper's)",
    **{f"stage-1-lambda-{value}": f"lambda {value}" for value in (0.05, 0.5, 1.5)},
    **{f"stage-1-tau-{value}": f"tau {value}" for value in (0.02, 0.2)},
    "stage-1-rate-0.001": "learning rate 0.001",
}
STAGE_2 = {
    "base-hinted": "base model, hinted",
    "in-context-steps-10": "60 + 30 + 10 steps",
    "in-context-steps-40": "60 + 30 + 40 steps",
    "in-context-rate-0.0001": "60 + 30 + 40 steps, the last at rate 0.0001 (the paper's)",
}
ETAS = (
    {f"eta-{value}": f"eta {value}" for value in (0.5, 0.7, 0.9)}
    | {"stages-1-2-hinted": "eta 1.0"}
    | {f"eta-{value}": f"eta {value}" for value in (1.2, 1.4)}
)
SAMPLING = (
    {"base-hinted": "as shipped: strength 0.2, guidance 2, 20 steps"}
    | {f"base-strength-{value}": f"strength {value}" for value in (0.1, 0.35, 0.5, 0.8, 1.0)}
    | {f"base-guidance-{value}": f"guidance {value}" for value in (1.0, 1.5, 3.0, 5.0)}
    | {f"base-steps-{value}": f"{value} steps" for value in (10, 40)}
    | {"base-vae-features": "alignment by the VAE's features"}
    | {"base-upsampling-bicubic": "colours enlarged bicubically, not along the scan's edges"}
)
ALIGNMENT = {
    "alignment-none": "no alignment",
    "alignment-shipped": "as shipped: patches of 7 cells, within 4, the nearer preferred",
    "alignment-half-warp": "half of each displacement",
    "alignment-vae-features": "features of the VAE's encoder in place of patches",
    "alignment-patch-3": "patches of 3 cells",
    "alignment-patch-11": "patches of 11 cells",
    "alignment-reach-2": "within 2 cells",
    "alignment-reach-8": "within 8 cells",
    "alignment-no-nearness": "the nearer not preferred",
    "alignment-none-consistent": "no alignment, luminance-consistent",
    "base-strength-0.5": "as shipped, luminance-consistent",
}
PRESETS = {
    "stages-1-2-hinted": "balanced",
    "preset-draft": "draft",
    "preset-paper": "paper",
    **{f"k-{k}": f"balanced, K = {k}" for k in (1, 4, 8)},
}
RECOLORED = {
    "base-other": "base model",
    "stages-1-2-other": "stages 1 + 2, eta 1.0",
    "stages-1-2-other-eta-1.2": "stages 1 + 2, eta 1.2",
    "picked-other": "picked of the two: as shipped",
}
TABLES: dict[str, tuple[str, dict[str, str], str | None]] = {}  # part, variants, the one they are compared with
for _part in ("photograph", "scene"):
    TABLES |= {
        f"parts, {_part}s": (_part, PARTS, None),
        f"stage 1, {_part}s": (_part, STAGE_1, "base-consistent-aligned"),
        f"stage 2, {_part}s": (_part, STAGE_2, "base-hinted"),
        f"eta, {_part}s": (_part, ETAS, None),
        f"sampling, {_part}s": (_part, SAMPLING, "base-hinted"),
        f"alignment, {_part}s": (_part, ALIGNMENT, "alignment-none"),
        f"presets, {_part}s": (_part, PRESETS, "stages-1-2-hinted"),
    }


def picked(runs: Path, names: Sequence[str], score: Callable[[dict], float], part: str) -> list[dict]:
    """Of each case's pictures, one per variant, the one with the highest score."""
    ladders = [read(runs, name, part) for name in names]
    shared = set.intersection(*(set(ladder) for ladder in ladders))
    return [max((ladder[one] for ladder in ladders), key=score) for one in sorted(shared)]


def shipped_score(row: dict) -> float:
    """As `Colored.score`."""
    return row["margin"] - STRAY_COLOR_WEIGHT * row["stray_color"]


RULES: dict[str, Callable[[dict], float]] = {
    "the judge's margin": lambda row: row["margin"],
    "the least stray colour": lambda row: -row["stray_color"],
    f"margin less {STRAY_COLOR_WEIGHT:g} x stray colour, as shipped": shipped_score,
    "margin less stray colour": lambda row: row["margin"] - row["stray_color"],
    "the truth's advice (the nearest)": lambda row: -row["ab_error"],
}


def picks(runs: Path, part: str) -> str:
    """What rules make of the eta ladder."""
    columns = PHOTOGRAPHS if part == "photograph" else SCENES
    lines = [f"| etas | picked by | n | {' | '.join(columns)} |", "|---" * (len(columns) + 3) + "|"]
    for ladder, names in {"balanced's": PICKED["picked-hinted"], "all six": list(ETAS)}.items():
        for label, score in RULES.items():
            rows = picked(runs, names, score, part)
            if rows:
                cells = [f"{figure(rows):{form}}" for figure, form in columns.values()]
                lines.append(f"| {ladder} | {label} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def series(runs: Path, names: dict[str, str]) -> str:
    """How far pictures of one title are apart in mean colour."""
    lines = ["| | series | spread, a*b* units | spread of the truths |", "|---|---|---|---|"]
    for name, label in names.items():
        groups: dict[str, list[dict]] = {}
        for row in read(runs, name, "photograph").values():
            groups.setdefault(row["group"], []).append(row)
        several = [rows for rows in groups.values() if len(rows) > 1]
        if several:
            apart = [
                np.mean([spread(np.array([[row[f"mean_{x}{w}"] for x in "ab"] for row in rows])) for rows in several])
                for w in ("", "_truth")
            ]
            lines.append(f"| {label} | {len(several)} | {apart[0]:.1f} | {apart[1]:.1f} |")
    return "\n".join(lines)


def recolored(runs: Path) -> str:
    """Scenes asked for in another hue: whether it is taken, and what becomes of the ground."""
    columns = {name: SCENES[name] for name in ("hint taken, %", "hue error, median °")}
    columns["change of the ground, a*b* units"] = (mean_of("ground_change"), ".1f")
    lines = [f"| | n | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, label in RECOLORED.items():
        if rows := list(read(runs, name, "scene").values()):
            cells = [
                "{:{form}} ({:{form}} to {:{form}})".format(*bootstrap(rows, figure), form=form)
                for figure, form in columns.values()
            ]
            lines.append(f"| {label} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


RANKED = {"photograph": "stages-1-2", "scene": "stages-1-2-hinted"}
SHOWN = ("gray", "base-consistent-aligned", "stages-1-2", "stages-1-2-hinted", "truth")
TILE = (150, 112)  # width, height
SERIES = {
    "base-consistent-aligned": "base model, a seed for each picture",
    "base-shared-seed": "base model, one seed for a series",
}


def run_for() -> set[str]:
    """The variants that the document needs."""
    shown = {name for _, names, _ in TABLES.values() for name in names} | set(RECOLORED) | set(SERIES)
    return (shown - set(PICKED)).union(*PICKED.values())


def main(runs: Path, document: Path) -> None:
    """Fills every table of the document."""
    text = document.read_text(encoding="utf-8")
    for name, (part, names, reference) in TABLES.items():
        text = fill(text, name, table(runs, names, part, reference))
    for part in ("photograph", "scene"):
        text = fill(text, f"picks, {part}s", picks(runs, part))
    text = fill(text, "recoloured", recolored(runs))
    text = fill(text, "series", series(runs, SERIES))
    document.write_text(text, encoding="utf-8")
    for part in ("photograph", "scene"):
        if (runs / "figures" / f"{RANKED[part]}.parquet").exists():
            sheet(runs, part).save(document.with_name(f"results-{part}s.jpg"), quality=85)
    if missing := sorted(name for name in run_for() if not (runs / "figures" / f"{name}.parquet").exists()):
        sys.exit(f"not run yet: {' '.join(missing)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
