import numpy as np
import pytest
import torch

from diffcolor.luminance import replace_luma
from diffcolor.measures import clip_margins, colorfulness, lightness_shift, stray_color
from diffcolor.srgb import linear_to_srgb, srgb_to_linear


def test_gray_is_not_colorful():
    gray = np.random.default_rng(0).integers(0, 256, (40, 50, 1), np.uint8).repeat(3, -1)
    assert colorfulness(gray) == 0


def test_colorfulness_by_hand():
    # Half pure red, half pure green: rg = +-255 (mean 0, deviation 255), yb = 127.5 everywhere.
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, :, 0] = picture[1, :, 1] = 255
    assert colorfulness(picture) == pytest.approx(255 + 0.3 * 127.5)


def test_colorfulness_does_not_depend_on_depth():
    picture = np.random.default_rng(1).integers(0, 256, (30, 30, 3), np.uint8)
    assert colorfulness(picture.astype(np.uint16) * 257) == pytest.approx(colorfulness(picture))


def test_lightness_shift_of_every_code_by_hand():
    codes = np.arange(256) / 255
    light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)

    def lightness(y):
        return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)

    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for channel, share in enumerate((0.2126, 0.7152, 0.0722)):
        rgb = np.zeros((16, 16, 3), np.uint8)
        rgb[..., channel] = gray[::-1]
        shift = np.abs(lightness(light[gray[::-1]] * share) - lightness(light[gray]))
        assert lightness_shift(rgb, gray) == (shift.mean(), shift.max())


def test_the_srgb_curve_has_an_inverse():
    codes = np.arange(65536) / 65535
    assert np.abs(linear_to_srgb(srgb_to_linear(codes)) - codes).max() < 1e-7
    assert srgb_to_linear(np.array([0.0, 0.04045, 0.5, 1.0])) == pytest.approx([0, 0.0031308, 0.2140411, 1], abs=1e-7)


def test_clip_margin_is_against_the_nearest_negative():
    image = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[[0.0, 1.0], [0.6, 0.8], [0.0, 0.0]]])
    assert clip_margins(image, image, negatives).item() == pytest.approx(0.4)


def test_colour_strays_where_it_leaves_its_edges():
    gray = torch.full((1, 1, 32, 32), 0.4)
    gray[..., 16:] = 0.6
    red, blue = torch.tensor([0.8, 0.2, 0.2]), torch.tensor([0.2, 0.2, 0.8])

    def colored(border: int) -> torch.Tensor:
        """Red to the left of the border, blue to the right of it."""
        rgb = red.view(1, 3, 1, 1).repeat(1, 1, 32, 32)
        rgb[..., border:] = blue.view(1, 3, 1, 1)
        return replace_luma(rgb, gray)

    at_edge, beside, plain = (stray_color(colored(border), gray).item() for border in (16, 20, 32))
    assert plain < at_edge + 1e-6 < 0.1 * beside
    washed = replace_luma(0.5 * colored(20) + 0.5 * gray, gray)
    assert stray_color(washed, gray).item() == pytest.approx(beside, rel=0.05)  # milder colour is no better placed
    assert stray_color(gray.expand(-1, 3, -1, -1), gray).item() == 0
    larger = [one.repeat_interleave(4, 2).repeat_interleave(4, 3) for one in (colored(20), gray)]
    assert stray_color(*larger).item() == pytest.approx(beside, rel=0.05)
