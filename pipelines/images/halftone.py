"""Detects printed halftones, so that the model sees the gray tone and its colours do not follow the dots."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

TILE = 256
_TILES = 4  # along each side, at most
_PERIODS = (3.0, 20.0)  # pixels from dot to dot
_PROMINENCE = 28.0  # of a dot screen's peak over the median at the same distance from the centre
_ACROSS = 0.5  # a screen has a second direction, at a right angle; lines of text have one only


def halftone_period(gray: NDArray[np.unsignedinteger]) -> float | None:
    """Distance between the dots of a halftone in pixels, None for a continuous tone.

    Spectra of a few tiles: a screen is a lattice, so most tiles have the same peak far from the centre and another at a
    right angle to it; grain has no peak, and rules and lines of text have peaks in one direction.

    Args:
        gray: (H, W), uint8 or uint16. At most 16 tiles of it are read.
    """
    height, width = gray.shape
    if min(height, width) < TILE:
        return None
    places = [np.linspace(0, side - TILE, min(_TILES, max(1, side // TILE))).astype(int) for side in (height, width)]
    periods = []
    for y in places[0]:
        for x in places[1]:
            tile = np.asarray(gray[y : y + TILE, x : x + TILE], np.float64)
            if tile.std() > 0.01 * np.iinfo(gray.dtype).max:
                periods.append(_period(tile))
    measured = [period for period in periods if period]
    if len(measured) < max(1, 0.5 * len(periods)):
        return None
    middle = float(np.median(measured))
    agreeing = [period for period in measured if abs(period - middle) < 0.1 * middle]
    return middle if len(agreeing) >= max(1, 0.5 * len(periods)) else None


def _period(tile: NDArray[np.float64]) -> float | None:
    window = np.hanning(TILE)
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2((tile - tile.mean()) * window[:, None] * window)))
    offset = np.arange(TILE) - TILE // 2
    radius = np.hypot(offset[:, None], offset)
    ring = radius.astype(int)
    order = np.argsort(ring, axis=None, kind="stable")
    edges = np.searchsorted(ring.ravel()[order], np.arange(ring.max() + 2))
    sorted_spectrum = spectrum.ravel()[order]
    medians = np.array([np.median(sorted_spectrum[a:b]) if b > a else 1.0 for a, b in pairwise(edges)])
    prominence = spectrum / np.maximum(medians[ring], 1e-9)
    shortest, longest = _PERIODS
    prominence[(radius < TILE / longest) | (radius > TILE / shortest)] = 0
    y, x = np.unravel_index(prominence.argmax(), prominence.shape)
    if prominence[y, x] < _PROMINENCE:
        return None
    dy, dx = y - TILE // 2, x - TILE // 2
    across = [(TILE // 2 + dx, TILE // 2 - dy), (TILE // 2 - dx, TILE // 2 + dy)]
    near = max(prominence[max(0, cy - 2) : cy + 3, max(0, cx - 2) : cx + 3].max(initial=0) for cy, cx in across)
    return TILE / float(np.hypot(dy, dx)) if near >= _ACROSS * prominence[y, x] else None
