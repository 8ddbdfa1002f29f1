"""The figures that README, model card and docs/results.md claim, with their floors and intervals.

python -m benchmarks.claims --pack PACK.parquet --stamps FOLDER --runs FOLDER --part validation|test [--every N]

Choices are made on `validation`. `test` is looked at once for each released model. Runs are kept as those of
`benchmarks.ablation`.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.ndimage import distance_transform_edt
from skimage.color import rgb2lab

from benchmarks.ablation import Bench, native
from benchmarks.validation import Case, on_sheet, photographs, scenes
from benchmarks.variants import Variant
from diffcolor.config import preset_for
from diffcolor.hints import Hint
from diffcolor.models import load_models
from pipelines.curation.evaluate.figures import HUE_AGREEMENT, against_truth
from pipelines.curation.evaluate.points import true_points, with_hints
from pipelines.curation.evaluate.verdict import verdict

PROMPTS = {"empty": "nothing", "caption": "the title", "hinted": "a caption with colours", "other": "another colour"}
SCENES = 60
HEADER = (
    "| what | told | pictures | a*b* error / gray's | colourfulness / truth's | less the table's error | "
    "hue agreement | witness / gray's | named thing | change inside / outside | scenes' hue taken, % | bleed |"
)


def variants() -> Iterator[tuple[str, Variant]]:
    """What is compared: the coarse colorizer, the base model from either start, and `balanced` as it is shipped."""
    balanced = preset_for("balanced")
    gray = preset_for("paper").sample
    known = {
        "coarse colorizer alone": Variant(name="alone", alone=True, sample=balanced.sample),
        "base model alone, from gray": Variant(
            name="base-gray", sample=replace(gray, num_inference_steps=20, guidance_scale=2.0, strength=0.2)
        ),
        "base model alone, from coarse": Variant(name="base-coarse", sample=balanced.sample),
        "`balanced`": Variant(name="balanced", fit=balanced.fit, sample=balanced.sample),
    }
    for label, variant in known.items():
        for prompt in PROMPTS:
            name, recolored = f"{variant.name}-{prompt}", prompt == "other"
            yield (
                label,
                replace(
                    variant,
                    name=name,
                    prompt=prompt,
                    part="boxed" if recolored else "all",
                    against=f"{variant.name}-hinted" if recolored else None,
                ),
            )


def line(label: str, variant: Variant, rows: list[dict]) -> str:
    """A row of the table."""
    photos = [row for row in rows if row["id"].startswith("photograph")]
    composed = [row for row in rows if row["id"].startswith("scene")]
    found = verdict(photos, [row["group"] for row in photos])
    ours = found.lines[0]
    boxed = [row for row in photos if row.get("hint_hue_error") is not None]
    cells = [label, PROMPTS[variant.prompt], f"{len(photos)}", ours.error.text(), ours.colorfulness.text(".2f")]
    cells += [found.against_table.text("+.3f"), found.hue_agreement.text(".2f")]
    cells.append(f"{sum(row['witness'] for row in photos) / sum(row['witness_gray'] for row in photos):.2f}")
    cells.append(f"{100 * np.mean([row['hint_hue_error'] <= HUE_AGREEMENT for row in boxed]):.0f} % of {len(boxed)}")
    changes = [[row[name] for row in boxed if row.get(name) is not None] for name in ("thing_change", "rest_change")]
    cells.append(" / ".join(f"{np.median(some):.1f}" for some in changes) if all(changes) else "")
    cells.append(f"{100 * np.mean([row['hint_taken'] for row in composed]):.0f}" if composed else "")
    cells.append(f"{np.mean([row['bleed'] - row['bleed_truth'] for row in composed]):+.1f}" if composed else "")
    return f"| {' | '.join(cells)} |"


def floors(rows: list[dict]) -> Iterator[str]:
    """The floors and oracles on the same photographs."""
    photos = [row for row in rows if row["id"].startswith("photograph")]
    for one in verdict(photos, [row["group"] for row in photos]).lines[1:]:
        yield f"| *{one.name}* | | {len(photos)} | {one.error.text()} | {one.colorfulness.text('.2f')} |" + " |" * 7


@torch.no_grad()
def sheets(bench: Bench, cases: list[Case]) -> str:
    """Photographs on mounts, by the coarse colorizer alone, against the same without."""
    gray = with_mount = without = 0.0
    chroma = []
    for case in cases:
        sheet, true = on_sheet(case), rgb2lab(case.truth)[..., 1:]
        both = []
        for one in (case, sheet):
            picture = bench.models.coarse.colorize(bench.scan(one).gray[None], [case.caption])[0]
            both.append(rgb2lab(native(one, picture))[..., 1:])
        without += np.hypot(*np.moveaxis(both[0] - true, -1, 0)).mean()
        with_mount += np.hypot(*np.moveaxis(both[1][sheet.mask].reshape(true.shape) - true, -1, 0)).mean()
        gray += np.hypot(*np.moveaxis(true, -1, 0)).mean()
        chroma.append(np.hypot(*np.moveaxis(both[1], -1, 0))[~sheet.mask].mean())
    return (
        f"{len(cases)} photographs on mounts: error {with_mount / gray:.3f} of gray's, without the mount "
        f"{without / gray:.3f}; chroma on the mount {np.mean(chroma):.1f} in the mean, {np.max(chroma):.1f} at most"
    )


def pointed(bench: Bench, cases: list[Case], count: int) -> str:
    """Photographs by the coarse colorizer, told the title, with true colours at points."""
    rows = []
    for case in cases:
        picture = bench.models.coarse.colorize(bench.scan(case).gray[None], [case.caption])[0]
        made = with_hints(native(case, picture), true_points(case.truth, count))
        rows.append(against_truth(made, case.truth))
    ours = verdict(rows, [case.group for case in cases]).lines[0]
    return f"{count} true points: error {ours.error.text()} of gray's, colourfulness {ours.colorfulness.text('.2f')}"


@torch.no_grad()
def spilled(bench: Bench, cases: list[Case]) -> str:
    """Scenes with the object's true colour at one point of it: the change of chroma on the object and beside it."""
    inside, outside = [], []
    for case in cases:
        before = native(case, bench.models.coarse.colorize(bench.scan(case).gray[None], [case.caption])[0])
        y, x = np.unravel_index(distance_transform_edt(case.mask).argmax(), case.mask.shape)
        height, width = case.mask.shape
        a, b = np.median(rgb2lab(case.truth)[case.mask], axis=0)[1:]
        at = {"top": y / height, "bottom": (y + 1) / height, "left": x / width, "right": (x + 1) / width}
        after = with_hints(before, [Hint(**at, ab=(float(a), float(b)))])
        change = np.linalg.norm((rgb2lab(after) - rgb2lab(before))[..., 1:], axis=-1)
        inside.append(change[case.mask].mean())
        outside.append(change[~case.mask].mean())
    share = np.median(np.array(outside) / np.array(inside))
    return (
        f"one point on each scene's object: {np.mean(inside):.1f} on it, {100 * share:.0f} % of that beside it (median)"
    )


def main() -> None:
    """Runs what is not there yet and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--part", choices=("validation", "test"), required=True)
    parser.add_argument("--every", type=int, default=1, help="take every n-th picture alone")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of variants' names")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    every = arguments.every
    photos = photographs(arguments.pack, arguments.part)[::every]
    cases = photos + scenes(arguments.stamps, SCENES)[::every]
    bench = Bench(load_models(device=arguments.device), cases, arguments.runs, f"{arguments.part}-{every}")
    lines, rows = [HEADER, "|---" * (HEADER.count("|") - 1) + "|"], []
    for label, variant in variants():
        if variant.name.startswith(tuple(arguments.only)):
            bench.run(variant)
            rows = pq.read_table(bench.runs / "figures" / f"{variant.name}.parquet").to_pylist()
            lines.append(line(label, variant, rows))
            if len(lines) == 3:
                lines[2:2] = floors(rows)
    print("\n".join([*lines, "", sheets(bench, photos)]), flush=True)
    for count in (3, 5, 10):
        print(pointed(bench, photos, count), flush=True)
    print(spilled(bench, cases[len(photos) :]))


if __name__ == "__main__":
    main()
