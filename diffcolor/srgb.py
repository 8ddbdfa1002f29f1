"""The transfer curve of sRGB (IEC 61966-2-1)."""

import numpy as np
from numpy.typing import NDArray


def srgb_to_linear(codes: NDArray) -> NDArray[np.float64]:
    """Code values in [0, 1] to light in [0, 1]."""
    return np.where(codes <= 0.04045, codes / 12.92, ((np.maximum(codes, 0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: NDArray) -> NDArray[np.float64]:
    """The inverse of `srgb_to_linear`."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
