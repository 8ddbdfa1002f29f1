"""An opened image: the facts of its header, and its pixels some rows or tiles at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.images.errors import InputImageError
from pipelines.images.metadata import Metadata

Block = tuple[int, int, NDArray]


@dataclass(frozen=True, kw_only=True)
class Raster:
    """An opened image. `blocks()` yields (y, x, pixels): pixels (h, w) or (h, w, 3), all blocks together the image.

    Attributes:
        kind: name of its format in `formats.table`.
        channels: 1 or 3.
        dtype: uint8 or uint16.
        pages: number of pages in the file.
        photometric, compression: names of what the file uses.
        decoder: library and version that reads the pixels.
    """

    kind: str
    height: int
    width: int
    channels: int
    dtype: np.dtype
    blocks: Callable[[], Iterator[Block]]
    metadata: Metadata
    photometric: str
    compression: str
    decoder: str
    pages: int = 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes that are accepted: pixels in all, and of the shorter side."""

    max_pixels: int
    min_side: int = 1

    def check(self, width: int, height: int) -> None:
        """Raises InputImageError: `too_large`, `too_small`."""
        if width * height > self.max_pixels:
            size, limit = width * height / 1e6, self.max_pixels / 1e6
            raise InputImageError(
                "too_large", f"{width} x {height} = {size:.0f} MP, limit {limit:.0f} MP (--max-pixels)"
            )
        if min(width, height) < self.min_side:
            message = f"{width} x {height} pixels; both sides need at least {self.min_side}"
            raise InputImageError("too_small", message)


def truncated(error: object) -> InputImageError:
    return InputImageError("truncated", f"the pixels cannot be decoded to the end ({error}); copy it again")


def undecodable(error: object) -> InputImageError:
    return InputImageError("undecodable", f"the header is damaged ({error}); copy the file again")


def wrong_depth(bits: object) -> InputImageError:
    return InputImageError("depth", f"{bits} per sample; convert to 8 or 16 bit unsigned gray")


def bitonal() -> InputImageError:
    return InputImageError("bitonal", "pure black and white cannot carry colour; scan in gray", skipped=True)


def transparent() -> InputImageError:
    return InputImageError("alpha", "the image has transparency; flatten it to gray")
