"""What a reference brings, and whether the model is wrong where it says that it guesses.

    python -m benchmarks.examples --pack PACK.parquet --part validation|test [--every N]

The coarse colorizer alone, told the title. Each photograph of a shoot takes the first one's true colours as reference,
and, to see what a bad reference does, a photograph of another shoot. Choices are made on `validation`; `test` is looked
at once for each released model.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skimage.color import rgb2lab

from benchmarks.validation import Case, photographs
from diffcolor.coarse import CoarseColorizer, load_coarse
from diffcolor.luminance import luma
from diffcolor.reference import Reference


def ab(rgb: NDArray) -> NDArray[np.float32]:
    return rgb2lab(rgb)[..., 1:].astype(np.float32)


def length(field: NDArray) -> float:
    """Mean distance in a*b*."""
    return float(np.linalg.norm(field, axis=-1).mean())


@dataclass(frozen=True)
class Seen:
    """A photograph as the colorizer sees it and colours it."""

    case: Case
    gray: NDArray[np.float32]
    colors: NDArray[np.float32]
    truth: NDArray[np.float32]

    @staticmethod
    def of(coarse: CoarseColorizer, case: Case) -> "Seen":
        gray = (luma(case.truth) / 255).astype(np.float32)
        colors = coarse.colorize(torch.from_numpy(gray)[None, None], [case.caption])[0].permute(1, 2, 0).numpy()
        return Seen(case, gray, np.ascontiguousarray(colors), ab(case.truth))


def references(coarse: CoarseColorizer, seen: list[Seen]) -> None:
    """Prints the error with a fitting and with another reference, and how mean colours spread within a shoot."""
    shoots: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        shoots[one.case.group].append(one)
    pairs = [(some[0], other) for some in shoots.values() for other in some[1:]]
    rng = np.random.default_rng(0)
    strangers = []
    for _, other in pairs:
        elsewhere = [one for one in seen if one.case.group != other.case.group]
        strangers.append(elsewhere[rng.integers(len(elsewhere))])
    for what, examples in (("of the same shoot", [one for one, _ in pairs]), ("of another shoot", strangers)):
        totals, likenesses, means = np.zeros(3), [], defaultdict(list)
        for example, (_, one) in zip(examples, pairs, strict=True):
            taken, likeness = Reference(coarse, example.case.truth)(one.gray, one.colors)
            totals += length(ab(taken) - one.truth), length(ab(one.colors) - one.truth), length(one.truth)
            likenesses.append(likeness)
            means[one.case.group].append([field.mean((0, 1)) for field in (one.truth, ab(one.colors), ab(taken))])
        groups = [np.array(some) for some in means.values() if len(some) > 1]
        spread = np.mean([np.linalg.norm(some.std(0), axis=-1) for some in groups], axis=0)
        print(
            f"{len(pairs)} pairs, reference {what}: {totals[0] / totals[2]:.3f} of gray's error, without "
            f"{totals[1] / totals[2]:.3f}; refused {np.mean(np.array(likenesses) == 0):.0%}; "
            f"spread of mean colour in a shoot: truth {spread[0]:.1f}, without {spread[1]:.1f}, with {spread[2]:.1f}"
        )


def spreads(coarse: CoarseColorizer, seen: list[Seen]) -> None:
    """Prints the rank correlations of `color_spread` with the error, over pictures and within them."""
    errors, means, within = [], [], []
    for one in seen:
        spread = coarse.spread(torch.from_numpy(one.gray)[None, None], [one.case.caption])[0, 0].numpy()
        error = np.linalg.norm(ab(one.colors) - one.truth, axis=-1)
        errors.append(error.mean())
        means.append(spread.mean())
        within.append(spearmanr(error[::4, ::4].ravel(), spread[::4, ::4].ravel())[0])
    print(
        f"{len(seen)} pictures: rank correlation of spread and error {spearmanr(errors, means)[0]:.2f} over pictures, "
        f"{np.median(within):.2f} over the places of a picture (median)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--every", type=int, default=1, help="take every Nth photograph for the spread")
    options = parser.parse_args()
    coarse = load_coarse()
    seen = [Seen.of(coarse, case) for case in photographs(options.pack, options.part)]
    references(coarse, seen)
    spreads(coarse, seen[:: options.every])


if __name__ == "__main__":
    main()
