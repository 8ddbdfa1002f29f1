"""Colour by example: a colour picture of the same thing or kind lends its colours to a scan.

Places of the two pictures are matched by what the coarse colorizer's encoder sees of their gray values, and by those
values; every place of the scan takes the mean colour of its matches, in part. The more alike the pictures are, the
more is taken; from a picture of something else, nothing. No network is trained (docs/decisions/0015).
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from diffcolor.coarse import SIZE_MULTIPLE, CoarseColorizer
from diffcolor.geometry import working_size
from diffcolor.lab import ab_of, with_ab
from diffcolor.luminance import luma
from diffcolor.upsample import ChromaUpsampler, box_average

AREA = 224 * 224  # pixels at which pictures are compared
LEVEL = 1  # of the encoder: its places are compared, 8 pixels apart; the coarser levels are brought to it
SHARPNESS = 0.05  # a match that is less alike (cosine) by this much counts e times less
SAME_GRAY = 0.1  # standard deviation of gray, of full scale, between matches
UNLIKE, ALIKE = 0.28, 0.38  # mean cosine of the matches from which colours begin to be taken, and are taken in full
SHARE = 0.6  # of the matches' colour that is then taken: the rest stays the model's


class Reference:
    """A colour picture, seen once and applied to any number of scans.

    Args:
        rgb: (H, W, 3) uint8 sRGB.
    """

    def __init__(self, coarse: CoarseColorizer, rgb: NDArray[np.uint8]) -> None:
        self._coarse = coarse
        self._places = _Places(coarse, (luma(rgb) / 255).astype(np.float32))
        ab = ab_of(torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)[None])
        self._ab = F.interpolate(ab, self._places.shape, mode="area")[0].flatten(1)

    def __call__(self, gray: NDArray[np.float32], rgb: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """A picture with colours taken from the reference.

        Args:
            gray: (H, W) in [0, 1], the scan.
            rgb: (H, W, 3) in [0, 1], its colours so far.

        Returns:
            (H, W, 3) with the luma `gray`, and how alike the pictures are: 0, and the picture as it was, where nothing
            matches; 1 where all is taken that ever is.
        """
        places = _Places(self._coarse, gray)
        cosine = places.seen.T @ self._places.seen
        difference = places.gray[:, None] - self._places.gray[None]
        weights = (cosine / SHARPNESS - (difference / SAME_GRAY).square() / 2).softmax(1)
        likeness = float(((cosine * weights).sum(1).mean() - UNLIKE) / (ALIKE - UNLIKE))
        if likeness <= 0:
            return rgb, 0.0
        ab = ab_of(torch.from_numpy(rgb).permute(2, 0, 1)[None])
        now = F.interpolate(ab, places.shape, mode="area")[0].flatten(1)
        change = SHARE * min(1.0, likeness) * (self._ab @ weights.T - now)
        small = change.reshape(2, *places.shape).permute(1, 2, 0).contiguous().numpy()
        planes = ChromaUpsampler(np.round(gray * 65535).astype(np.uint16), small).rows(0, len(gray))
        painted = with_ab(torch.from_numpy(gray)[None, None], ab + torch.from_numpy(planes).permute(2, 0, 1)[None])
        return np.ascontiguousarray(painted[0].permute(1, 2, 0).numpy()), min(1.0, likeness)


class _Places:
    """What the encoder sees of a picture, on a grid.

    Attributes:
        shape: of the grid.
        seen: (C, N), unit vectors.
        gray: (N,), means.
    """

    def __init__(self, coarse: CoarseColorizer, gray: NDArray[np.float32]) -> None:
        size = working_size(gray.shape[0], gray.shape[1], AREA, SIZE_MULTIPLE)
        picture = torch.from_numpy(gray)[None, None].to(coarse.device)
        seen = F.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False)
        levels = coarse.features(seen)
        self.shape: tuple[int, int] = (levels[LEVEL].shape[-2], levels[LEVEL].shape[-1])
        self.seen = _unit(torch.cat([_unit(self._at_shape(_centred(level))) for level in levels], 1))[0].flatten(1)
        self.gray = torch.from_numpy(box_average(gray, self.shape[0], self.shape[1]).ravel())

    def _at_shape(self, level: Tensor) -> Tensor:
        return F.interpolate(level, self.shape, mode="bilinear", align_corners=False).cpu()


def _centred(level: Tensor) -> Tensor:
    return level - level.mean((2, 3), keepdim=True)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1)
