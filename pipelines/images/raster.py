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
        bits: of a stored sample where they are scaled into `dtype`; 0 where they are stored as they are.
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
    bits: int = 0


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


def without_alpha(blocks: Iterator[Block], bits: int) -> Iterator[Block]:
    """Blocks (h, w, 2 or 4) without their last channel, which must be full everywhere: then it says nothing.

    Raises:
        InputImageError: `alpha`, a pixel is transparent.
    """
    for y, x, pixels in blocks:
        if (pixels[..., -1] != (1 << bits) - 1).any():
            raise transparent()
        yield y, x, pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :-1]


def without_key(blocks: Iterator[Block], key: tuple[int, ...]) -> Iterator[Block]:
    """Blocks of a picture in which one value or colour stands for transparent, and must not occur.

    Raises:
        InputImageError: `alpha`, it does.
    """
    for y, x, pixels in blocks:
        if (pixels.reshape(*pixels.shape[:2], -1) == np.array(key)).all(-1).any():
            raise transparent()
        yield y, x, pixels


def looked_up(blocks: Iterator[Block], colors: NDArray) -> Iterator[Block]:
    """Indices (h, w) as the colours (n, 3) of a palette; those beyond its end are black, as other readers have it."""
    table = np.zeros((max(256, len(colors)), 3), colors.dtype)
    table[: len(colors)] = colors
    for y, x, indices in blocks:
        yield y, x, table[indices]


def scaled(blocks: Iterator[Block], bits: int) -> Iterator[Block]:
    """Samples of 9 to 15 bits as 16 bits: value * 65535 / (2^bits - 1), rounded. All stay different."""
    full = (1 << bits) - 1
    for y, x, pixels in blocks:
        yield y, x, ((pixels.astype(np.uint32) * 65535 + full // 2) // full).astype(np.uint16)


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
