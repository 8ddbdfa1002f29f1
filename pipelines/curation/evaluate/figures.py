"""Figures of one colour picture compared with its true colours, as functions of arrays.

CIELAB is that of sRGB under D65 (scikit-image). Luminance is the scan's by construction: what can be wrong is colour.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from diffcolor.measures import colorfulness
from pipelines.curation.evaluate.floors import floors

CHROMATIC = 12.0  # CIELAB chroma of the truth above which a pixel's hue is compared
HUE_AGREEMENT = 35.0  # degrees
HUE_TOLERANCE = 30.0  # degrees within which a picture counts as having taken the hinted hue
_COLOURLESS = 5.0  # CIELAB chroma below which a hue means nothing


def against_truth(rgb: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float | None]:
    """How far a picture is from the truth, and how far the plain gray picture is.

    Args:
        rgb, truth: (H, W, 3) sRGB.

    Returns:
        `ciede2000` (mean of the pixels), `ciede2000_p95` (their 95th percentile), `ab_error` (mean distance in a*b*),
        `ab_ratio` (`ab_error` relative to that of the gray picture), `colorfulness`, `colorfulness_truth`,
        `hue_agreement` (share of the pixels of true chroma over `CHROMATIC` whose hue is within `HUE_AGREEMENT` of the
        truth's; None where there are none), `psnr` (dB), `ssim`, and the figures of `floors`.
    """
    lab, lab_truth = rgb2lab(rgb), rgb2lab(truth)
    difference = deltaE_ciede2000(lab, lab_truth)
    error = np.hypot(*np.moveaxis(lab[..., 1:] - lab_truth[..., 1:], -1, 0)).mean()
    known = floors(truth, lab_truth)
    return {
        "ciede2000": float(difference.mean()),
        "ciede2000_p95": float(np.percentile(difference, 95)),
        "ab_error": float(error),
        "ab_ratio": float(error / max(known["gray_error"], 1e-6)),
        "colorfulness": colorfulness(rgb),
        "colorfulness_truth": colorfulness(truth),
        "hue_agreement": _hue_agreement(lab, lab_truth),
        "psnr": _psnr(rgb, truth),
        "ssim": float(structural_similarity(truth, rgb, channel_axis=-1, data_range=255)),
        **known,
    }


def _hue_agreement(lab: NDArray[np.float64], lab_truth: NDArray[np.float64]) -> float | None:
    (a, b), (true_a, true_b) = np.moveaxis(lab[..., 1:], -1, 0), np.moveaxis(lab_truth[..., 1:], -1, 0)
    compared = np.hypot(true_a, true_b) > CHROMATIC
    if not compared.any():
        return None
    apart = np.degrees(np.abs(np.angle(np.exp(1j * (np.arctan2(b, a) - np.arctan2(true_b, true_a))))))
    return float(((apart <= HUE_AGREEMENT) & (np.hypot(a, b) >= _COLOURLESS))[compared].mean())


def _psnr(rgb: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB; 100 for equal pictures, where it would be infinite."""
    return float(peak_signal_noise_ratio(truth, rgb, data_range=255)) if (rgb != truth).any() else 100.0


def hue_of(color: str) -> float:
    """CIELAB hue of a colour name or #rrggbb, in degrees.

    Raises:
        ValueError: the colour is unknown, or a gray, which has no hue.
    """
    _, a, b = rgb2lab(np.array([[ImageColor.getrgb(color)[:3]]], np.uint8))[0, 0]
    if np.hypot(a, b) < _COLOURLESS:
        raise ValueError(f"{color!r} has no hue")
    return float(np.degrees(np.arctan2(b, a)) % 360)


def hue_difference(first: float, second: float) -> float:
    """Angle between two hues in degrees, 0 to 180."""
    return float(abs((first - second + 180) % 360 - 180))


def hint_agreement(rgb: NDArray[np.uint8], inside: NDArray[np.bool_], color: str) -> dict[str, float]:
    """Whether the hinted object took the hinted hue, and how much of it bled into the rest.

    Returns:
        `hint_hue_error`: degrees between the hinted hue and the object's median hue (180 where it has no colour).
        `hint_taken`: 1 if that is within `HUE_TOLERANCE`, else 0.
        `bleed`: mean chroma outside the object along the hinted direction, in CIELAB units.
    """
    lab = rgb2lab(rgb)
    wanted = np.radians(hue_of(color))
    direction = np.array([np.cos(wanted), np.sin(wanted)])
    a, b = np.median(lab[inside][:, 1]), np.median(lab[inside][:, 2])
    apart = hue_difference(np.degrees(np.arctan2(b, a)), np.degrees(wanted))
    error = 180.0 if np.hypot(a, b) < _COLOURLESS else apart
    outside = lab[~inside][:, 1:] @ direction
    return {
        "hint_hue_error": float(error),
        "hint_taken": float(error <= HUE_TOLERANCE),
        "bleed": float(np.clip(outside, 0, None).mean()) if outside.size else 0.0,
    }


def spread(means: NDArray[np.float64]) -> float:
    """How far the pictures of a series are apart in colour: the RMS distance of their mean a*b* from the mean of all.

    Args:
        means: (N, 2), of `mean_ab`.
    """
    return float(np.sqrt(((means - means.mean(0)) ** 2).sum(1).mean()))


def mean_ab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(2,), the mean a*b* of (H, W, 3) sRGB."""
    return rgb2lab(rgb)[..., 1:].mean((0, 1))


def interval(values: NDArray[np.float64], draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % interval by the percentile bootstrap over pictures."""
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
