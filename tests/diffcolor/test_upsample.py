import numpy as np
import pytest
from PIL import Image

from diffcolor.luminance import mismatches
from diffcolor.upsample import ChromaUpsampler, box_average, colorize_scan


def scene(height=96, width=128):
    """A gray picture of two regions, and each region's own chroma at native size."""
    y, x = np.mgrid[0:height, 0:width]
    inside = (y - height * 0.5) ** 2 + (x - width * 0.45) ** 2 < (height * 0.31) ** 2
    gray = np.where(inside, 170, 80).astype(np.uint8) + (x // 16).astype(np.uint8)
    chroma = np.where(inside[..., None], (0.3, -0.2), (-0.15, 0.2)).astype(np.float32)
    return gray, chroma


def bicubic(chroma, height, width):
    planes = [Image.fromarray(chroma[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(2)]
    return np.stack([np.asarray(plane) for plane in planes], -1)


@pytest.mark.parametrize("low", [(12, 16), (13, 19)])
def test_strips_give_the_same_as_the_whole(low):
    gray, chroma = scene()
    upsampler = ChromaUpsampler(gray, box_average(chroma, *low))
    whole = upsampler.rows(0, 96)
    strips = np.concatenate([upsampler.rows(first, min(first + 17, 96)) for first in range(0, 96, 17)])
    assert np.abs(whole - strips).max() < 1e-4


def test_colour_follows_the_scans_edges_better_than_bicubic():
    gray, chroma = scene()
    low = box_average(chroma, 12, 16)
    error = np.abs(ChromaUpsampler(gray, low).rows(0, 96) - chroma).mean()
    assert error < 0.6 * np.abs(bicubic(low, 96, 128) - chroma).mean()


def test_constant_chroma_stays_constant():
    gray, _ = scene()
    low = np.full((9, 11, 2), (0.2, -0.1), np.float32)
    assert np.abs(ChromaUpsampler(gray, low).rows(0, 96) - low[0, 0]).max() < 1e-4


def test_back_projection_keeps_the_models_colour():
    gray, chroma = scene()
    low = box_average(np.random.default_rng(0).normal(0, 0.1, chroma.shape).astype(np.float32), 12, 16)
    upsampler = ChromaUpsampler(gray, low)
    averaged = box_average(upsampler.rows(0, 96), 12, 16)
    plain = box_average(upsampler._bilateral(0, 96), 12, 16)
    assert np.abs(averaged - low).mean() < 0.5 * np.abs(plain - low).mean()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(64, 300), (301, 67)])
def test_native_colours_are_exact_in_luminance(dtype, size):
    rng = np.random.default_rng(2)
    gray = rng.integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True)
    assert mismatches(gray, colorize_scan(gray, rng.normal(0, 0.3, (20, 24, 2)).astype(np.float32))) == 0


def test_long_pages_are_colored_strip_by_strip(monkeypatch):
    gray, chroma = scene()
    low = box_average(chroma, 12, 16)
    whole = colorize_scan(gray, low)
    monkeypatch.setattr("diffcolor.upsample.STRIP_PIXELS", 128 * 5)
    assert np.abs(colorize_scan(gray, low).astype(int) - whole).max() <= 1
