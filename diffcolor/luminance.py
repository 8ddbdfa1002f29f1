"""Exact luminance: a colour image whose integer luma is the scan's gray value at every pixel.

The guarantee: `(19595*R + 38470*G + 7471*B + 32768) >> 16` of every lossless output equals the input's gray value, at
8 and at 16 bit. At 8 bit this is BT.601 luma as `PIL.Image.convert("L")` computes it (Pillow >= 6).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WEIGHTS = (19595, 38470, 7471)  # of 65536: BT.601 in 16-bit fixed point
_R, _G, _B = (weight / 65536 for weight in WEIGHTS)


def luma(rgb: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Integer luma of (..., 3) uint8 or uint16 code values; returns (...), same dtype."""
    # The largest sum, 65535 * 65536 + 32768, fits uint32.
    r, g, b = (rgb[..., channel].astype(np.uint32) * np.uint32(weight) for channel, weight in enumerate(WEIGHTS))
    return ((r + g + b + np.uint32(32768)) >> np.uint32(16)).astype(rgb.dtype)


@dataclass
class Reductions:
    """How many pixels `recombine` had to change, summed over its calls.

    Attributes:
        pixels: number of all pixels.
        reduced: number of pixels whose chroma was out of gamut and was reduced.
        kept: the share of its chroma that each of these kept, summed over them.
        repaired: number of pixels whose luma was off by a float error and was corrected in integers.
    """

    pixels: int = 0
    reduced: int = 0
    kept: float = 0.0
    repaired: int = 0

    @property
    def share(self) -> float:
        """Share of the pixels whose chroma was reduced."""
        return self.reduced / max(1, self.pixels)

    @property
    def mean_kept(self) -> float:
        """Share of its chroma that a reduced pixel kept, on average; 1 where no pixel was reduced."""
        return self.kept / self.reduced if self.reduced else 1.0


def recombine(
    gray: NDArray[np.unsignedinteger], chroma: NDArray[np.floating], reductions: Reductions | None = None
) -> NDArray[np.unsignedinteger]:
    """Colours a scan without touching its luminance.

    Why it is exact for every input: let t be a real colour in the cube with luma exactly Y, and q its channels rounded
    with halves down, so -1/2 <= q - t < 1/2. The weights are >= 0 and sum to 1, so luma(q) - Y is in [-1/2, 1/2) and
    rounds to Y. Such a t exists, because gray (Y, Y, Y) is in the cube and a move along a zero-luma direction keeps Y.

    Args:
        gray: (H, W), uint8 or uint16, the scan's code values.
        chroma: (H, W, 2), `R - luma` and `B - luma` in units of full scale, about -1..1.
        reductions: counts are added to it.

    Returns:
        (H, W, 3), dtype of `gray`. Colours out of gamut are reduced in chroma at constant luma, hue direction kept.

    Raises:
        FloatingPointError: chroma is not finite.
    """
    if not np.isfinite(chroma).all():
        raise FloatingPointError("chroma is not finite")
    full = np.iinfo(gray.dtype).max
    y = gray.astype(np.float64)[..., None]
    r_offset, b_offset = np.moveaxis(chroma.astype(np.float64) * full, -1, 0)
    direction = np.stack([r_offset, -(WEIGHTS[0] * r_offset + WEIGHTS[2] * b_offset) / WEIGHTS[1], b_offset], axis=-1)
    room = np.where(direction > 0, full - y, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(direction != 0, room / np.abs(direction), np.inf)
    scale = np.minimum(1.0, reach.min(axis=-1, keepdims=True))
    target = np.clip(y + scale * direction, 0, full)  # the clip only removes float rounding errors
    rounded = np.ceil(target - 0.5).astype(np.int64)
    # Float error may leave a luma off by one; adding e to all three channels changes the integer luma by exactly e.
    errors = gray.astype(np.int64) - luma(rounded.astype(gray.dtype)).astype(np.int64)
    rounded += errors[..., None]
    assert ((rounded >= 0) & (rounded <= full)).all(), "repair left the colour cube"
    if reductions is not None:
        out_of_gamut = scale[..., 0] < 1
        reductions.pixels += gray.size
        reductions.reduced += int(np.count_nonzero(out_of_gamut))
        reductions.kept += float(scale[..., 0][out_of_gamut].sum())
        reductions.repaired += int(np.count_nonzero(errors))
    return rounded.astype(gray.dtype)


def soft_luma(rgb: Tensor) -> Tensor:
    """Real-valued luma of (N, 3, H, W) in [0, 1]; returns (N, 1, H, W)."""
    r, g, b = rgb.unbind(dim=1)
    return (_R * r + _G * g + _B * b).unsqueeze(1)


def replace_luma(rgb: Tensor, gray: Tensor) -> Tensor:
    """Differentiable `recombine` at working size: `rgb`'s chroma on `gray`'s luminance.

    Args:
        rgb: (N, 3, H, W), about [0, 1].
        gray: (N, 1, H, W) in [0, 1].

    Returns:
        (N, 3, H, W) in [0, 1], luma equal to `gray` up to float rounding.
    """
    direction = rgb - soft_luma(rgb)
    room = torch.where(direction > 0, 1 - gray, gray)
    scale = (room / direction.abs().clamp_min(1e-6)).amin(dim=1, keepdim=True).clamp_max(1.0)
    return gray + scale * direction


def chroma_planes(rgb: NDArray[np.floating]) -> NDArray[np.float32]:
    """`R - luma` and `B - luma` of a picture (h, w, 3) in [0, 1]; returns (h, w, 2)."""
    return (rgb[..., [0, 2]] - (rgb @ np.array([_R, _G, _B]))[..., None]).astype(np.float32)
