"""The FSA/OWI Kodachromes: mounts cropped away, colourless slides and those with strong casts dropped."""

import re

import numpy as np

from training.colors import luma, to_lab

EDGE = 6  # pixels of a 150 px picture that may hold the slide's white or green rim
LONGEST_FRAME = 16


def crop_mount(picture: np.ndarray) -> np.ndarray:
    """Cuts off the black mount with its rim and rounded corners."""
    inner = picture[EDGE:-EDGE, EDGE:-EDGE]
    light = luma(inner)
    bounds = []
    for axis in (1, 0):
        profile = np.quantile(light, 0.7, axis=axis)
        dark = profile < 0.11
        first = next((i for i in range(LONGEST_FRAME) if not dark[i]), 0)
        last = next((i for i in range(LONGEST_FRAME) if not dark[-1 - i]), 0)
        bounds.append((first + 2 if first else 1, len(profile) - (last + 2 if last else 1)))
    (top, bottom), (left, right) = bounds
    return inner[top:bottom, left:right]


def balance(picture: np.ndarray, share: float = 0.6, norm: int = 6) -> np.ndarray:
    """Takes away a share of the cast (shades-of-gray estimate) and lifts an under-exposed slide."""
    illuminant = np.mean(picture.reshape(-1, 3) ** norm, axis=0) ** (1 / norm)
    gains = np.clip((illuminant.mean() / np.maximum(illuminant, 1e-3)) ** share, 0.75, 1.35)
    picture = np.clip(picture * gains.astype(np.float32), 0, 1)
    lift = np.clip(0.92 / max(float(np.quantile(luma(picture), 0.98)), 0.1), 1.0, 1.5)
    return np.clip(picture * np.float32(lift), 0, 1)


def is_usable(picture: np.ndarray) -> bool:
    """Whether the slide has colour, is not black, and has no strong green or magenta cast left."""
    lab = to_lab(picture)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    mean_a, mean_b = lab[..., 1].mean(), lab[..., 2].mean()
    magenta, green = mean_a > 11 and mean_b < 2, mean_a < -11
    return bool(chroma.mean() > 7 and lab[..., 0].mean() > 13 and not magenta and not green and abs(mean_b) < 38)


def clean_title(title: str) -> str:
    """Takes the archive's brackets, question marks and year out of a title."""
    title = re.sub(r"[\[\]\"?]|\(\s*\)|\s*\b19[34]\d\b\.?", "", title)
    return re.sub(r"\s+", " ", title).strip(" .,") or "a photograph"
