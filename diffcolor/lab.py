"""CIELAB (D65) as tensors: the a*b* of pictures, and pictures of a scan's luma with a given a*b*."""

import torch
from torch import Tensor

from diffcolor.luminance import replace_luma, soft_luma

_WHITE = (0.95047, 1.0, 1.08883)
_XYZ_OF_RGB = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_RGB_OF_XYZ = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
_REACH, _HALVINGS = 0.4, 14  # f of the luminance is sought so far from that of the gray, to 0.00005


def ab_of(rgb: Tensor) -> Tensor:
    """a*b* (K, 2, H, W) of sRGB (K, 3, H, W) in [0, 1]."""
    matrix = torch.tensor(_XYZ_OF_RGB, dtype=rgb.dtype, device=rgb.device) / torch.tensor(_WHITE).to(rgb)[:, None]
    x, y, z = _compressed(torch.einsum("ij,kjhw->kihw", matrix, _linear(rgb))).unbind(1)
    return torch.stack([500 * (x - y), 200 * (y - z)], 1)


def with_ab(gray: Tensor, ab: Tensor) -> Tensor:
    """sRGB (K, 3, H, W) in [0, 1] with the luma `gray` (K, 1, H, W) in [0, 1] and a*b* (K, 2, H, W).

    Colours of one lightness differ in luma; the lightness that gives the scan's is found by bisection. Where the gray
    value leaves no room for the chroma, that is reduced.
    """
    low = _compressed(_linear(gray)) - _REACH
    high = low + 2 * _REACH
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        dark = soft_luma(_rgb(middle, ab)) < gray
        low, high = torch.where(dark, middle, low), torch.where(dark, high, middle)
    return replace_luma(_rgb((low + high) / 2, ab), gray)


def _rgb(y: Tensor, ab: Tensor) -> Tensor:
    """Of compressed relative luminance (L* = 116 y - 16) and a*b*; may leave [0, 1]."""
    a, b = ab.split(1, dim=1)
    f = torch.cat([y + a / 500, y, y - b / 200], dim=1)
    relative = torch.where(f > 6 / 29, f**3, (f - 4 / 29) * 3132 / 24389)
    matrix = torch.tensor(_RGB_OF_XYZ, dtype=f.dtype, device=f.device) * torch.tensor(_WHITE).to(f)
    linear = torch.einsum("ij,kjhw->kihw", matrix, relative)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def _linear(coded: Tensor) -> Tensor:
    return torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055).clamp_min(0) ** 2.4)


def _compressed(relative: Tensor) -> Tensor:
    """CIE 1976's f."""
    return torch.where(relative > 216 / 24389, relative.clamp_min(1e-9) ** (1 / 3), relative * 24389 / 3132 + 4 / 29)
