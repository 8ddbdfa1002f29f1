"""What a picture's error is worth: the errors, on the same picture, of colorizations that see nothing of it, and of the
truth itself at coarse resolution.

The tint and the table were learned on the training part of the embedded models (`training/floors.py`).
"""

import json
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

from diffcolor.luminance import chroma_planes, luma, recombine
from diffcolor.measures import colorfulness

FILE = Path(__file__).with_name("floors.json")
LEVELS = 64  # of gray in the table
CELLS = (2, 4, 8)  # along each side
FLOORS = ("gray", "tint", "table")  # know nothing of the picture
ORACLES = ("own_tint", *(f"truth_{cells}x{cells}" for cells in CELLS))  # know its true colours


@cache
def _learned() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    known = json.loads(FILE.read_text(encoding="utf-8"))
    return np.array(known["tint"]), np.array(known["table"])


def floors(truth: NDArray[np.uint8], lab_truth: NDArray[np.float64]) -> dict[str, float]:
    """Mean a*b* error of each of FLOORS and ORACLES, as `NAME_error`, and their colourfulness as `NAME_colorfulness`.

    Args:
        truth: (H, W, 3) sRGB.
        lab_truth: the same in CIELAB.
    """
    gray, true_ab = luma(truth), lab_truth[..., 1:]
    tint, table = _learned()
    guesses = {
        "gray": np.zeros_like(true_ab),
        "tint": np.broadcast_to(tint, true_ab.shape),
        "table": table[gray.astype(int) * LEVELS // 256],
        "own_tint": np.broadcast_to(true_ab.mean((0, 1)), true_ab.shape),
    }
    guesses |= {f"truth_{cells}x{cells}": _in_cells(true_ab, cells) for cells in CELLS}
    figures = {}
    for name, ab in guesses.items():
        figures[f"{name}_error"] = float(np.hypot(*np.moveaxis(ab - true_ab, -1, 0)).mean())
        figures[f"{name}_colorfulness"] = colorfulness(painted(gray, ab)) if name != "gray" else 0.0
    return figures


def _in_cells(ab: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """(H, W, 2), each of cells x cells parts replaced by its mean."""
    planes = []
    for plane in np.moveaxis(ab, -1, 0).astype(np.float32):
        small = Image.fromarray(plane).resize((cells, cells), Image.Resampling.BOX)
        planes.append(np.asarray(small.resize(plane.shape[::-1], Image.Resampling.NEAREST)))
    return np.stack(planes, axis=-1).astype(np.float64)


def painted(gray: NDArray[np.uint8], ab: NDArray[np.float64]) -> NDArray[np.uint8]:
    """a*b* (H, W, 2) on gray (H, W), which stays the luma: (H, W, 3)."""
    lightness = rgb2lab(np.repeat(gray[..., None], 3, -1))[..., :1]
    with warnings.catch_warnings():  # colours out of gamut are reduced below
        warnings.simplefilter("ignore", UserWarning)
        rgb = lab2rgb(np.concatenate([lightness, ab], axis=-1))
    return recombine(gray, chroma_planes(rgb)).astype(np.uint8)
