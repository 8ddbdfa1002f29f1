"""Makes the colour picture at native size from a scan and a working picture's colours, by strips, and checks it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffcolor.luminance import Reductions, luma, recombine
from diffcolor.upsample import ChromaUpsampler, release_pages
from pipelines.images import scratch
from pipelines.images.deadline import within_deadline
from pipelines.images.errors import InputImageError
from pipelines.images.formats.codecs import open_raster
from pipelines.images.frame import turned_upright
from pipelines.images.view import View

_ANY_SIZE = 1 << 62


def painted(view: View, chroma: NDArray[np.float32], reductions: Reductions) -> Iterator[NDArray[np.unsignedinteger]]:
    """Strips (rows, W, 3) of the whole page, top to bottom: colour in the regions, elsewhere R = G = B = gray.

    Args:
        chroma: of the view, as `View.chroma` gives it.
        reductions: counts the pixels whose colour had to be reduced.
    """
    gray = view.image.gray
    upsampler = ChromaUpsampler(view.stored, chroma, view.cell)
    release_pages(gray)
    left, top, _, down = view.box
    regions = view.regions or (view.box,)
    for first, last in scratch.strips(*gray.shape):
        planes = np.zeros((last - first, gray.shape[1], 2), np.float32)
        start, end = max(first, top), min(last, top + down)
        if start < end:
            rows = upsampler.rows(start - top, end - top)
            for x, y, width, height in regions:
                a, b = max(start, y), min(end, y + height)
                if a < b:
                    planes[a - first : b - first, x : x + width] = rows[a - start : b - start, x - left :][:, :width]
        yield recombine(gray[first:last], planes, reductions)
        release_pages(gray)


@dataclass
class LumaCheck:
    """How the luma of a file's pixels compares with a scan's gray values.

    Attributes:
        mismatches: pixels that differ.
        largest, mean: largest and mean difference, in the scan's codes.
        first: x and y of the first pixel that was seen to differ.
    """

    mismatches: int = 0
    largest: int = 0
    total: int = 0
    pixels: int = 0
    first: tuple[int, int] | None = None

    @property
    def mean(self) -> float:
        return self.total / max(1, self.pixels)

    def add(self, values: NDArray, gray: NDArray, y: int, x: int) -> None:
        """Counts a block whose upper left corner is at (y, x)."""
        self.pixels += gray.size
        if np.array_equal(values, gray):
            return
        difference = np.abs(values.astype(np.int64) - gray)
        self.mismatches += int(np.count_nonzero(difference))
        self.largest, self.total = max(self.largest, int(difference.max())), self.total + int(difference.sum())
        if self.first is None:
            row, column = np.argwhere(difference)[0]
            self.first = int(column) + x, int(row) + y


@within_deadline
def check_luma(file: BinaryIO, gray: NDArray[np.unsignedinteger]) -> LumaCheck:
    """Reads a colour file again, strip by strip, and compares its luma with the scan's gray values.

    Raises:
        InputImageError: the file cannot be read.
        ValueError: it has another size or depth.
    """
    raster = open_raster(file, _ANY_SIZE)
    if (raster.height, raster.width) != gray.shape:
        size = f"{raster.width} x {raster.height}"
        raise ValueError(f"size is {size}, the scan's is {gray.shape[1]} x {gray.shape[0]}")
    if raster.dtype != gray.dtype or raster.channels != 3:
        raise ValueError(f"{raster.channels} channels of {raster.dtype}, expected 3 of {gray.dtype}")
    check = LumaCheck()
    for y, x, block in raster.blocks():
        for first, last in scratch.strips(*block.shape[:2]):
            part = gray[y + first : y + last, x : x + block.shape[1]]
            check.add(luma(block[first:last]), part, y + first, x)
        release_pages(gray)
    if check.pixels != gray.size:
        raise InputImageError("truncated", f"{check.pixels} pixels of {gray.size} are in the file")
    return check


@within_deadline
def read_luma(file: BinaryIO) -> NDArray[np.unsignedinteger]:
    """The gray plane that is an output's luma.

    Raises:
        InputImageError: the file cannot be read.
    """
    raster = open_raster(file, _ANY_SIZE)
    gray = scratch.empty((raster.height, raster.width), raster.dtype)
    for y, x, block in raster.blocks():
        gray[y : y + block.shape[0], x : x + block.shape[1]] = luma(block) if block.ndim == 3 else block
    return gray


def upright_picture(view: View, chroma: NDArray[np.float32] | None) -> NDArray[np.unsignedinteger]:
    """A small view turned upright: (h, w, 3), or (h, w) without chroma."""
    page = view.image.gray if chroma is None else np.concatenate(list(painted(view, chroma, Reductions())))
    return np.ascontiguousarray(turned_upright(page, view.image.metadata.orientation))
