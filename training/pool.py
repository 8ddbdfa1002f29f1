"""A pool of encoded pictures: composing and encoding a picture costs more than a training step on its latents."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffcolor.coarse import CoarseColorizer, load_coarse
from diffcolor.lab import with_ab
from training.colors import luma, to_lab
from training.conditioning import Conditioning
from training.pictures import PictureSource
from training.runs import digest, trained
from training.scanning import age

ENCODED_AT_ONCE = 8
SHAPES = {(128, 128): 0.5, (96, 160): 0.3, (160, 96): 0.2}  # of the pictures, with their shares


@dataclass(kw_only=True)
class Pool:
    """Pictures of one shape, encoded.

    Attributes:
        latents, grays, starts: (N, C, h, w) float16: of the true colours, of the gray scan, and of the colours that the
            coarse colorizer gives it for its caption.
        captions: N texts.
    """

    latents: Tensor
    grays: Tensor
    starts: Tensor
    captions: list[str]


def folder_of(runs: Path) -> Path:
    """RUNS/pool/DIGEST of the models that it was made with."""
    return runs / "pool" / digest(runs, "vae", "coarse")


def write_pools(options: Namespace, source: PictureSource, frozen: Conditioning) -> None:
    """Writes a pool for each shape, `options.pictures` altogether; `options.seed` names it."""
    coarse, folder = load_coarse(), folder_of(options.runs)
    if weights := trained(options.runs, "coarse"):
        coarse.net.load_state_dict(weights)
    folder.mkdir(parents=True, exist_ok=True)
    for (height, width), share in SHAPES.items():
        generator = np.random.default_rng([options.seed, height, width])
        count = ENCODED_AT_ONCE * round(options.pictures * share / ENCODED_AT_ONCE)
        pool = encode_pool(source, frozen, coarse, count, (height, width), generator)
        path = folder / f"{height}x{width}-{options.seed}.pt"
        torch.save(vars(pool), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)


def encode_pool(
    source: PictureSource,
    frozen: Conditioning,
    coarse: CoarseColorizer,
    count: int,
    shape: tuple[int, int],
    generator: np.random.Generator,
) -> Pool:
    """Draws and encodes `count` (a multiple of 8) pictures of (H, W) `shape`."""
    parts: dict[str, list[Tensor]] = {"latents": [], "grays": [], "starts": []}
    captions: list[str] = []
    for _ in range(0, count, ENCODED_AT_ONCE):
        drawn = [source.draw(shape, generator) for _ in range(ENCODED_AT_ONCE)]
        said = [one.caption for one in drawn]
        gray = torch.from_numpy(np.stack([age(luma(one.picture), generator) for one in drawn]))[:, None]
        ab = torch.from_numpy(np.stack([to_lab(one.picture)[..., 1:].astype(np.float32) for one in drawn]))
        parts["latents"].append(frozen.encode(with_ab(gray, ab.permute(0, 3, 1, 2))).half())
        parts["grays"].append(frozen.encode(gray.expand(-1, 3, -1, -1)).half())
        parts["starts"].append(frozen.encode(coarse.colorize(gray, said)).half())
        captions += said
    return Pool(captions=captions, **{name: torch.cat(some) for name, some in parts.items()})


def load_pools(folder: Path) -> list[Pool]:
    """Every pool in a folder, joined by shape."""
    found: dict[tuple[int, int], list[Pool]] = {}
    for path in sorted(folder.glob("*.pt")):
        pool = Pool(**torch.load(path, weights_only=True))
        found.setdefault(tuple(pool.latents.shape[-2:]), []).append(pool)
    return [
        Pool(
            **{name: torch.cat([getattr(pool, name) for pool in pools]) for name in ("latents", "grays", "starts")},
            captions=[caption for pool in pools for caption in pool.captions],
        )
        for pools in found.values()
    ]
