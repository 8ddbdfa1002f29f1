import torch

from diffcolor.align import correspondence, spatial_align
from diffcolor.luminance import replace_luma, soft_luma


def textured(height=64, width=80):
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(1, 1, height // 4, width // 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0.05, 0.95)


def colored(gray):
    """Blue left, orange right, on `gray`."""
    width = gray.shape[-1]
    right = (torch.arange(width) >= width // 2).float()
    chroma = torch.stack([0.15 * (2 * right - 1), torch.zeros(width), -0.15 * (2 * right - 1)])
    return replace_luma(gray + chroma[None, :, None, :], gray)


def test_nothing_moves_where_sample_and_scan_agree():
    gray = textured()
    moved = correspondence(gray, gray).abs()
    assert moved.mean() < 0.1
    assert moved[..., 6:-6, 6:-6].max() < 1


def test_flat_pictures_stay_in_place():
    gray = torch.full((1, 1, 48, 48), 0.5)
    assert correspondence(gray, gray).abs().mean() < 0.2


def test_a_shifted_sample_is_brought_back():
    gray = textured()
    truth = colored(gray)
    shifted = torch.roll(truth, 3, dims=-1)
    inner = (..., slice(8, -8), slice(8, -8))
    before = (replace_luma(shifted, gray) - truth)[inner].abs().mean()
    after = (spatial_align(shifted, gray) - truth)[inner].abs().mean()
    assert after < 0.35 * before
    found = correspondence(soft_luma(shifted), gray)[inner]
    assert (found[:, 0].median() - 3).abs() < 0.5


def test_the_aligned_picture_has_the_scans_luminance():
    gray = textured()
    assert torch.allclose(soft_luma(spatial_align(torch.rand(1, 3, 64, 80), gray)), gray, atol=1e-5)
