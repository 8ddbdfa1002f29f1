"""Colour by place: chroma that is known at points and boxes spreads over the things that they lie on.

What the picture lacks of the known colours is spread by the affinity of neighbouring gray values (Levin, Lischinski and
Weiss, Colorization using Optimization, SIGGRAPH 2004) and added to its chroma: no network, no training, any base model.
Levin et al. spread the colours themselves; the difference keeps what the model knows of a thing's shades, and fades
where no hint is near. A neutral hint spreads, too, but as the share of its chroma that a place loses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

from diffcolor.config import HINTING
from diffcolor.lab import ab_of, with_ab
from diffcolor.luminance import WEIGHTS, chroma_planes
from diffcolor.upsample import ChromaUpsampler, box_average


@dataclass(frozen=True, kw_only=True)
class Hint:
    """A colour that is known in a box.

    Attributes:
        top, left, bottom, right: of the box, as shares of the picture's height and width, in [0, 1].
        ab: CIELAB a*b* that is wanted there, at whatever lightness the scan has; None for no colour.
    """

    top: float
    left: float
    bottom: float
    right: float
    ab: tuple[float, float] | None

    @property
    def area(self) -> float:
        return (self.bottom - self.top) * (self.right - self.left)


class HintSpreader:
    """Spreads the hints of one scan over any picture of it; the equations are factored once.

    Args:
        gray: (H, W) in [0, 1], the scan; it becomes the pictures' luma.
    """

    def __init__(self, gray: NDArray[np.float32], hints: Sequence[Hint]) -> None:
        self._gray, self._hints = gray, hints
        # Of hints that overlap, the smaller one counts: a point in a box, a thing on a neutral sheet.
        owner = np.full(gray.shape, -1)
        places = [_places(hint, gray) for hint in hints]
        for index in sorted(range(len(hints)), key=lambda index: -hints[index].area):
            owner[places[index]] = index
        self._places = [owner == index for index in range(len(hints))]
        self._weight = np.where(owner >= 0, HINTING.certainty, 0.0)
        self._system = _factored(gray.astype(np.float64), self._weight)

    def __call__(self, rgb: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[float, ...]]:
        """A picture with the hinted colours, at the size of the scan.

        Args:
            rgb: (h, w, 3) sRGB in [0, 1], the colours so far, at any size.

        Returns:
            (H, W, 3), the chroma reduced where a gray value leaves no room for it; and for each hint the share of the
            wanted chroma that was had: 1 for a neutral one, 0 where smaller hints leave nothing of its place.
        """
        ab = _ab_at(rgb, self._gray)
        wanted = np.zeros((*self._gray.shape, 3))
        for hint, place in zip(self._hints, self._places, strict=True):
            if not place.any():
                continue
            wanted[place, 2] = hint.ab is None
            wanted[place, :2] = 0 if hint.ab is None else np.asarray(hint.ab) - np.median(ab[place], axis=0)
        spread = self._system.solve((self._weight[..., None] * wanted).reshape(-1, 3)).reshape(wanted.shape)
        hinted = (ab + spread[..., :2]) * (1 - spread[..., 2:].clip(0, 1))
        painted = with_ab(torch.from_numpy(self._gray)[None, None], _as_tensor(hinted))
        had = _as_array(ab_of(painted))
        kept = (
            _kept(np.median(had[place], axis=0), hint.ab) if place.any() else 0.0
            for hint, place in zip(self._hints, self._places, strict=True)
        )
        return _as_array(painted), tuple(kept)


def _ab_at(rgb: NDArray[np.float32], gray: NDArray[np.float32]) -> NDArray[np.float64]:
    """a*b* of a picture brought to the scan's size along the scan's edges."""
    chroma = chroma_planes(rgb)
    if chroma.shape[0] > gray.shape[0] or chroma.shape[1] > gray.shape[1]:
        planes = box_average(chroma, *gray.shape)
    else:
        planes = ChromaUpsampler(np.round(gray * 65535).astype(np.uint16), chroma).rows(0, len(gray))
    red, blue = gray + planes[..., 0], gray + planes[..., 1]
    green = gray - (WEIGHTS[0] * planes[..., 0] + WEIGHTS[2] * planes[..., 1]) / WEIGHTS[1]
    return _as_array(ab_of(_as_tensor(np.stack([red, green, blue], -1).clip(0, 1)))).astype(np.float64)


def _as_tensor(array: NDArray) -> Tensor:
    """(H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(np.asarray(array, np.float32)).permute(2, 0, 1)[None]


def _as_array(tensor: Tensor) -> NDArray[np.float32]:
    """(1, C, H, W) to (H, W, C)."""
    return np.ascontiguousarray(tensor[0].permute(1, 2, 0).numpy())


def _kept(had: NDArray[np.float32], ab: tuple[float, float] | None) -> float:
    """The part of the wanted chroma, in its direction."""
    size = np.hypot(*ab) if ab is not None else 0.0
    return float(np.clip(had @ np.asarray(ab) / size**2, 0, 1)) if size > 1 else 1.0


def _places(hint: Hint, gray: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The pixels that a hint speaks of: those of its box that are about as light as its middle half."""
    height, width = gray.shape
    top, left = (min(int(share * side), side - 1) for share, side in ((hint.top, height), (hint.left, width)))
    bottom, right = (int(np.ceil(share * side)) for share, side in ((hint.bottom, height), (hint.right, width)))
    box = (slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1)))
    inside = np.zeros(gray.shape, bool)
    part = gray[box]
    h, w = part.shape
    middle = np.median(part[h // 4 : max(h - h // 4, h // 4 + 1), w // 4 : max(w - w // 4, w // 4 + 1)])
    inside[box] = np.abs(part - middle) <= HINTING.alike
    if not inside.any():
        inside[box] = True
    return inside


def _factored(gray: NDArray[np.float64], weight: NDArray[np.float64]) -> SuperLU:
    """The equations of a field that is near given values where there is weight, and alike where neighbours are alike.

    Solving them for `weight * value` (H * W, C) gives the field.
    """
    height, width = gray.shape
    index = np.arange(height * width).reshape(height, width)
    rows, columns, values = [], [], []
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = (slice(0, height - down), slice(max(0, -across), width - max(0, across)))
        b = (slice(down, height), slice(max(0, across), width + min(0, across)))
        alike = np.exp(-(((gray[a] - gray[b]) / HINTING.edge) ** 2) / 2) + HINTING.leak
        rows.append(index[a].ravel())
        columns.append(index[b].ravel())
        values.append((alike / np.hypot(down, across)).ravel())
    shape = (height * width,) * 2
    one_way = sparse.coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
    affinity = (one_way + one_way.T).tocsc()
    own = np.asarray(affinity.sum(1)).ravel() + HINTING.fade + weight.ravel()
    return splu(sparse.diags(own).tocsc() - affinity, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
