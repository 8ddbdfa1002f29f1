"""The variants of `ablation.py`: how each is trained and sampled, and what takes the place of a piece of the method."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from diffcolor import align, color_prior, colorize, upsample
from diffcolor.base_model import BaseModel
from diffcolor.config import FitConfig, SampleConfig, preset_for
from diffcolor.luminance import replace_luma, soft_luma

ETAS = (0.5, 0.7, 0.9, 1.2, 1.4)  # beside 1
# Photographs and scenes of smaller parts: trainings are long on a CPU. The scenes are all of one size.
PARTS = {"some": (20, 20), "few": (12, 12), "handful": (2, 2), "eight scenes": (0, 8)}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One line of a table.

    Attributes:
        fit: None samples the base model as it is; else the training, of which `after` is the stage that is looked at.
        sample: how pictures are sampled.
        prompt: "caption" (a photograph's title), "hinted" (with colours), "other" (another hue), "empty", or "gray"
            (nothing is sampled).
        alone: the coarse colorizer's picture, nothing is sampled.
        eta: of the embedding, after stage 2.
        k: images in lockstep.
        against: the variant from whose pictures the grounds' colours are not to depart: what recolouring spares.
        seed: what it is derived from: each picture's own "id", or its "group" (a photograph's title).
        instead: of REPLACEMENTS, what takes the place of a piece of the method.
        part: "photographs", "scenes", "all", or one of PARTS.
    """

    name: str
    fit: FitConfig | None = None
    after: str = "in_context"
    sample: SampleConfig
    prompt: str = "caption"
    alone: bool = False
    eta: float = 1.0
    k: int = 4
    seed: str = "id"
    instead: str | None = None
    part: str = "all"
    against: str | None = None


def attraction_loss(image_features: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """The contrastive loss without negatives: what is left is the pull towards the caption."""
    return (1 - (image_features * positive).sum(-1)) / temperature / torch.log(torch.tensor(negatives.shape[1] + 1.0))


def half_aligned(sample_rgb: Tensor, gray: Tensor) -> Tensor:
    """Alignment by half of each displacement."""
    flow = align.correspondence(soft_luma(sample_rgb), gray)
    return replace_luma(align.warp(sample_rgb, flow / 2), gray)


def vae_features(base: BaseModel, luminance: Tensor) -> Tensor:
    """(N, 1, h, w) to (N, C, h, w), of norm 1: the first two blocks of the VAE's encoder in place of patches."""
    encoder = base.vae.encoder
    hidden = encoder.conv_in(F.interpolate(luminance, scale_factor=2, mode="bilinear").expand(-1, 3, -1, -1) * 2 - 1)
    levels = []
    for block in encoder.down_blocks[:2]:
        hidden = block(hidden)
        level = F.interpolate(hidden, luminance.shape[-2:], mode="bilinear")
        levels.append(F.normalize(level - level.mean((-2, -1), keepdim=True), dim=1))
    return torch.cat(levels, 1) / len(levels) ** 0.5


class PlainUpsampler:
    """Bicubic: the scan's edges are not looked at."""

    def __init__(self, gray: NDArray[np.unsignedinteger], chroma: NDArray[np.float32]) -> None:
        self.shape, self.chroma = gray.shape, chroma

    def rows(self, first: int, last: int) -> NDArray[np.float32]:
        return upsample.bicubic_rows(self.chroma, *self.shape, first, last)


# What is replaced, and by what; a few depend on the base model.
REPLACEMENTS: dict[str, Callable[[BaseModel], tuple[ModuleType, str, object]]] = {
    "no-negatives": lambda base: (color_prior, "contrastive_loss", attraction_loss),
    "half-warp": lambda base: (colorize, "spatial_align", half_aligned),
    "vae-features": lambda base: (align, "_patch_features", partial(vae_features, base)),
    "patch-3": lambda base: (align, "PATCH", 3),
    "patch-11": lambda base: (align, "PATCH", 11),
    "reach-2": lambda base: (align, "REACH", 2),
    "reach-8": lambda base: (align, "REACH", 8),
    "no-nearness": lambda base: (align, "_PRIOR_SIGMA", 1e6),
    "bicubic": lambda base: (upsample, "ChromaUpsampler", PlainUpsampler),
}
ALIGNMENTS = ("half-warp", "vae-features", "patch-3", "patch-11", "reach-2", "reach-8", "no-nearness")


def replaced(name: str | None, base: BaseModel) -> AbstractContextManager:
    """With one of REPLACEMENTS in its place."""
    return patch.object(*REPLACEMENTS[name](base)) if name else nullcontext()


def variants(base_model: str = "mini") -> list[Variant]:
    """All of them, with a base model's own presets."""
    balanced, draft, paper = (preset_for(name, base_model) for name in ("balanced", "draft", "paper"))
    shipped, full = balanced.sample, {"fit": balanced.fit}
    line = partial(Variant, sample=shipped)
    plain = replace(shipped, luminance_consistent=False, align=False)
    found = [
        line(name="gray", prompt="gray"),
        Variant(name="base", sample=plain),
        Variant(name="base-aligned", sample=replace(plain, align=True)),
        Variant(name="base-consistent", sample=replace(plain, luminance_consistent=True)),
        Variant(name="base-consistent-aligned", sample=replace(shipped, luminance_consistent=True, align=True)),
        line(name="base-hinted", prompt="hinted"),
        line(name="base-other", prompt="other", part="scenes", against="base-hinted"),
        line(name="base-shared-seed", seed="group", part="photographs"),
        line(name="stage-1", **full, after="color_prior"),
        line(name="stages-1-2", **full),
        line(name="stages-1-2-eta-1.2", **full, eta=1.2),
        line(name="stages-1-2-hinted", **full, prompt="hinted"),
        line(name="stages-1-2-other", **full, prompt="other", part="scenes", against="stages-1-2-hinted"),
        line(
            name="stages-1-2-other-eta-1.2",
            **full,
            prompt="other",
            eta=1.2,
            part="scenes",
            against="stages-1-2-hinted",
        ),
        *(line(name=f"eta-{eta}", **full, prompt="hinted", eta=eta) for eta in ETAS),
    ]
    unaligned = replace(shipped, align=False)
    found += [
        Variant(name="stage-1-no-alignment", **full, after="color_prior", sample=unaligned),
        Variant(name="stages-1-2-no-alignment", **full, sample=unaligned),
    ]
    sweeps = {
        "strength": [{"strength": value} for value in (0.1, 0.35, 0.5, 0.8, 1.0)],
        "guidance": [{"guidance_scale": value} for value in (1.0, 1.5, 3.0, 5.0)],
        "steps": [{"num_inference_steps": value} for value in (10, 40)],
    }
    for name, changes in sweeps.items():
        for change in changes:
            sample = replace(shipped, **change)
            value = next(iter(change.values()))
            found.append(Variant(name=f"base-{name}-{value}", sample=sample, prompt="hinted", part="some"))
    # From much noise and without the scan's luminance, structure moves: there alignment has something to do.
    moved = replace(plain, strength=0.5)
    hinted = {"prompt": "hinted", "part": "some"}
    found += [
        Variant(name="alignment-none", sample=moved, **hinted),
        Variant(name="alignment-shipped", sample=replace(moved, align=True), **hinted),
        *(
            Variant(name=f"alignment-{name}", sample=replace(moved, align=True), instead=name, **hinted)
            for name in ALIGNMENTS
        ),
        Variant(name="alignment-none-consistent", sample=replace(moved, luminance_consistent=True), **hinted),
        line(name="base-vae-features", instead="vae-features", **hinted),
        line(name="base-upsampling-bicubic", instead="bicubic", **hinted),
    ]
    only_stage_1 = replace(balanced.fit, color_prior_steps=60, embedding_steps=0, in_context_steps=0, plateau_window=20)

    def stage_1(name: str, instead: str | None = None, **changes) -> Variant:
        fit_ = replace(only_stage_1, **changes)
        return line(name=f"stage-1-{name}", fit=fit_, after="color_prior", instead=instead, part="few")

    found += [
        stage_1("noise-only", contrastive_weight=0.0, denoising_target="gray"),
        stage_1("no-negatives", instead="no-negatives"),
        *(stage_1(f"target-{target}", denoising_target=target) for target in ("gray", "prior")),
        stage_1("timesteps-all", timesteps="all"),
        *(stage_1(f"lambda-{weight}", contrastive_weight=weight) for weight in (0.05, 0.5, 1.5)),
        *(stage_1(f"tau-{tau}", temperature=tau) for tau in (0.02, 0.2)),
        stage_1("rate-0.001", color_prior_learning_rate=0.001),
    ]
    longer = replace(balanced.fit, color_prior_steps=60, embedding_steps=30, plateau_window=20)
    stage_2 = {
        "steps-10": {"in_context_steps": 10},
        "steps-40": {"in_context_steps": 40},
        "rate-0.0001": {"in_context_steps": 40, "in_context_learning_rate": 1e-4},
    }
    for name, changes in stage_2.items():
        found.append(line(name=f"in-context-{name}", fit=replace(longer, **changes), prompt="hinted", part="few"))
    found += [
        Variant(name=f"preset-{one.preset}", fit=one.fit, sample=one.sample, prompt="hinted", part=part)
        for one, part in ((draft, "few"), (paper, "handful"))
    ]
    # What K is worth is its time; the pictures are equal (tests/diffcolor/test_colorize.py).
    found += [line(name=f"k-{k}", **full, prompt="hinted", k=k, part="eight scenes") for k in (1, 4, 8)]
    return found
