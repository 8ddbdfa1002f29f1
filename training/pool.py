"""A pool of encoded pictures: composing and encoding a picture costs more than a training step on its latents."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.conditioning import Conditioning
from training.pictures import PictureSource, gray_version

ENCODED_AT_ONCE = 8


@dataclass(kw_only=True)
class Pool:
    """Pictures of one shape, encoded.

    Attributes:
        latents, grays: (N, C, h, w) float16, of the pictures and of their gray versions.
        captions: N texts.
    """

    latents: Tensor
    grays: Tensor
    captions: list[str]

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor, list[str]]:
        """`count` of the latents and of the gray latents, float32, and their captions."""
        chosen = generator.integers(0, len(self.captions), count)
        return self.latents[chosen].float(), self.grays[chosen].float(), [self.captions[i] for i in chosen]


def encode_pool(source: PictureSource, frozen: Conditioning, count: int, shape: tuple[int, int]) -> Pool:
    """Draws and encodes `count` (a multiple of 8) pictures of (H, W) `shape`."""
    latents, grays, captions = [], [], []
    for _ in range(0, count, ENCODED_AT_ONCE):
        pictures, texts = source.draw_batch(ENCODED_AT_ONCE, shape)
        latents.append(frozen.encode(pictures).half())
        grays.append(frozen.encode(gray_version(pictures)).half())
        captions += texts
    return Pool(latents=torch.cat(latents), grays=torch.cat(grays), captions=captions)


def save_pool(path: Path, pool: Pool) -> None:
    """Writes a pool for later trainings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(vars(pool), path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def load_pools(folder: Path) -> dict[tuple[int, int], Pool]:
    """Every pool in a folder, joined by shape (of the latents)."""
    found: dict[tuple[int, int], list[Pool]] = {}
    for path in sorted(folder.glob("*.pt")):
        pool = Pool(**torch.load(path))
        found.setdefault(tuple(pool.latents.shape[-2:]), []).append(pool)
    return {
        shape: Pool(
            latents=torch.cat([pool.latents for pool in pools]),
            grays=torch.cat([pool.grays for pool in pools]),
            captions=[caption for pool in pools for caption in pool.captions],
        )
        for shape, pools in found.items()
    }
