"""How a colour picture is to be written: format, size, depth and metadata."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.images import scratch
from pipelines.images.metadata import Metadata
from pipelines.version import SYSTEM

SOFTWARE = SYSTEM


@dataclass(frozen=True, kw_only=True)
class PictureFormat:
    """Format, size, depth and metadata of a picture to be written.

    Attributes:
        xmp: the packet, mark included; used instead of the one in `metadata`.
        icc: an RGB profile.
    """

    format: str
    height: int
    width: int
    dtype: np.dtype
    metadata: Metadata
    icc: bytes
    xmp: bytes | None


def whole_picture(strips: Iterable[NDArray], form: PictureFormat) -> NDArray:
    """All strips in one array (H, W, 3), for encoders that need the whole picture."""
    pixels, row = scratch.empty((form.height, form.width, 3), form.dtype), 0
    for strip in strips:
        pixels[row : row + len(strip)] = strip
        row += len(strip)
    return pixels
