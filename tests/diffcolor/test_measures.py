import numpy as np
import pytest
import torch

from diffcolor.measures import clip_margins, colorfulness


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
