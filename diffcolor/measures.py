"""Measures of one colour picture that need no true colours to compare with."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcolor.luminance import soft_luma
from diffcolor.srgb import srgb_to_linear

_EDGE = 0.03  # of full scale: a step of luminance between neighbours that counts as an edge


def colorfulness(rgb: NDArray[np.unsignedinteger]) -> float:
    """Hasler and Suesstrunk 2003, on the 8-bit scale: about 0 for gray, 33 moderately, 59 quite, 82 very colourful.

    Args:
        rgb: (H, W, 3), uint8 or uint16. Of large pictures only every n-th row and column is used.
    """
    stride = max(1, round((rgb.shape[0] * rgb.shape[1] / 2**20) ** 0.5))
    r, g, b = np.moveaxis(rgb[::stride, ::stride].astype(np.float64) * (255 / np.iinfo(rgb.dtype).max), -1, 0)
    red_green, yellow_blue = r - g, (r + g) / 2 - b
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def lightness_shift(rgb: NDArray[np.uint8], gray: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and largest change of CIELAB lightness by colour at equal luma: |L*(rgb) - L*(gray, gray, gray)|.

    Args:
        rgb: (H, W, 3) sRGB.
        gray: (H, W), its luma.
    """
    light = srgb_to_linear(np.arange(256) / 255)

    def lightness(y: NDArray) -> NDArray:
        return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)

    shift = np.abs(lightness(light[rgb] @ np.array([0.2126, 0.7152, 0.0722])) - lightness(light[gray]))
    return float(shift.mean()), float(shift.max())


def stray_color(rgb: Tensor, gray: Tensor) -> Tensor:
    """Colour that changes where the scan does not; bleeding and blotches raise it.

    The mean step of chroma between neighbouring pixels, weighted by how flat the luminance is there, relative to the
    mean chroma, times the mean side in units of 128 pixels (a larger picture has smaller steps).

    Args:
        rgb: (N, 3, H, W) in [0, 1].
        gray: (N, 1, H, W) in [0, 1].

    Returns:
        (N,), >= 0; 0 where there is no chroma.
    """
    chroma = rgb - soft_luma(rgb)
    strayed = torch.zeros(len(rgb), device=rgb.device)
    for axis in (2, 3):
        steps = chroma.diff(dim=axis).norm(dim=1)
        flat = torch.exp(-(gray.diff(dim=axis)[:, 0] / _EDGE).square())
        strayed += (flat * steps).mean((1, 2))
    side = (gray.shape[2] * gray.shape[3]) ** 0.5 / 128
    return side * strayed / chroma.norm(dim=1).mean((1, 2)).clamp_min(1e-3)


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
