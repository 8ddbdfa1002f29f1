"""Learns the floors of `evaluate` on the training part: one tint for every picture, and a table of gray values.

python -m training.floors PACK.parquet
"""

import json
import sys
from pathlib import Path

import numpy as np
from skimage.color import rgb2lab

from diffcolor.luminance import luma
from pipelines.curation.evaluate.floors import FILE, LEVELS
from training.shoots import PHOTOGRAPHS, read_pack


def learn(pack: Path) -> dict[str, list]:
    """The mean a*b* of all pixels, and of those of each level of gray; every picture counts alike."""
    sums, weights = np.zeros((LEVELS, 2)), np.zeros(LEVELS)
    pictures = read_pack(pack, "train")
    for one in (one for name in PHOTOGRAPHS for one in pictures[name]):
        ab = rgb2lab(one.pixels)[..., 1:].reshape(-1, 2)
        level = luma(one.pixels).reshape(-1).astype(int) * LEVELS // 256
        share = 1 / len(level)
        weights += np.bincount(level, minlength=LEVELS) * share
        for axis in (0, 1):
            sums[:, axis] += np.bincount(level, ab[:, axis], LEVELS) * share
    table = sums / np.maximum(weights, 1e-9)[:, None]
    return {"tint": (sums.sum(0) / weights.sum()).round(2).tolist(), "table": table.round(2).tolist()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(learn(Path(sys.argv[1]))) + "\n", encoding="utf-8")
