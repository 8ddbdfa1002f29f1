import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from diffcolor.luminance import Reductions, chroma_planes, luma, recombine, replace_luma, soft_luma
from pipelines.statement import LUMA_FORMULA


def mismatches(gray, rgb) -> int:
    return int(np.count_nonzero(luma(rgb) != gray))


DEPTHS = pytest.mark.parametrize("dtype", [np.uint8, np.uint16])


@DEPTHS
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_recombined_luma_is_the_scan_for_every_gray_and_chroma(dtype, data):
    gray = data.draw(hnp.arrays(dtype, (5, 7)))
    chroma = data.draw(hnp.arrays(np.float32, (5, 7, 2), elements=st.floats(-4, 4, width=32)))
    assert mismatches(gray, recombine(gray, chroma)) == 0


@DEPTHS
def test_exact_on_many_random_pixels(dtype):
    rng = np.random.default_rng(0)
    gray = rng.integers(0, np.iinfo(dtype).max, (600, 600), dtype, endpoint=True)
    chroma = rng.normal(0, 0.4, (600, 600, 2)).astype(np.float32)
    assert mismatches(gray, recombine(gray, chroma)) == 0


def test_every_gray_with_extreme_chroma_in_every_direction():
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    chroma = np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)
    gray = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 64, 1)
    for strength in (1e-3, 0.1, 1, 1e6):
        assert mismatches(gray, recombine(gray, np.broadcast_to(chroma * strength, (256, 64, 2)))) == 0


def test_luma_is_what_pillow_computes_on_every_colour_of_a_coarse_cube():
    r, g, b = np.meshgrid(*[np.arange(0, 256, 3, dtype=np.uint8)] * 3, indexing="ij")
    rgb = np.stack([r, g, b], -1).reshape(-1, r.size // r.shape[0], 3)
    assert np.array_equal(luma(rgb), np.asarray(Image.fromarray(rgb).convert("L")))


def test_chroma_in_gamut_is_kept_to_half_a_code():
    gray = np.full((8, 8), 120, np.uint8)
    chroma = np.full((8, 8, 2), (0.1, -0.05), np.float32)
    colored = recombine(gray, chroma).astype(float)
    assert np.abs(colored[..., 0] - 120 - 25.5).max() <= 1
    assert np.abs(colored[..., 2] - 120 + 12.75).max() <= 1


def test_hue_direction_is_kept_where_the_gamut_ends():
    gray = np.full((1, 1), 250, np.uint8)
    r, _, b = recombine(gray, np.full((1, 1, 2), (-0.5, 0.5), np.float32))[0, 0].astype(int)
    assert r < 250 <= b <= 255


@DEPTHS
def test_what_had_to_be_reduced_is_counted(dtype):
    full = np.iinfo(dtype).max
    gray = np.array([[0, full // 2, full]], dtype)
    reductions = Reductions()
    recombine(gray, np.full((1, 3, 2), (0.1, 0.0), np.float32), reductions)
    assert (reductions.pixels, reductions.reduced, reductions.repaired) == (3, 2, 0)
    assert reductions.share == pytest.approx(2 / 3)
    assert reductions.mean_kept == pytest.approx(0, abs=1e-6), "black and white can hold no colour at all"
    assert Reductions().mean_kept == 1


@DEPTHS
def test_float_errors_are_repaired_in_integers(dtype, monkeypatch):
    """Halves that a float error rounds up instead of down, in all three channels: the luma would be one too high."""
    full = int(np.iinfo(dtype).max)
    gray = np.full((1, 1), full // 3, dtype)
    ceil = np.ceil
    monkeypatch.setattr("numpy.ceil", lambda value: ceil(value) + 1)  # t = Y: three whole channels, each one too high
    reductions = Reductions()
    assert mismatches(gray, recombine(gray, np.zeros((1, 1, 2), np.float32), reductions)) == 0
    assert reductions.repaired == 1


def test_no_chroma_gives_gray_back():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(recombine(gray, np.zeros((16, 16, 2), np.float32)), np.repeat(gray[..., None], 3, -1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_chroma_is_refused(bad):
    chroma = np.zeros((2, 2, 2), np.float32)
    chroma[1, 1, 0] = bad
    with pytest.raises(FloatingPointError):
        recombine(np.zeros((2, 2), np.uint8), chroma)


def test_one_code_of_difference_is_found():
    gray = np.full((9, 9), 77, np.uint8)
    colored = recombine(gray, np.full((9, 9, 2), 0.1, np.float32))
    colored[4, 4] += 1
    assert mismatches(gray, colored) == 1


def test_replace_luma_keeps_luma_and_stays_in_the_cube():
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 9, 9, generator=generator)
    gray = torch.rand(2, 1, 9, 9, generator=generator)
    replaced = replace_luma(rgb, gray)
    assert torch.allclose(soft_luma(replaced), gray, atol=1e-5)
    assert replaced.min() >= -1e-6
    assert replaced.max() <= 1 + 1e-6


def test_replace_luma_passes_gradients():
    rgb = torch.full((1, 3, 2, 2), 0.4).requires_grad_()
    replace_luma(rgb * torch.tensor([1.2, 1.0, 0.8]).view(3, 1, 1), torch.full((1, 1, 2, 2), 0.5))[
        :, 0
    ].sum().backward()
    assert torch.isfinite(rgb.grad).all()
    assert rgb.grad.abs().sum() > 0


def test_chroma_planes_and_recombine_agree_on_an_image():
    rgb = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    gray = (soft_luma(rgb[None])[0, 0].numpy() * 255).round().astype(np.uint8)
    again = recombine(gray, chroma_planes(rgb.permute(1, 2, 0).numpy()))
    assert np.abs(again / 255 - rgb.permute(1, 2, 0).numpy()).max() < 2.5 / 255


def test_the_formula_that_records_state_is_the_one_that_is_computed():
    rgb = np.random.default_rng(0).integers(0, 65536, (1000, 3)).astype(np.uint16)
    channels = dict(zip("RGB", rgb.astype(np.int64).T, strict=True))
    assert np.array_equal(eval(LUMA_FORMULA, {"__builtins__": {}}, channels), luma(rgb))
