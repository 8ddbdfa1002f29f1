"""Colour names: measuring them on pictures, and painting pictures with them.

Pictures are float32 arrays (H, W, 3), gamma-coded sRGB in [0, 1]. Luma is Rec. 601 on gamma-coded values.
"""

from dataclasses import dataclass

import numpy as np

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)
NEUTRALS = ("black", "gray", "white")


@dataclass(frozen=True, kw_only=True)
class Paint:
    """How a named colour is painted over a picture.

    Attributes:
        rgb: a typical colour of that name; only its direction away from gray is used.
        luma_scale: multiplies the picture's luma first (dark colours).
        luma_floor: then luma becomes floor + (1 - floor) * luma (light colours).
        strength: least and greatest share of the available gamut that is used.
    """

    rgb: tuple[float, float, float]
    luma_scale: float = 1.0
    luma_floor: float = 0.0
    strength: tuple[float, float] = (0.65, 1.0)


PAINTS = {
    "red": Paint(rgb=(0.85, 0.08, 0.08), luma_scale=0.85),
    "orange": Paint(rgb=(0.95, 0.50, 0.05), luma_floor=0.12),
    "yellow": Paint(rgb=(0.95, 0.85, 0.10), luma_floor=0.3),
    "green": Paint(rgb=(0.15, 0.60, 0.15)),
    "blue": Paint(rgb=(0.10, 0.25, 0.85), luma_scale=0.9),
    "purple": Paint(rgb=(0.50, 0.15, 0.70), luma_scale=0.85),
    "pink": Paint(rgb=(0.95, 0.50, 0.68), luma_floor=0.3, strength=(0.6, 0.9)),
    "brown": Paint(rgb=(0.48, 0.29, 0.14), luma_scale=0.7, strength=(0.45, 0.75)),
    "beige": Paint(rgb=(0.86, 0.77, 0.60), luma_floor=0.35, strength=(0.3, 0.5)),
    "teal": Paint(rgb=(0.05, 0.55, 0.55)),
    "black": Paint(rgb=(0.5, 0.5, 0.5), luma_scale=0.35),
    "white": Paint(rgb=(0.5, 0.5, 0.5), luma_floor=0.6),
    "gray": Paint(rgb=(0.5, 0.5, 0.5), luma_scale=0.85, luma_floor=0.1),
}
COLOR_NAMES = tuple(PAINTS)
HUES = tuple(name for name in COLOR_NAMES if name not in NEUTRALS)
SYNONYMS = {
    "red": ("red", "red", "red", "scarlet", "crimson"),
    "orange": ("orange", "orange", "orange", "ginger"),
    "yellow": ("yellow", "yellow", "yellow", "golden"),
    "purple": ("purple", "purple", "violet"),
    "teal": ("teal", "turquoise"),
    "gray": ("gray", "gray", "grey"),
    "beige": ("beige", "beige", "tan", "cream"),
}


COLOR_OF_WORD = {word: name for name in COLOR_NAMES for word in (name, *SYNONYMS.get(name, ()))}


def luma(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) to (H, W): Rec. 601 luma."""
    return picture @ LUMA_WEIGHTS


def with_luma(picture: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Gives a picture another luma; chroma is reduced where it would leave the gamut.

    Args:
        picture: (H, W, 3), the source of chroma.
        target: (H, W), the luma wanted, in [0, 1].

    Returns:
        (H, W, 3) in [0, 1].
    """
    offset = picture - luma(picture)[..., None]
    room = np.where(offset > 0, 1 - target[..., None], -target[..., None])
    ratio = np.where(np.abs(offset) > 1e-5, room / np.where(np.abs(offset) > 1e-5, offset, 1), 1).min(-1)
    return target[..., None] + offset * np.clip(ratio, 0, 1)[..., None]


def paint(picture: np.ndarray, name: str, generator: np.random.Generator, vividness: float = 1.0) -> np.ndarray:
    """Repaints a whole picture in one named colour; shading and texture stay.

    Args:
        picture: (H, W, 3).
        name: one of `COLOR_NAMES`.
        generator: varies the colour a little.
        vividness: scales the chroma: below 1 for skies, ground and walls.

    Returns:
        (H, W, 3) in [0, 1].
    """
    recipe = PAINTS[name]
    target = np.clip(luma(picture) * recipe.luma_scale, 0, 1) * (1 - recipe.luma_floor) + recipe.luma_floor
    rgb = np.asarray(recipe.rgb, dtype=np.float32) * generator.uniform(0.93, 1.07, 3).astype(np.float32)
    if name in NEUTRALS:
        return np.repeat(target[..., None], 3, -1)
    direction = rgb - rgb @ LUMA_WEIGHTS
    room = np.where(direction > 0, 1 - target[..., None], target[..., None]) / np.abs(direction)
    reach = np.minimum(room.min(-1), 1.15)
    return target[..., None] + direction * (reach * vividness * generator.uniform(*recipe.strength))[..., None]


def to_lab(picture: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to CIE L*a*b* (D65), same shape."""
    linear = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], -1
    )


def name_pixels(picture: np.ndarray, neutral_chroma: float = 9.5) -> np.ndarray:
    """Names every pixel.

    Args:
        picture: (H, W, 3).
        neutral_chroma: L*a*b* chroma below which a pixel counts as black, gray or white.

    Returns:
        (H, W) array of strings out of `COLOR_NAMES`.
    """
    lightness, a, b = np.moveaxis(to_lab(picture), -1, 0)
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
    warm = (hue > 25) & (hue < 102)
    conditions = [
        ((chroma < neutral_chroma) | (lightness < 12)) & (lightness < 24),
        (chroma < neutral_chroma) & (lightness > 82),
        chroma < neutral_chroma,
        warm & (hue > 48) & (chroma < 34) & (lightness > 60),
        warm & (hue > 33) & (lightness < 58) & (chroma < 55),
        ((hue > 330) | (hue < 45)) & (lightness > 64) & (chroma < 60),
        (hue < 48) | (hue > 358),
        hue < 72,
        hue < 112,
        hue < 180,
        hue < 222,
        hue < 303,
        hue < 332,
    ]
    names = ["black", "white", "gray", "beige", "brown", "pink", "red", "orange", "yellow", "green", "teal", "blue"]
    return np.select(conditions, [*names, "purple"], default="pink")


def color_shares(picture: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """Share of the (masked) pixels that bear each name, greatest first."""
    names = name_pixels(picture)
    names = names[mask] if mask is not None else names.ravel()
    values, counts = np.unique(names, return_counts=True)
    order = np.argsort(-counts)
    return {str(values[i]): float(counts[i]) / max(1, names.size) for i in order}


def spoken(name: str, generator: np.random.Generator) -> str:
    """One of the words for a colour name."""
    return str(generator.choice(SYNONYMS.get(name, (name,))))
