"""Known colours, simulated: what a curator who gives K true points would get."""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from skimage.color import rgb2lab

from diffcolor.config import HINTING
from diffcolor.geometry import fitting_size
from diffcolor.hints import Hint, HintSpreader
from diffcolor.luminance import chroma_planes, luma, recombine
from diffcolor.upsample import ChromaUpsampler, box_average

SAMPLE = 4000  # pixels that are clustered


def true_points(truth: NDArray[np.uint8], count: int, seed: int = 0) -> list[Hint]:
    """`count` points with their true colours, the mean of 3 x 3 pixels: the middles of clusters by place and gray.

    Args:
        truth: (H, W, 3).
    """
    height, width = truth.shape[:2]
    y, x = np.mgrid[:height, :width] / max(height, width)
    features = np.stack([x, y, luma(truth) / 255], -1).reshape(-1, 3)
    chosen = np.random.default_rng(seed).choice(len(features), min(SAMPLE, len(features)), replace=False)
    middles, _ = kmeans2(features[chosen], count, seed=seed, minit="++")
    lab = rgb2lab(truth)
    hints = []
    for middle in middles:
        y_at, x_at = divmod(int(((features - middle) ** 2).sum(1).argmin()), width)
        a, b = lab[max(0, y_at - 1) : y_at + 2, max(0, x_at - 1) : x_at + 2, 1:].reshape(-1, 2).mean(0)
        at = {"top": y_at / height, "bottom": (y_at + 1) / height, "left": x_at / width, "right": (x_at + 1) / width}
        hints.append(Hint(**at, ab=(float(a), float(b))))
    return hints


def with_hints(picture: NDArray[np.uint8], hints: list[Hint]) -> NDArray[np.uint8]:
    """A finished picture (H, W, 3) with the hinted colours, its luma as it was."""
    gray = luma(picture)
    height, width = gray.shape
    fitting = fitting_size(height, width, HINTING.pixels)
    codes, smaller = picture.astype(np.float32) / 255, (min(fitting[0], height), min(fitting[1], width))
    painted, _ = HintSpreader(box_average(gray, *smaller) / np.float32(255), hints)(box_average(codes, *smaller))
    return recombine(gray, ChromaUpsampler(gray, chroma_planes(painted)).rows(0, height))
