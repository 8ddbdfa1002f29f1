"""The working size: the size at which the model sees a scan. Aspect ratio is kept as nearly as the model allows."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image


def working_size(height: int, width: int, training_area: int, multiple: int) -> tuple[int, int]:
    """Height and width (multiples of `multiple`) near `training_area` pixels, with the aspect ratio nearest the scan's.

    Very long pictures keep at least one multiple on their short side, and so are squeezed.
    """
    target = math.log(height / width)
    short = math.sqrt(training_area)
    sides = range(multiple, int(4 * short) + multiple, multiple)
    candidates = [(h, w) for h in sides for w in sides if 0.6 * training_area <= h * w <= 1.2 * training_area]
    if not candidates:  # a model whose training area is about one multiple squared
        return multiple, multiple
    return min(
        candidates,
        key=lambda size: (
            abs(math.log(size[0] / size[1]) - target) + 0.3 * abs(math.log(size[0] * size[1] / training_area)),
            size,
        ),
    )


def working_gray(gray: NDArray[np.unsignedinteger], height: int, width: int) -> torch.Tensor:
    """The scan as the model sees it: (H, W) uint8 or uint16 to (1, height, width) float32 in [0, 1]."""
    small = Image.fromarray(gray).resize(
        (width, height), Image.Resampling.BOX if gray.size > 2**24 else Image.Resampling.LANCZOS
    )
    return torch.from_numpy(np.asarray(small, np.float32) / np.iinfo(gray.dtype).max).clamp(0, 1)[None]
