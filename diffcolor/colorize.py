"""DiffColor (arXiv 2308.01655): `fit` trains stages 1 and 2 on scans, `recolor` paints fitted scans for target prompts.

`_two_stages` and `_sample` are the paper's method, one call per line. K images are processed together, each with the
result it would have alone. Where we depart from the paper:

- Adapters of each image (LoRA) are trained, not the whole U-Net (docs/decisions/0001).
- The scan's luminance is put back into every predicted original, before CLIP (the judge) sees it and while sampling
  (docs/decisions/0002 and 0003); alignment then warps chroma alone instead of repainting.
- Stage 1's contrastive loss is weighted with alpha_bar, and timesteps follow a low-discrepancy sequence.
- Sampling may start from the colours of the coarse colorizer instead of from gray (docs/decisions/0013); without a
  base model, they are the picture.
- Several eta are sampled, beyond 1 too; the one with the best `Colored.score` is kept.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffcolor.align import spatial_align
from diffcolor.base_model import BaseModel
from diffcolor.checkpoint import Checkpoint
from diffcolor.color_prior import find_color_prior
from diffcolor.conditioning import Conditioning
from diffcolor.config import Config, FitConfig, SampleConfig
from diffcolor.diffusion import decode, draw_noise, sample
from diffcolor.errors import NonFiniteLossError
from diffcolor.in_context import fine_tune, optimize_embedding
from diffcolor.judge import Judge
from diffcolor.lockstep import Progress
from diffcolor.lora import LoRA, attached_lora, stack
from diffcolor.luminance import replace_luma
from diffcolor.measures import clip_margins, stray_color
from diffcolor.models import Models
from diffcolor.prompts import embed_prompts
from diffcolor.scan import Scan, ScanBatch
from diffcolor.training_state import TrainingState

STRAY_COLOR_WEIGHT = 0.1  # of stray colour in `Colored.score`; tuned on the embedded judge's margins alone
MAX_SAMPLING_BATCH = 8  # pictures sampled at once: bounds memory whatever the number of prompts


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained image: all that is needed to recolour it at any later time.

    Attributes:
        lora: the adapters of this image alone.
        optimized: e_opt, of this image alone (K = 1).
        primary: (3, H, W) in [0, 1], stage 1's aligned colours; None when read back from an artifact.
    """

    scan: Scan
    lora: LoRA
    optimized: Conditioning
    primary: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Colored:
    """One candidate picture.

    Attributes:
        rgb: (3, H, W) in [0, 1] with the scan's luma.
        clip_margin: the judge's rating (`measures.clip_margins`).
        stray_color: how much of its colour ignores the scan's edges (`measures.stray_color`).
    """

    rgb: Tensor
    eta: float
    clip_margin: float
    stray_color: float

    @property
    def score(self) -> float:
        """The favourite is the candidate with the highest score."""
        return self.clip_margin - STRAY_COLOR_WEIGHT * self.stray_color


class Fitting:
    """A fit in progress. Iterating over it trains and yields the `Progress` of each step; `outcomes` is its result."""

    def __init__(self, steps: Generator[Progress, None, list[Fitted | NonFiniteLossError]]) -> None:
        self._steps = steps
        self._outcomes: list[Fitted | NonFiniteLossError] | None = None

    def __iter__(self) -> Iterator[Progress]:
        if self._outcomes is None:
            self._outcomes = yield from self._steps

    @property
    def outcomes(self) -> list[Fitted | NonFiniteLossError]:
        """One per scan, in order. Runs the rest of the training first."""
        if self._outcomes is None:
            for _ in self:
                pass
        assert self._outcomes is not None, "the fit was abandoned"
        return self._outcomes


def fit(
    models: Models, scans: Sequence[Scan], config: FitConfig, checkpoints: Sequence[Checkpoint] | None = None
) -> Fitting:
    """Trains on K scans of one working size in lockstep.

    The shared U-Net is never modified, not even by an error: adapters are attached only while it is called.

    Args:
        checkpoints: the state from which each scan's training resumes, all at one stage and step; None starts afresh.
    """
    batch = ScanBatch.of(models, scans, config.primary)
    if models.base is None:
        return Fitting(_untrained(batch))
    if checkpoints:
        state = TrainingState.resume(models.base, checkpoints)
    else:
        state = TrainingState.fresh(models.base, batch, config)
    return Fitting(_two_stages(models.base, models.judge, batch, state, config))


def _two_stages(
    base: BaseModel, judge: Judge, batch: ScanBatch, state: TrainingState, config: FitConfig
) -> Generator[Progress, None, list[Fitted | NonFiniteLossError]]:
    # Stage 1: colorization with generative colour prior. The adapters, then the primary colours.
    state = yield from find_color_prior(base, judge, batch, state, config)
    state = paint_primary(base, batch, state, config)

    # Stage 2: in-context controllable colorization. e_opt, from prompts with unique identifiers, then the adapters.
    state = yield from optimize_embedding(base, batch, state, config)
    state = yield from fine_tune(base, batch, state, config)

    return [state.failures.get(image) or _fitted(batch.scans[image], state, image) for image in range(len(batch))]


def _untrained(batch: ScanBatch) -> Generator[Progress, None, list[Fitted | NonFiniteLossError]]:
    """What there is without a base model: the coarse colours."""
    yield from ()
    nothing = LoRA.from_named({})
    return [
        Fitted(scan=scan, lora=nothing, optimized=Conditioning({"embeds": torch.zeros(1, 0, 0)}), primary=start)
        for scan, start in zip(batch.scans, batch.starts, strict=True)
    ]


def paint_primary(base: BaseModel, batch: ScanBatch, state: TrainingState, config: FitConfig) -> TrainingState:
    """The end of stage 1: samples and aligns the primary colour images, from the context prompts."""
    if state.primary is not None:
        return state
    primary = paint(base, state.lora, batch, embed_prompts(base, batch.context_prompts), config.primary)
    return replace(state, primary=primary)


def _fitted(scan: Scan, state: TrainingState, image: int) -> Fitted:
    """The result of one image's training."""
    assert state.primary is not None
    assert state.optimized is not None
    return Fitted(
        scan=scan,
        lora=state.lora.select([image]).rounded(),
        optimized=state.optimized.of([image]),
        primary=state.primary[image],
    )


def recolor(models: Models, requests: Sequence[tuple[Fitted, str]], config: Config) -> list[list[Colored]]:
    """Samples each (fitted, target prompt) at every eta of the ladder, without training.

    Returns:
        For each request its candidates, the favourite first.
    """
    jobs = [(fitted, target, eta) for fitted, target in requests for eta in config.etas]
    candidates: list[Colored] = []
    for first in range(0, len(jobs), MAX_SAMPLING_BATCH):
        candidates += _sample(models, jobs[first : first + MAX_SAMPLING_BATCH], config)
    ladder = len(config.etas)
    return [
        sorted(candidates[first : first + ladder], key=lambda candidate: -candidate.score)
        for first in range(0, len(candidates), ladder)
    ]


def _sample(models: Models, jobs: Sequence[tuple[Fitted, str, float]], config: Config) -> list[Colored]:
    """One candidate for each (fitted, target prompt, eta)."""
    base, targets, etas = models.base, [target for _, target, _ in jobs], [eta for _, _, eta in jobs]
    batch = ScanBatch.of(models, [fitted.scan for fitted, _, _ in jobs], config.sample, targets)
    if base is None:
        return _rate(models.judge, batch, targets, etas, batch.starts)
    lora = stack([fitted.lora for fitted, _, _ in jobs]).to(base.device)
    e_opt = Conditioning.stack([fitted.optimized for fitted, _, _ in jobs]).to(base.device)
    e_tgt = embed_prompts(base, targets)
    e = e_opt.mixed(e_tgt, torch.tensor(etas, device=base.device))  # (1 - eta) e_opt + eta e_tgt
    return _rate(models.judge, batch, targets, etas, paint(base, lora, batch, e, config.sample))


def _rate(judge: Judge, batch: ScanBatch, targets: list[str], etas: list[float], final: Tensor) -> list[Colored]:
    """Pictures with the figures by which the best is picked (ours)."""
    with torch.no_grad():
        features = judge.image_features(final)
    margins = clip_margins(features, judge.text_features(targets), batch.anti_color_features(judge))
    return [
        Colored(rgb=rgb, eta=eta, clip_margin=float(margin), stray_color=float(stray))
        for rgb, eta, margin, stray in zip(final, etas, margins, stray_color(final, batch.gray), strict=True)
    ]


def paint(base: BaseModel, lora: LoRA, batch: ScanBatch, e: Conditioning, config: SampleConfig) -> Tensor:
    """K pictures: spatial_align(sample(unet, e), gray), each with its own adapters; (K, 3, H, W) in [0, 1].

    Sampling starts from the noised latents of the batch. The noise of a scan is the same in all its pictures, so that
    only the text tells them apart.
    """
    noise = draw_noise(batch.random_streams("sampling"), batch.latents.shape[1:], base.device)
    with attached_lora(base.unet, lora), torch.no_grad():
        sampled = sample(
            base,
            batch.latents,
            noise,
            e,
            base.no_condition(),
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            strength=config.strength,
            luminance=batch.gray if config.luminance_consistent else None,
            luminance_every=config.luminance_every,
        )
        rgb = decode(base, sampled).clamp(0, 1)
        return spatial_align(rgb, batch.gray) if config.align else replace_luma(rgb, batch.gray)
