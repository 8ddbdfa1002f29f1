"""Low-resolution chroma brought to the scan's pixel size: joint bilateral upsampling with one back-projection.

Works on rows, so that memory follows the strip and not the page: `ChromaUpsampler(...).rows(first, last)`.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcolor.luminance import recombine

RADIUS = 2  # low-resolution cells
SPATIAL_SIGMA = 0.7  # low-resolution cells
LUMINANCE_SIGMA = 0.1  # of full scale
STRIP_PIXELS = 1 << 19


def box_average(plane: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """Area average of (H, W) or (H, W, C) float32 to (height, width[, C]); ratios need not be whole."""
    channels = plane[..., None] if plane.ndim == 2 else plane
    averaged = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(channels[..., c], dtype=np.float32)).resize(
                (width, height), Image.Resampling.BOX
            )
        )
        for c in range(channels.shape[-1])
    ]
    return averaged[0] if plane.ndim == 2 else np.stack(averaged, axis=-1)


class ChromaUpsampler:
    """Upsamples `chroma` along the edges of `gray`.

    Args:
        gray: (H, W), uint8 or uint16: the guide, at native size.
        chroma: (h, w, 2) float32, `R - luma` and `B - luma` of the working picture.
    """

    def __init__(self, gray: NDArray[np.unsignedinteger], chroma: NDArray[np.float32]) -> None:
        self.gray = gray
        self.full = np.float32(np.iinfo(gray.dtype).max)
        self.height, self.width = chroma.shape[:2]
        self.guide = box_average(gray, self.height, self.width) / self.full
        self.chroma = chroma
        # Back-projection (Irani and Peleg 1991): what the result's own box average misses is added back, so that
        # no colour of the model is lost to the filter.
        self.residual = chroma - self._averaged_result()

    def _averaged_result(self) -> NDArray[np.float32]:
        """Box average of the bilateral result over each low-resolution cell, accumulated strip by strip."""
        rows_of_cell = self._cell_rows()
        return np.stack(
            [box_average(self._bilateral(first, last), 1, self.width)[0] for first, last in rows_of_cell]
        ).astype(np.float32)

    def _cell_rows(self) -> list[tuple[int, int]]:
        """Native rows that each low-resolution row covers, at least one."""
        edges = np.linspace(0, self.gray.shape[0], self.height + 1)
        return [(int(first), max(int(first) + 1, int(np.ceil(last)))) for first, last in pairwise(edges)]

    def _positions(self, first: int, last: int, size: int, cells: int) -> NDArray[np.float32]:
        """Centres of native pixels `first..last` of an axis in low-resolution cell units."""
        return ((np.arange(first, last, dtype=np.float32) + 0.5) * (cells / size) - 0.5).astype(np.float32)

    def _bilateral(self, first: int, last: int) -> NDArray[np.float32]:
        """Joint bilateral upsampling (Kopf et al. 2007) of native rows first..last; (rows, W, 2)."""
        native = self.gray[first:last].astype(np.float32) / self.full
        y = self._positions(first, last, self.gray.shape[0], self.height)
        x = self._positions(0, self.gray.shape[1], self.gray.shape[1], self.width)
        y_cell, x_cell = np.round(y).astype(int), np.round(x).astype(int)
        total = np.zeros((*native.shape, 2), np.float32)
        weights = np.full(native.shape, 1e-12, np.float32)
        for dy in range(-RADIUS, RADIUS + 1):
            rows = np.clip(y_cell + dy, 0, self.height - 1)
            y_weight = np.exp(-((y - (y_cell + dy)) ** 2) / (2 * SPATIAL_SIGMA**2))
            for dx in range(-RADIUS, RADIUS + 1):
                columns = np.clip(x_cell + dx, 0, self.width - 1)
                x_weight = np.exp(-((x - (x_cell + dx)) ** 2) / (2 * SPATIAL_SIGMA**2))
                likeness = np.exp(-((native - self.guide[np.ix_(rows, columns)]) ** 2) / (2 * LUMINANCE_SIGMA**2))
                # A floor keeps a pixel unlike all its cells (a lone scratch) coloured like its neighbourhood.
                weight = y_weight[:, None] * x_weight[None, :] * np.maximum(likeness, 1e-4)
                total += weight[..., None] * self.chroma[np.ix_(rows, columns)]
                weights += weight
        return total / weights[..., None]

    def rows(self, first: int, last: int) -> NDArray[np.float32]:
        """Chroma of native rows first..last, (last - first, W, 2) float32."""
        native_height, native_width = self.gray.shape
        scale = self.height / native_height
        top, bottom = first * scale, last * scale
        residual = [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(self.residual[..., c])).resize(
                    (native_width, last - first), Image.Resampling.BICUBIC, box=(0, top, self.width, bottom)
                )
            )
            for c in range(2)
        ]
        return self._bilateral(first, last) + np.stack(residual, axis=-1)


def colorize_scan(gray: NDArray[np.unsignedinteger], chroma: NDArray[np.float32]) -> NDArray[np.unsignedinteger]:
    """Working-size chroma on the native scan, luminance exact.

    Args:
        gray: (H, W), uint8 or uint16.
        chroma: (h, w, 2) float32.

    Returns:
        (H, W, 3), dtype of `gray`; its integer luma equals `gray` at every pixel.
    """
    upsampler = ChromaUpsampler(gray, chroma)
    colored = np.empty((*gray.shape, 3), gray.dtype)
    step = max(1, STRIP_PIXELS // gray.shape[1])
    for first in range(0, gray.shape[0], step):
        last = min(first + step, gray.shape[0])
        colored[first:last] = recombine(gray[first:last], upsampler.rows(first, last))
    return colored
