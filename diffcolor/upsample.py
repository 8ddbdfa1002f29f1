"""Upsamples low-resolution chroma to the scan's pixel size: joint bilateral upsampling with one back-projection.

Time and memory are bounded whatever the page's size: the bilateral filter follows the edges of a guide of at most
`GUIDE_PIXELS`, and its result is enlarged to native size bicubically, some rows at a time.
"""

import math
import mmap

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RADIUS = 2  # low-resolution cells
SPATIAL_SIGMA = 0.7  # low-resolution cells
LUMINANCE_SIGMA = 0.1  # of full scale
GUIDE_PIXELS = 1 << 23
STRIP_PIXELS = 1 << 17
_HALO = 4  # rows beyond a strip that bicubic interpolation needs


def release_pages(array: NDArray) -> None:
    """Returns the memory of a mapped array to the system; the values stay in its file and are read again on access."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _means(plane: NDArray, edges: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Means of `plane` (2-D) between neighbouring `edges` along an axis (0 or 1); edges may be fractions of a pixel."""
    values = np.moveaxis(plane, axis, 0)
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, 0, np.float64, sums[1:])
    whole = np.minimum(edges.astype(int), len(values) - 1)
    at_edges = sums[whole] + (edges - whole)[:, None] * values[whole]
    return np.moveaxis(np.diff(at_edges, axis=0) / np.diff(edges)[:, None], 0, axis)


def box_average(plane: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """Area average of (H, W) or (H, W, C) of any real dtype to (height, width[, C]) float32; ratios need not be whole.

    Reads the plane strip by strip, so that memory holds a strip and the result.
    """
    if plane.ndim == 3:
        return np.stack([box_average(plane[..., c], height, width) for c in range(plane.shape[2])], axis=-1)
    averaged = np.empty((height, width), np.float32)
    ratio = plane.shape[0] / height
    step = max(1, int(STRIP_PIXELS / (ratio * plane.shape[1])))
    for first in range(0, height, step):
        last = min(first + step, height)
        top, bottom = first * ratio, min(last * ratio, plane.shape[0])
        start, end = int(top), math.ceil(bottom)
        columns = _means(plane[start:end], np.linspace(0, plane.shape[1], width + 1), axis=1)
        edges = np.minimum(np.arange(first, last + 1) * ratio, plane.shape[0]) - start
        averaged[first:last] = _means(columns, edges, axis=0)
        release_pages(plane)
    return averaged


def bicubic_rows(plane: NDArray, height: int, width: int, first: int, last: int) -> NDArray[np.float32]:
    """Rows first..last of (h, w, C) enlarged to (height, width, C)."""
    ratio = plane.shape[0] / height
    top, bottom = first * ratio, min(last * ratio, plane.shape[0])
    start, end = max(0, int(top) - _HALO), min(plane.shape[0], math.ceil(bottom) + _HALO)
    box = (0, top - start, plane.shape[1], bottom - start)
    planes = [Image.fromarray(np.ascontiguousarray(plane[start:end, :, c])) for c in range(plane.shape[2])]
    enlarged = [picture.resize((width, last - first), Image.Resampling.BICUBIC, box=box) for picture in planes]
    return np.stack([np.asarray(picture) for picture in enlarged], axis=-1)


class ChromaUpsampler:
    """Upsamples `chroma` along the edges of `gray`.

    Args:
        gray: (H, W), uint8 or uint16, at native size.
        chroma: (h, w, 2) float32, `R - luma` and `B - luma` of the working picture.
        cell: distance in native pixels below which detail is no edge, such as the dots of a halftone.
    """

    def __init__(self, gray: NDArray[np.unsignedinteger], chroma: NDArray[np.float32], cell: float = 1.0) -> None:
        self.shape: tuple[int, int] = gray.shape
        full = np.float32(np.iinfo(gray.dtype).max)
        shrink = max(1.0, cell, math.sqrt(gray.size / GUIDE_PIXELS))
        if shrink > 1:
            height, width = (max(1, round(side / shrink)) for side in gray.shape)
            guide: NDArray = box_average(gray, height, width) / full
        else:
            guide = gray
        cells = box_average(gray, *chroma.shape[:2]) / full
        size: tuple[int, int] = guide.shape
        self.planes: NDArray[np.float32] = np.empty((*size, 2), np.float32)
        step = max(1, STRIP_PIXELS // size[1])
        ranges = [(first, min(first + step, size[0])) for first in range(0, size[0], step)]
        for first, last in ranges:
            part = guide[first:last] if shrink > 1 else guide[first:last].astype(np.float32) / full
            self.planes[first:last] = _bilateral(part, first, size, cells, chroma)
        # Back-projection (Irani and Peleg 1991): what the result's box average lacks of the model's chroma is added
        # back, so that the filter loses none of it.
        missed = chroma - box_average(self.planes, *chroma.shape[:2])
        for first, last in ranges:
            self.planes[first:last] += bicubic_rows(missed, *size, first, last)

    def rows(self, first: int, last: int) -> NDArray[np.float32]:
        """Chroma of native rows first..last, (last - first, W, 2) float32."""
        if self.planes.shape[:2] == self.shape:
            return self.planes[first:last]
        return bicubic_rows(self.planes, *self.shape, first, last)


def _positions(first: int, last: int, size: int, cells: int) -> NDArray[np.float32]:
    """Centres of pixels first..last of an axis of `size` pixels, in units of its `cells` low-resolution cells."""
    return ((np.arange(first, last, dtype=np.float32) + 0.5) * (cells / size) - 0.5).astype(np.float32)


def _bilateral(
    guide: NDArray[np.float32], first: int, size: tuple[int, int], cells: NDArray[np.float32], chroma: NDArray
) -> NDArray[np.float32]:
    """Joint bilateral upsampling (Kopf et al. 2007) to the rows of `guide`, which begin at row `first` of `size`.

    Args:
        guide: (rows, W) in [0, 1].
        cells: (h, w), the guide's low-resolution average.
        chroma: (h, w, 2).

    Returns:
        (rows, W, 2).
    """
    height, width = cells.shape
    y = _positions(first, first + len(guide), size[0], height)
    x = _positions(0, size[1], size[1], width)
    y_cell, x_cell = np.round(y).astype(int), np.round(x).astype(int)
    total: NDArray[np.float32] = np.zeros((*guide.shape, 2), np.float32)
    weights: NDArray[np.float32] = np.full(guide.shape, 1e-12, np.float32)
    for dy in range(-RADIUS, RADIUS + 1):
        rows = np.clip(y_cell + dy, 0, height - 1)
        y_weight = np.exp(-((y - (y_cell + dy)) ** 2) / (2 * SPATIAL_SIGMA**2))
        for dx in range(-RADIUS, RADIUS + 1):
            columns = np.clip(x_cell + dx, 0, width - 1)
            x_weight = np.exp(-((x - (x_cell + dx)) ** 2) / (2 * SPATIAL_SIGMA**2))
            likeness = np.exp(-((guide - cells[np.ix_(rows, columns)]) ** 2) / (2 * LUMINANCE_SIGMA**2))
            # The floor gives a pixel that is unlike all its cells (a lone scratch) the colour of its neighbourhood.
            weight = y_weight[:, None] * x_weight[None, :] * np.maximum(likeness, 1e-4)
            total += weight[..., None] * chroma[np.ix_(rows, columns)]
            weights += weight
    return total / weights[..., None]
