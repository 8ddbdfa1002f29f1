"""The photograph on a sheet: its box within a mount, a print's border or a film's rebate.

Chosen on photographs of the training and validation parts, on mounts and without. In doubt there is no border: what is
wrongly taken for one would stay gray.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diffcolor.upsample import box_average
from pipelines.images.frame import Box

_SIDE = 320  # pixels of the sheet's longer side, as it is looked at
_DEPTH = 3  # borders within each other: the scanner's lid, a mount, the print's own
_STEP = 0.035  # of full scale, within 3 pixels: the least from a border to the picture
_SHARP = 0.7  # of each side of the picture has such a step
_LINE = 0.6  # of each side stands out from the border
_EVEN = 0.85  # of a border has no steps; the rest is writing and stamps
_SECOND = 0.03  # of the sheet, at most, is what lies outside and is no writing: a second photograph
_TONES = 0.15  # of full scale: how far apart the four sides of a border may be
_STICKS_OUT = 0.15  # of a side, but for one of them: a thing on an even ground is no rectangle
_THIN = 0.1  # of the sheet's shorter side: what is thinner is writing, a stamp, a perforation
_LEAST, _MOST = 0.12, 0.975  # of the sheet's area is the picture


def find_picture(gray: NDArray[np.unsignedinteger]) -> Box | None:
    """The box of the photograph on a sheet; None where the sheet is the photograph.

    Args:
        gray: (H, W), 8 or 16 bit.

    Returns:
        x, y, width, height in pixels of `gray`.
    """
    height, width = gray.shape
    scale = min(1.0, _SIDE / max(height, width))
    sheet = box_average(gray, max(1, round(height * scale)), max(1, round(width * scale)))
    sheet = sheet / np.float32(np.iinfo(gray.dtype).max)
    top, left, bottom, right = 0, 0, *sheet.shape
    for depth in range(_DEPTH):
        edge = 2 if depth else 0  # of the border before, where pixels are of both
        inner = _within_border(sheet[top + edge : bottom - edge, left + edge : right - edge])
        if inner is None:
            break
        top, left = top + edge, left + edge
        top, left, bottom, right = top + inner[0], left + inner[1], top + inner[2], left + inner[3]
    down, across = height / sheet.shape[0], width / sheet.shape[1]
    x, y = int(np.ceil(left * across)), int(np.ceil(top * down))
    box = (x, y, int(right * across) - x, int(bottom * down) - y)
    return box if _LEAST <= box[2] * box[3] / gray.size <= _MOST else None


def _within_border(sheet: NDArray[np.float32]) -> tuple[int, int, int, int] | None:
    """Top, left, bottom and right of what an even border surrounds; None where there is none."""
    if min(sheet.shape) < 24:
        return None
    sheet = ndimage.median_filter(sheet, 3, mode="nearest")
    steps = ndimage.maximum_filter(sheet, 3, mode="nearest") - ndimage.minimum_filter(sheet, 3, mode="nearest")
    reached, _ = ndimage.label(np.pad(steps < _STEP, 1, constant_values=True))
    border = reached[1:-1, 1:-1] == reached[0, 0]  # from outside without a step
    thing = _without_writing(~border)
    box = _outermost_lines(thing)
    if box is None:
        return None
    top, left, bottom, right = box
    sides = (sheet[: top - 1], sheet[bottom + 1 :], sheet[:, : left - 1], sheet[:, right + 1 :])
    if not all(side.size for side in sides) or np.ptp([np.median(side) for side in sides]) > _TONES:
        return None
    outside = np.ones(sheet.shape, bool)
    outside[top - 1 : bottom + 1, left - 1 : right + 1] = False
    beside = (
        thing[max(0, top - 7) : max(0, top - 3), left:right],
        thing[bottom + 3 : bottom + 7, left:right],
        thing[top:bottom, max(0, left - 7) : max(0, left - 3)],
        thing[top:bottom, right + 3 : right + 7],
    )
    sharp = (
        _sharp(sheet[:, left:right], top),
        _sharp(sheet[:, left:right], bottom),
        _sharp(sheet[top:bottom].T, left),
        _sharp(sheet[top:bottom].T, right),
    )
    is_picture = (
        (bottom - top) * (right - left) >= _LEAST * sheet.size
        and border[outside].mean() >= _EVEN
        and thing[outside].sum() <= _SECOND * sheet.size
        and sum(strip.size > 0 and strip.mean() > _STICKS_OUT for strip in beside) <= 1
        and min(sharp) >= _SHARP
    )
    return box if is_picture else None


def _without_writing(left_over: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is no border, without its thin and small parts."""
    parts, _ = ndimage.label(left_over)
    least = _THIN * min(left_over.shape)
    for number, (down, across) in enumerate(ndimage.find_objects(parts), 1):
        if min(down.stop - down.start, across.stop - across.start) < least:
            parts[down, across][parts[down, across] == number] = 0
    return parts > 0


def _outermost_lines(thing: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """The outermost line on each side, most of which is no border: the step around a picture, wherever inside it the
    border seems to go on, as in a pale sky."""
    top, left, bottom, right = 0, 0, *thing.shape
    for share in (_LINE / 2, _LINE, _LINE):  # each look knows better how long the lines are
        rows = np.flatnonzero(thing[:, left:right].mean(1) >= share)
        columns = np.flatnonzero(thing[top:bottom].mean(0) >= share)
        if min(len(rows), len(columns)) < 2:
            return None
        top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    top, left, bottom, right = top + 1, left + 1, bottom - 1, right - 1  # a step is seen from both of its sides
    return (top, left, bottom, right) if top < bottom and left < right else None


def _sharp(sheet: NDArray[np.float32], at: int) -> float:
    """Of a row, the share that has a step within 3 pixels."""
    return float((np.ptp(sheet[max(0, at - 3) : at + 3], axis=0) >= _STEP).mean())
