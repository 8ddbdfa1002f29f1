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


def lightness_shift(rgb: NDArray[np.uint8], gray: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and largest change of CIELAB lightness that colour makes at equal luma: |L*(rgb) - L*(gray, gray, gray)|.

    Args:
        rgb: (H, W, 3) sRGB.
        gray: (H, W), its luma.
    """
    codes = np.arange(256) / 255
    light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)

    def lightness(y: NDArray) -> NDArray:
        return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)

    shift = np.abs(lightness(light[rgb] @ np.array([0.2126, 0.7152, 0.0722])) - lightness(light[gray]))
    return float(shift.mean()), float(shift.max())


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
