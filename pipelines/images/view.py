"""What the model sees of a scan: its regions, upright, in sRGB, without a halftone's dots; and the way back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcolor.config import HINTING
from diffcolor.geometry import fitting_size, working_gray
from diffcolor.hints import Hint, HintSpreader
from diffcolor.lab import ab_of
from diffcolor.luminance import chroma_planes
from diffcolor.upsample import box_average
from manifests.color_places import ColorPlace
from pipelines.images.errors import InputImageError
from pipelines.images.frame import Box, seen_box, turned_back, turned_upright
from pipelines.images.gray import GrayImage
from pipelines.images.halftone import halftone_period
from pipelines.images.rules import MIN_SIDE
from pipelines.images.sheet import find_picture

_SCREEN_CELLS = 1.5  # periods of a screen over which its dots even out


@dataclass(frozen=True)
class View:
    """The smallest box around `regions` of `image`; without regions, the whole image.

    Attributes:
        places: where colours are known.
    """

    image: GrayImage
    regions: Sequence[Box] = ()
    places: Sequence[ColorPlace] = ()

    def check(self) -> "View":
        """The view itself.

        Raises:
            InputImageError: `region_outside`, `too_small`, `place_outside`.
        """
        height, width = self.image.gray.shape
        for x, y, across, down in self.regions:
            if x < 0 or y < 0 or x + across > width or y + down > height:
                message = f"region {(x, y, across, down)} leaves the page of {width} x {height} pixels"
                raise InputImageError("region_outside", message)
            if min(across, down) < MIN_SIDE:
                message = f"region {(x, y, across, down)} is too small; both sides need at least {MIN_SIDE} pixels"
                raise InputImageError("too_small", message)
        for place in self.places:
            if not (self._sees(place) or (place.rgb is None and _holds((0, 0, width, height), place))):
                where = f"of its regions {list(self.regions)}" if self.regions else f"of {width} x {height} pixels"
                raise InputImageError("place_outside", f"the colour at {place} lies outside the picture {where}")
        return self

    def on_sheet(self) -> "View":
        """The photograph on its sheet, if there is one around it, and nothing outside is known to have a colour."""
        box = find_picture(self.image.gray)
        coloured = [place for place in self.places if place.rgb is not None]
        if box is None or min(box[2:]) < MIN_SIDE or not all(_holds(box, place) for place in coloured):
            return self
        return replace(self, regions=(box,))

    def cropped(self) -> "View":
        """The viewed box as a page of its own."""
        left, top, _, _ = self.box
        regions = tuple((x - left, y - top, width, height) for x, y, width, height in self.regions)
        return View(replace(self.image, gray=self.stored), regions)

    def shrunk(self, side: int) -> "View":
        """The whole page in 8 bit, its longer side at most `side` pixels."""
        gray = self.image.gray
        scale = min(1.0, side / max(gray.shape))
        height, width = (max(1, round(length * scale)) for length in gray.shape)
        codes = box_average(gray, height, width) * np.float32(255 / np.iinfo(gray.dtype).max)
        regions = []
        for x, y, across, down in self.regions:
            left, top = min(width - 1, round(x * scale)), min(height - 1, round(y * scale))
            right, bottom = round((x + across) * scale), round((y + down) * scale)
            regions.append((left, top, max(1, right - left), max(1, bottom - top)))
        small = np.clip(np.round(codes), 0, 255).astype(np.uint8)
        return View(replace(self.image, gray=small), tuple(regions))

    def preview(self, side: int) -> "View":
        """The seen part in 8 bit, at most `side` pixels long; made once."""
        if side not in self._previews:
            self._previews[side] = self.cropped().shrunk(side)
        return self._previews[side]

    @cached_property
    def _previews(self) -> "dict[int, View]":
        return {}

    @property
    def box(self) -> Box:
        """x, y, width, height of the viewed part."""
        height, width = self.image.gray.shape
        return seen_box(self.regions, width, height)

    @property
    def stored(self) -> NDArray[np.unsignedinteger]:
        """The pixels of the viewed box as stored, not turned; no copy."""
        x, y, width, height = self.box
        return self.image.gray[y : y + height, x : x + width]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the upright view at native size."""
        height, width = self.stored.shape
        return (width, height) if self.image.metadata.orientation >= 5 else (height, width)

    @cached_property
    def halftone(self) -> float | None:
        """Distance of a halftone's dots in pixels, None for a continuous tone."""
        return halftone_period(self.stored)

    @property
    def cell(self) -> float:
        """Native pixels over which dots even out; 1 for a continuous tone."""
        return max(1.0, _SCREEN_CELLS * self.halftone) if self.halftone else 1.0

    def gray(self, height: int, width: int) -> NDArray[np.float32]:
        """The view at working size, (height, width) float32 in [0, 1], upright, sRGB."""
        turned = self.image.metadata.orientation >= 5
        size = (width, height) if turned else (height, width)
        stored = self.stored
        if self.cell > 1:
            dots = tuple(max(1, math.floor(side / self.cell)) for side in stored.shape)
            if dots[0] > size[0]:  # reducing to the working size evens the dots out by itself
                small = box_average(stored, *size) / np.float32(np.iinfo(stored.dtype).max)
            else:
                even = box_average(stored, *dots) * np.float32(65535 / np.iinfo(stored.dtype).max)
                small = working_gray(np.clip(np.round(even), 0, 65535).astype(np.uint16), *size)
        else:
            small = working_gray(stored, *size)
        upright = turned_upright(small, self.image.metadata.orientation)
        return np.ascontiguousarray(
            upright if self.image.profile.assumed else self.image.profile.to_srgb(upright), np.float32
        )

    def hinted(self, rgb: Tensor) -> tuple[Tensor, tuple[float, ...]]:
        """A working picture (3, h, w) with the colours that are known at `places`: (3, H, W), which may be larger.

        Returns:
            The picture, and for each place the share of the wanted chroma that its gray values have room for.
        """
        if not any(map(self._sees, self.places)):
            return rgb, (1.0,) * len(self.places)
        orientation = self.image.metadata.orientation
        picture = turned_back(rgb.float().permute(1, 2, 0).cpu().numpy(), orientation)
        painted, shares = self._hint_spreader(np.ascontiguousarray(picture))
        share = iter(shares)
        kept = tuple(next(share) if self._sees(place) else 1.0 for place in self.places)
        upright = np.ascontiguousarray(turned_upright(painted, orientation))
        return torch.from_numpy(upright).permute(2, 0, 1), kept

    @cached_property
    def _hint_spreader(self) -> HintSpreader:
        gray = turned_back(self.gray(*fitting_size(*self.shape, HINTING.pixels)), self.image.metadata.orientation)
        return HintSpreader(
            np.ascontiguousarray(gray), [self._hint(place) for place in self.places if self._sees(place)]
        )

    def _sees(self, place: ColorPlace) -> bool:
        """Whether a place is coloured by us. What is outside the regions stays neutral, as a neutral place wants it."""
        return any(_holds(region, place) for region in self.regions or (self.box,))

    def _hint(self, place: ColorPlace) -> Hint:
        left, top, across, down = self.box
        ab = None
        if place.rgb is not None:
            code = torch.tensor(place.rgb).view(1, 3, 1, 1) / 255
            ab = tuple(ab_of(code).flatten().tolist())
        return Hint(
            top=(place.y - top) / down,
            left=(place.x - left) / across,
            bottom=(place.y + place.height - top) / down,
            right=(place.x + place.width - left) / across,
            ab=ab,
        )

    def as_stored(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """An upright picture (h, w[, C]) turned as the scan is stored."""
        return np.ascontiguousarray(turned_back(picture, self.image.metadata.orientation))

    def chroma(self, rgb: Tensor) -> NDArray[np.float32]:
        """`R - luma` and `B - luma` of a working picture (3, h, w) in sRGB: (h, w, 2), as stored, in the output's
        profile."""
        picture = turned_back(rgb.float().permute(1, 2, 0).cpu().numpy(), self.image.metadata.orientation)
        codes = picture if self.image.profile.assumed else self.image.profile.from_srgb(picture)
        return chroma_planes(codes)


def _holds(region: Box, place: ColorPlace) -> bool:
    x, y, across, down = region
    return x <= place.x <= x + across - place.width and y <= place.y <= y + down - place.height
