"""One source of captioned pictures for every training: photographs and composed scenes, mixed, at any size."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from training.captions import NAMELESS
from training.colors import luma
from training.scanning import mount
from training.scenes import compose_scene
from training.shoots import Captioned
from training.stamps import Stamp
from training.wording import colored_label, describe, recolor_named

SHARES = {
    "kodachrome": 0.34,
    "various": 0.28,
    "small": 0.11,
    "clothing": 0.07,
    "flowers": 0.08,
    "grocery": 0.05,
    "portraits": 0.07,
}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A captioned picture.

    Attributes:
        picture: (H, W, 3) float32 in [0, 1].
        extra: (H, W), how much more than usual each place counts.
        twin: the same picture with its one repainted thing, where `extra` is 1, in its own colour; with its caption.
    """

    picture: NDArray[np.float32]
    caption: str
    extra: NDArray[np.float32]
    twin: "Drawn | None" = None


@dataclass(frozen=True, kw_only=True)
class PictureSource:
    """Draws captioned pictures.

    Attributes:
        photographs: by set, as `shoots.read_pack` gives them.
        stamps: the objects that scenes are composed of.
        scenes: how many of the pictures are scenes.
        recolored: how many of the photographs whose caption names colours have one thing repainted.
        mounted: how many of the pictures are put on a sheet.
    """

    photographs: dict[str, list[Captioned]]
    stamps: list[Stamp]
    scenes: float = 0.14
    recolored: float = 0.4
    mounted: float = 0.08
    shares: dict[str, float] = field(default_factory=lambda: SHARES)

    def draw(self, shape: tuple[int, int], generator: np.random.Generator) -> Drawn:
        """One picture of (H, W) `shape`."""
        names = [name for name in self.shares if name in self.photographs]
        shares = np.array([self.shares[name] for name in names])
        name = str(generator.choice(names, p=shares / shares.sum()))
        one = self.photographs[name][generator.integers(len(self.photographs[name]))]
        picture = vary(crop(one.pixels, shape, generator), generator)
        if generator.random() < self.scenes:
            picture, caption = compose_scene(self.stamps, shape, picture, generator)
            drawn = Drawn(
                picture=picture,
                caption=caption if generator.random() > 0.15 else "",
                extra=np.zeros(shape, np.float32),
            )
        else:
            drawn = self._photograph(one, picture, generator)
        if generator.random() < self.mounted:
            picture, outside = mount(drawn.picture, generator)
            drawn = Drawn(
                picture=picture, caption=drawn.caption, extra=np.where(outside, np.float32(0.7), np.float32(0))
            )
        return drawn

    def _photograph(self, one: Captioned, picture: NDArray[np.float32], generator: np.random.Generator) -> Drawn:
        """What is said of it may be changed, and the picture with it."""
        named = one.caption or colored_label(one.title, picture)
        changed = recolor_named(named, picture, generator) if generator.random() < self.recolored else None
        if changed:
            caption, repainted, mask = changed
            twin = Drawn(picture=picture, caption=named, extra=mask)
            return Drawn(picture=repainted, caption=caption, extra=mask, twin=twin)
        title = named if not one.caption and generator.random() < 0.6 else one.title
        nothing = np.zeros(picture.shape[:2], np.float32)
        return Drawn(picture=picture, caption=describe(title, one.caption, picture, generator), extra=nothing)

    def draw_named(
        self, shape: tuple[int, int], count: int, generator: np.random.Generator
    ) -> Iterator[tuple[NDArray[np.float32], str]]:
        """`count` pictures (H, W, 3) with captions, none of them empty."""
        for _ in range(count):
            drawn = self.draw(shape, generator)
            yield drawn.picture, drawn.caption or str(generator.choice(NAMELESS))


def crop(pixels: NDArray[np.uint8], shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float32]:
    """A random part of a photograph at a size: 50 to 100 % of the largest that fits, flipped half the time."""
    height, width = pixels.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * generator.uniform(0.5, 1.0)
    part_h, part_w = min(height, round(shape[0] * scale)), min(width, round(shape[1] * scale))
    top, left = int(generator.integers(0, height - part_h + 1)), int(generator.integers(0, width - part_w + 1))
    part = pixels[top : top + part_h, left : left + part_w]
    part = cv2.resize(part, shape[::-1], interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)
    return np.ascontiguousarray(part[:, ::-1] if generator.random() < 0.5 else part, dtype=np.float32) / 255


def vary(picture: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """Varies exposure and saturation a little; modern pictures are brighter and more vivid than the slides."""
    picture = picture ** np.float32(generator.uniform(0.75, 1.15))
    gray = luma(picture)[..., None]
    return (gray + (picture - gray) * np.float32(generator.uniform(0.95, 1.3))).clip(0, 1)


def stacked(pictures: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Pictures (H, W, 3) as (B, 3, H, W)."""
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2), dtype=np.float32)


def gray_version(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, 3, H, W) to the same shape with every channel the luma."""
    gray = np.einsum("bchw,c->bhw", pictures, np.array([0.299, 0.587, 0.114], dtype=np.float32))
    return np.repeat(gray[:, None], 3, 1)
