import numpy as np
import pytest
from PIL import Image

from diffcolor.upsample import ChromaUpsampler, _bilateral, box_average


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
    guide = gray / np.float32(255)
    plain = box_average(_bilateral(guide, 0, gray.shape, box_average(guide, 12, 16), low), 12, 16)
    assert np.abs(averaged - low).mean() < 0.5 * np.abs(plain - low).mean()


def test_box_average_is_the_mean_over_cells():
    plane = np.random.default_rng(0).random((30, 40)).astype(np.float32)
    expected = plane.reshape(10, 3, 8, 5).mean((1, 3))
    assert np.allclose(box_average(plane, 10, 8), expected, atol=1e-6)


@pytest.mark.parametrize("cell", [1.0, 2.5])
def test_strips_of_any_height_give_the_same_colours(monkeypatch, cell):
    gray, chroma = scene()
    low = box_average(chroma, 12, 16)
    whole = ChromaUpsampler(gray, low, cell).rows(0, 96)
    monkeypatch.setattr("diffcolor.upsample.STRIP_PIXELS", 128 * 5)
    upsampler = ChromaUpsampler(gray, low, cell)
    strips = np.concatenate([upsampler.rows(first, min(first + 7, 96)) for first in range(0, 96, 7)])
    assert np.abs(strips - whole).max() < 1e-3


def test_a_page_larger_than_the_guide_gets_nearly_the_same_colours(monkeypatch):
    gray, chroma = scene(384, 512)
    low = box_average(chroma, 12, 16)
    whole = ChromaUpsampler(gray, low).rows(0, 384)
    monkeypatch.setattr("diffcolor.upsample.GUIDE_PIXELS", 384 * 512 // 9)
    assert np.abs(ChromaUpsampler(gray, low).rows(0, 384) - whole).mean() < 0.01


def test_dots_of_a_halftone_are_no_edges():
    """Under dots the colour of a plain area stays plain."""
    gray = np.where(np.indices((96, 128)).sum(0) // 3 % 2, 40, 220).astype(np.uint8)
    low = np.tile(np.array([(0.2, -0.1), (-0.2, 0.1)], np.float32), (12, 8, 1))
    flat = ChromaUpsampler(gray, low, cell=6.0).rows(0, 96)
    dotted = ChromaUpsampler(gray, low).rows(0, 96)
    assert np.abs(np.diff(flat, axis=0)).mean() < 0.3 * np.abs(np.diff(dotted, axis=0)).mean()
