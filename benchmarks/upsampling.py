"""What is lost from working to native size: the true colours, averaged to a fraction of the size and brought back.

python -m benchmarks.upsampling --photographs P.parquet --stamps FOLDER

Prints a Markdown table of the a*b* error in percent of gray's. No model has a part in it.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import pooled_ratio
from benchmarks.validation import Case, photographs, scenes
from benchmarks.variants import PlainUpsampler
from diffcolor.luminance import chroma_planes, luma, recombine
from diffcolor.upsample import LUMINANCE_SIGMA, SPATIAL_SIGMA, ChromaUpsampler, box_average
from pipelines.curation.evaluate.figures import against_truth

FACTORS = (2, 4, 8)
SHIPPED = (LUMINANCE_SIGMA, SPATIAL_SIGMA)
SETTINGS: dict[str, tuple[Callable, float, float]] = {
    "bicubic": (PlainUpsampler, *SHIPPED),
    "guided by the scan, as shipped: LUMINANCE_SIGMA {:g}, SPATIAL_SIGMA {:g}".format(*SHIPPED): (
        ChromaUpsampler,
        *SHIPPED,
    ),
    **{f"… LUMINANCE_SIGMA {value}": (ChromaUpsampler, value, SPATIAL_SIGMA) for value in (0.05, 0.2)},
    **{f"… SPATIAL_SIGMA {value}": (ChromaUpsampler, LUMINANCE_SIGMA, value) for value in (0.5, 1.0)},
}


def brought_back(truth: NDArray[np.uint8], factor: int, upsampler: Callable) -> NDArray[np.uint8]:
    """(H, W, 3) with the truth's luma and its chroma as it comes back from 1/factor of the size."""
    gray = luma(truth)
    height, width = (max(1, side // factor) for side in gray.shape)
    chroma = box_average(chroma_planes(truth.astype(np.float32) / 255), height, width)
    return recombine(gray, upsampler(gray, chroma).rows(0, len(gray)))


def lost(
    cases: Sequence[Case], factor: int, upsampler: Callable, luminance_sigma: float, spatial_sigma: float
) -> float:
    """Summed a*b* error over gray's."""
    with patch.multiple("diffcolor.upsample", LUMINANCE_SIGMA=luminance_sigma, SPATIAL_SIGMA=spatial_sigma):
        return pooled_ratio([against_truth(brought_back(one.truth, factor, upsampler), one.truth) for one in cases])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    arguments = parser.parse_args()
    parts = {"photographs": photographs(arguments.photographs), "scenes": scenes(arguments.stamps)}
    print(f"| | {' | '.join(f'{part}, 1/{factor}' for part in parts for factor in FACTORS)} |")
    print("|---" * (1 + len(parts) * len(FACTORS)) + "|")
    for label, setting in SETTINGS.items():
        cells = [f"{100 * lost(cases, factor, *setting):.1f}" for cases in parts.values() for factor in FACTORS]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
