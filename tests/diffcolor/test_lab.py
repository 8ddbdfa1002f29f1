"""CIELAB as tensors, beside scikit-image's."""

import numpy as np
import torch
from skimage.color import rgb2lab

from diffcolor.lab import ab_of, with_ab
from diffcolor.luminance import soft_luma


def colors(count: int = 64, low: float = 0, high: float = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(low, high, (2, 3, count, count)).astype(np.float32))


def test_ab_is_that_of_scikit_image():
    rgb = colors()
    for ours, picture in zip(ab_of(rgb), rgb, strict=True):
        assert np.abs(ours.permute(1, 2, 0).numpy() - rgb2lab(picture.permute(1, 2, 0).numpy())[..., 1:]).max() < 0.02


def test_a_picture_is_made_again_of_its_luma_and_its_ab():
    rgb = colors()
    again = with_ab(soft_luma(rgb), ab_of(rgb))
    assert (soft_luma(again) - soft_luma(rgb)).abs().max() < 1e-6
    assert (again - rgb).abs().quantile(0.999) < 2e-3
    assert (again - rgb).abs().mean() < 1e-4


def test_chroma_without_room_is_reduced_at_the_same_luma():
    gray = torch.linspace(0, 1, 256).view(1, 1, 1, 256)
    red = with_ab(gray, torch.tensor([80.0, 67.0]).view(1, 2, 1, 1).expand(1, 2, 1, 256))
    assert red.min() >= -1e-6
    assert red.max() <= 1 + 1e-6
    assert (soft_luma(red) - gray).abs().max() < 1e-6
    assert red[..., 0].abs().max() < 1e-6
    assert (red[..., -1] - 1).abs().max() < 1e-6
    assert (ab_of(red)[0, :, 0, 76] - torch.tensor([80.0, 67.0])).norm() < 2
