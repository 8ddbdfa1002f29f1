"""Figures of one colour picture that need no truth."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def colorfulness(rgb: NDArray[np.unsignedinteger]) -> float:
    """Hasler and Suesstrunk 2003, on the 8-bit scale: about 0 for gray, 33 moderately, 59 quite, 82 very colourful.

    Args:
        rgb: (H, W, 3), uint8 or uint16. Large pictures are looked at in every n-th row and column.
    """
    stride = max(1, round((rgb.shape[0] * rgb.shape[1] / 2**20) ** 0.5))
    r, g, b = np.moveaxis(rgb[::stride, ::stride].astype(np.float64) * (255 / np.iinfo(rgb.dtype).max), -1, 0)
    red_green, yellow_blue = r - g, (r + g) / 2 - b
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def clip_margins(image_features: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """Cosine to the prompt minus cosine to the nearest anti-colour prompt.

    Args:
        image_features, positive: (N, D), unit norm.
        negatives: (N, M, D), unit norm; all-zero rows are padding.

    Returns:
        (N,), about -2..2.
    """
    to_negatives = (image_features[:, None] * negatives).sum(-1)
    padding = negatives.abs().sum(-1) == 0
    return (image_features * positive).sum(-1) - to_negatives.masked_fill(padding, -2).amax(-1)
