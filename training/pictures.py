"""One source of captioned pictures: photographs and composed scenes, mixed, at any size."""

from dataclasses import dataclass

import cv2
import numpy as np

from training.captions import caption_photograph, caption_recolored
from training.colors import luma
from training.photographs import Photograph
from training.scenes import compose_scene, recolor_region
from training.stamps import Stamp


@dataclass(kw_only=True)
class PictureSource:
    """Draws captioned pictures.

    Attributes:
        photographs: the photographs.
        stamps: the objects that scenes are composed of.
        generator: the source of every random choice.
        photograph_share: how many of the pictures are photographs.
        recolored_share: how many of these have one region repainted in a hue that the caption names.
    """

    photographs: list[Photograph]
    stamps: list[Stamp]
    generator: np.random.Generator
    photograph_share: float = 0.6
    recolored_share: float = 0.15

    def draw(self, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
        """One picture, float32 (H, W, 3) in [0, 1], and its caption."""
        if self.generator.random() < self.photograph_share:
            return self.draw_photograph(shape)
        return self.draw_scene(shape)

    def draw_photograph(self, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
        """A crop of a photograph with its caption."""
        photograph = self.photographs[self.generator.integers(len(self.photographs))]
        picture = vary(random_crop(photograph.pixels, shape, self.generator), self.generator)
        if self.generator.random() < self.recolored_share:
            picture, name = recolor_region(picture, self.generator)
            return picture, caption_recolored(photograph.title, name, self.generator)
        return picture, caption_photograph(photograph.title, picture, self.generator)

    def draw_scene(self, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
        """A composed scene with its caption."""
        photograph = self.photographs[self.generator.integers(len(self.photographs))]
        background = vary(random_crop(photograph.pixels, shape, self.generator), self.generator)
        return compose_scene(self.stamps, shape, background, self.generator)

    def draw_batch(self, count: int, shape: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
        """Pictures (count, 3, H, W) in [0, 1] and their captions."""
        drawn = [self.draw(shape) for _ in range(count)]
        pictures = np.stack([picture for picture, _ in drawn]).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(pictures, dtype=np.float32), [caption for _, caption in drawn]


def random_crop(pixels: np.ndarray, shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """A random part of a photograph at a size: 55 to 100 % of the largest that fits, flipped half the time."""
    height, width = pixels.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * generator.uniform(0.55, 1.0)
    part_h, part_w = min(height, round(shape[0] * scale)), min(width, round(shape[1] * scale))
    top = int(generator.integers(0, height - part_h + 1))
    left = int(generator.integers(0, width - part_w + 1))
    part = pixels[top : top + part_h, left : left + part_w]
    part = cv2.resize(part, shape[::-1], interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)
    if generator.random() < 0.5:
        part = part[:, ::-1]
    return part.astype(np.float32) / 255


def vary(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Varies exposure and saturation a little; modern pictures are brighter and more vivid than the slides."""
    picture = picture ** np.float32(generator.uniform(0.75, 1.15))
    gray = luma(picture)[..., None]
    return (gray + (picture - gray) * np.float32(generator.uniform(0.95, 1.3))).clip(0, 1)


def gray_version(pictures: np.ndarray) -> np.ndarray:
    """(B, 3, H, W) to the same shape with every channel the luma."""
    gray = np.einsum("bchw,c->bhw", pictures, np.array([0.299, 0.587, 0.114], dtype=np.float32))
    return np.repeat(gray[:, None], 3, 1)
