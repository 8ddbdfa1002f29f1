"""The working size, at which the model sees a scan. It keeps the aspect ratio as nearly as the model allows."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcolor.upsample import box_average

_LARGE = 1 << 24  # pixels above which strips are averaged, instead of filtering the whole scan in memory


def working_size(height: int, width: int, training_area: int, multiple: int) -> tuple[int, int]:
    """Height and width (multiples of `multiple`) near `training_area` pixels, with the aspect ratio nearest the scan's.

    Very long pictures get at least one multiple on their short side, which squeezes them.
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


def fitting_size(height: int, width: int, area: int) -> tuple[int, int]:
    """Height and width of about `area` pixels with the aspect ratio of a picture."""
    scale = math.sqrt(area / (height * width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def working_gray(gray: NDArray[np.unsignedinteger], height: int, width: int) -> NDArray[np.float32]:
    """The scan at the size at which the model sees it: (H, W) uint8 or uint16 to (height, width) in [0, 1]."""
    if gray.size > _LARGE:
        small = box_average(gray, height, width)
    else:
        whole = Image.fromarray(np.asarray(gray, np.float32))
        small = np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS))
    return np.clip(small / np.float32(np.iinfo(gray.dtype).max), 0, 1)
