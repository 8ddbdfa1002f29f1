import numpy as np
import pytest
import torch

from diffcolor.luminance import replace_luma
from diffcolor.measures import clip_margins, colorfulness, stray_color


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
