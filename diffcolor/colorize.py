"""DiffColor (arXiv 2308.01655): `fit` is stages 1 and 2 of training, `recolor` samples a prompt from what was fitted.

One call per line of the paper's pseudo code. K images go through together; each gets what it would get alone.
"""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcolor.align import spatial_align
from diffcolor.base_model import BaseModel, Judge
from diffcolor.checkpoint import Checkpoint, join
from diffcolor.color_prior import find_color_prior
from diffcolor.config import Config, FitConfig, SampleConfig
from diffcolor.diffusion import decode, draw_noise, encode, sample
from diffcolor.errors import NonFiniteLossError
from diffcolor.in_context import fine_tune, optimize_embedding
from diffcolor.lockstep import Lockstep, Progress
from diffcolor.lora import LoRA, attached_lora, init_lora, stack
from diffcolor.luminance import replace_luma
from diffcolor.measures import clip_margins, stray_color
from diffcolor.prompts import embed_prompts, with_identifiers

STAGES = ("color_prior", "embedding", "in_context")
STRAY_COLOR_WEIGHT = 0.1  # against the embedded judge's margins; not tuned on any other's
MAX_SAMPLING_BATCH = 8  # pictures sampled at once: bounds memory whatever the number of prompts


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What is fitted. `gray` is (1, H, W) in [0, 1] at working size, equal for all scans of a call."""

    gray: Tensor
    context_prompt: str
    anti_color_prompts: tuple[str, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What an image's training leaves: enough to recolour it at any time.

    Attributes:
        lora: of this image alone.
        optimized_embeds: (T, D) float32, e_opt.
        primary: (3, H, W) in [0, 1], stage 1's aligned colours; None when read back from an artifact.
    """

    scan: Scan
    lora: LoRA
    optimized_embeds: Tensor
    primary: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Colored:
    """One candidate.

    Attributes:
        rgb: (3, H, W) in [0, 1] with the scan's luma.
        clip_margin, stray_color: the judge's opinion of it, and how much of its colour ignores the scan's edges.
    """

    rgb: Tensor
    eta: float
    clip_margin: float
    stray_color: float

    @property
    def score(self) -> float:
        """By which the favourite is picked."""
        return self.clip_margin - STRAY_COLOR_WEIGHT * self.stray_color


def fit(
    base: BaseModel,
    judge: Judge,
    scans: Sequence[Scan],
    config: FitConfig,
    checkpoints: Sequence[Checkpoint] | None = None,
) -> Generator[Progress, None, list[Fitted | NonFiniteLossError]]:
    """Trains on K scans in lockstep; yields between steps, returns one outcome per scan, in order.

    The shared U-Net is only lent adapters while it is called: it is never written, whatever happens.

    Args:
        checkpoints: where each scan's training goes on from, all at one stage and step; None starts it.
    """
    gray = torch.stack([scan.gray for scan in scans]).to(base.device)
    contexts = [scan.context_prompt for scan in scans]
    failures: dict[int, NonFiniteLossError] = {}
    resumed = join(checkpoints) if checkpoints else None
    before = STAGES.index(resumed.stage) if resumed else 0  # stages that are over

    def saved(name: str) -> Tensor:
        return resumed.tensors[name].to(base.device)

    if resumed:
        lora = LoRA.from_named(resumed.tensors).to(base.device)
    else:
        lora = init_lora(base.unet, config.lora_rank, random_streams(scans, "lora"))

    def stage(name: str, budget: int, **frozen: Tensor) -> Lockstep:
        return Lockstep(
            name,
            base,
            random_streams(scans, name),
            failures,
            budget=budget,
            timestep_share=config.primary.strength if config.timesteps == "sampling" else 1.0,
            plateau_window=config.plateau_window,
            plateau_improvement=config.plateau_improvement,
            frozen=lora.named() | frozen,
            resumed=resumed if resumed and resumed.stage == name else None,
        )

    # Stage 1: colorization with generative colour prior.
    if before < 1:
        with torch.no_grad():
            latents = encode(base, gray.expand(-1, 3, -1, -1))
        context_embeds = embed_prompts(base, contexts)
        positive, negatives = judge.text_features(contexts), anti_color_features(judge, scans)
        color_prior = stage(STAGES[0], config.color_prior_steps)
        yield from find_color_prior(
            base, judge, lora, gray, latents, context_embeds, positive, negatives, color_prior, config
        )
        primary = paint(base, lora, scans, gray, latents, context_embeds, config.primary)
    else:
        primary = saved("primary")

    # Stage 2: in-context controllable colorization.
    with torch.no_grad():
        primary_latents = encode(base, primary)
    if before < 2:
        if resumed and before == 1:
            embeds = saved("optimized_embeds")
        else:
            embeds = embed_prompts(base, [with_identifiers(context, base.tokenizer) for context in contexts])
        embedding = stage(STAGES[1], config.embedding_steps, primary=primary)
        optimized_embeds = yield from optimize_embedding(base, lora, primary_latents, embeds, embedding, config)
    else:
        optimized_embeds = saved("optimized_embeds")
    in_context = stage(STAGES[2], config.in_context_steps, primary=primary, optimized_embeds=optimized_embeds)
    yield from fine_tune(base, lora, primary_latents, optimized_embeds, in_context, config)

    return [
        failures.get(k)
        or Fitted(scan=scan, lora=lora.select([k]).rounded(), optimized_embeds=optimized_embeds[k], primary=primary[k])
        for k, scan in enumerate(scans)
    ]


def recolor(
    base: BaseModel, judge: Judge, requests: Sequence[tuple[Fitted, str]], config: Config
) -> list[list[Colored]]:
    """Samples each (fitted, target prompt) at every eta of the ladder. No training.

    Returns:
        For each request its candidates, the favourite first.
    """
    jobs = [(fitted, target, eta) for fitted, target in requests for eta in config.etas]
    candidates = []
    for first in range(0, len(jobs), MAX_SAMPLING_BATCH):
        fitted, targets, etas = zip(*jobs[first : first + MAX_SAMPLING_BATCH], strict=True)
        scans = [one.scan for one in fitted]
        gray = torch.stack([scan.gray for scan in scans]).to(base.device)
        with torch.no_grad():
            latents = encode(base, gray.expand(-1, 3, -1, -1))
        lora = stack([one.lora for one in fitted]).to(base.device)
        e_opt = torch.stack([one.optimized_embeds for one in fitted]).to(base.device)
        e_tgt = embed_prompts(base, list(targets))
        eta = torch.tensor(etas, device=base.device).view(-1, 1, 1)
        embeds = (1 - eta) * e_opt + eta * e_tgt
        final = paint(base, lora, scans, gray, latents, embeds, config.sample)
        with torch.no_grad():
            features = judge.image_features(final)
        margins = clip_margins(features, judge.text_features(list(targets)), anti_color_features(judge, scans))
        candidates += [
            Colored(rgb=rgb, eta=eta, clip_margin=float(margin), stray_color=float(stray))
            for rgb, eta, margin, stray in zip(final, etas, margins, stray_color(final, gray), strict=True)
        ]
    ladder = len(config.etas)
    return [
        sorted(candidates[first : first + ladder], key=lambda one: -one.score)
        for first in range(0, len(candidates), ladder)
    ]


def paint(
    base: BaseModel,
    lora: LoRA,
    scans: Sequence[Scan],
    gray: Tensor,
    latents: Tensor,
    embeds: Tensor,
    config: SampleConfig,
) -> Tensor:
    """N pictures: spatial_align(sample(unet, embeds), gray), each with its own adapters; (N, 3, H, W) in [0, 1]."""
    generators = random_streams(scans, "sampling")
    with attached_lora(base.unet, lora), torch.no_grad():
        sampled = sample(
            base,
            latents,
            draw_noise(generators, latents.shape[1:], base.device),
            embeds,
            embed_prompts(base, [""]),
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            strength=config.strength,
            luminance=gray if config.luminance_consistent else None,
        )
        rgb = decode(base, sampled).clamp(0, 1)
        return spatial_align(rgb, gray) if config.align else replace_luma(rgb, gray)


def random_streams(scans: Sequence[Scan], purpose: str) -> list[torch.Generator]:
    """One generator per scan and purpose. A stage that a neighbour keeps going for longer draws more numbers; with a
    stream of its own, no later stage notices."""
    seeds = [hashlib.sha256(f"{scan.seed}/{purpose}".encode()).digest()[:8] for scan in scans]
    return [torch.Generator().manual_seed(int.from_bytes(seed, "big") >> 1) for seed in seeds]


def anti_color_features(judge: Judge, scans: Sequence[Scan]) -> Tensor:
    """(N, M, D): the judge's features of each scan's anti-colour prompts, zero rows where a scan has fewer than M."""
    unique = sorted({prompt for scan in scans for prompt in scan.anti_color_prompts})
    features = dict(zip(unique, judge.text_features(unique), strict=True))
    rows = [torch.stack([features[prompt] for prompt in scan.anti_color_prompts]) for scan in scans]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
