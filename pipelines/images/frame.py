"""What is seen of a stored raster: the box around its regions, turned upright by its EXIF orientation; and back."""

from collections.abc import Sequence

from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # x, y, width, height in the pixels of the file

# Down, across; after the transposition where there is one (EXIF 2.32, 4.6.4).
_FLIPS = {
    1: (False, False),
    2: (False, True),
    3: (True, True),
    4: (True, False),
    5: (False, False),
    6: (False, True),
    7: (True, True),
    8: (True, False),
}


def seen_box(regions: Sequence[Box], width: int, height: int) -> Box:
    """The smallest box around the regions of a raster; without regions, the whole raster."""
    if not regions:
        return 0, 0, width, height
    left, top = min(box[0] for box in regions), min(box[1] for box in regions)
    right = max(box[0] + box[2] for box in regions)
    bottom = max(box[1] + box[3] for box in regions)
    return left, top, right - left, bottom - top


def turned_upright(picture: NDArray, orientation: int) -> NDArray:
    """A stored picture (H, W[, C]) turned upright by its EXIF orientation (1 .. 8)."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)  # 5: transposed; 6, 7, 8: that, and flipped
    flip_down, flip_across = _FLIPS[orientation]
    return picture[:: -1 if flip_down else 1, :: -1 if flip_across else 1]


def turned_back(picture: NDArray, orientation: int) -> NDArray:
    """The inverse of `turned_upright`."""
    flip_down, flip_across = _FLIPS[orientation]
    picture = picture[:: -1 if flip_down else 1, :: -1 if flip_across else 1]
    return picture.swapaxes(0, 1) if orientation >= 5 else picture


def upright_frame(box: Box, orientation: int) -> list[int]:
    """Where the places of the upright picture of a box (x, y, width, height) are in the stored raster.

    Returns:
        x0, xu, xv, y0, yu, yv: the place at the shares (u, v) of the upright width and height is stored at
        x = x0 + xu * u + xv * v and y = y0 + yu * u + yv * v.
    """
    left, top, width, height = box
    flip_down, flip_across = _FLIPS[orientation]
    u, v = (-1 if flip_across else 1), (-1 if flip_down else 1)  # flips come last, upright
    if orientation >= 5:  # transposed: u runs down the stored raster
        return [left + width * (v < 0), 0, width * v, top + height * (u < 0), height * u, 0]
    return [left + width * (u < 0), width * u, 0, top + height * (v < 0), 0, height * v]
