"""Trains the U-Net: v-prediction with zero terminal SNR, taught to start from noised gray latents too."""

import copy
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from training.conditioning import Conditioning
from training.pool import Pool
from training.runs import Clock, check_frozen, frozen_digests, log, set_learning_rate, update_average

BATCH_SIZE = 32
PEAK_RATE = 6e-4
COLOR_WEIGHT = 4.0  # of the loss along the directions of colour: the rest, structure, is given by the scan anyway
BFLOAT16 = True  # the weights stay float32; a third faster on CPUs with AVX512-BF16
SHAPES = {(128, 128): 0.5, (96, 160): 0.35, (160, 96): 0.15}  # of the pictures, with their shares


def build_unet() -> UNet2DConditionModel:
    """The untrained U-Net; cross-attention on every level: colour words have to find small things."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(96, 192, 256),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=192,
        attention_head_dim=(3, 6, 8),
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise schedule, for training and for sampling."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def spoil_color(latents: Tensor, grays: Tensor, timesteps: Tensor, share: float = 0.6) -> Tensor:
    """The latents from which noisy ones are made, some with their colour taken away, muted or in the wrong place.

    Sampling starts from noised gray latents, and its early predictions are muted and misplaced; a model that only ever
    saw noised true colours takes missing colour for a fact, and a blotch of noise for the colour of something. So a
    share of the noisy latents of timesteps 50 and above is made from gray pictures (half of them), muted ones (a
    quarter), and pictures with another's colours or their own shifted, while the target stays the colour latents.

    Args:
        latents, grays: (B, C, h, w), of pictures and of their gray versions.
        timesteps: (B,), in [0, 1000).
        share: how many are spoilt.

    Returns:
        (B, C, h, w).
    """
    count = len(latents)
    color = latents - grays
    kind = torch.randint(0, 4, (count,))
    shift = [int(torch.randint(2, size - 1, ())) for size in color.shape[2:]]
    misplaced = color.roll(shift, (2, 3)) if torch.rand(()) < 0.5 else color.roll(1, 0)
    strength = torch.where(kind < 2, torch.zeros(count), torch.rand(count))[:, None, None, None]
    spoilt = grays + strength * torch.where((kind == 3)[:, None, None, None], misplaced, color)
    chosen = (torch.rand(count) < share) & (timesteps >= 50)
    return torch.where(chosen[:, None, None, None], spoilt, latents)


def color_axes(pools: Iterable[Pool], count: int = 2) -> Tensor:
    """(C, count), orthonormal: the directions of latent space in which pictures differ most from their gray versions.

    Colour has two dimensions beside luminance, and the autoencoder keeps them nearly apart: along the first two axes
    lie 97 % of the difference (the third has 3 % of the second's).
    """
    differences = torch.cat([(pool.latents - pool.grays).movedim(1, -1).flatten(0, -2).float() for pool in pools])
    return torch.linalg.eigh(differences.T @ differences).eigenvectors[:, -count:]


def draw_timesteps(count: int) -> Tensor:
    """(count,) in [0, 1000): mostly 30 to 500, where the noised scan still shows what is where.

    From more noise than that, a word's colour lands in the middle of the picture instead of on its object.
    """
    whole = torch.randint(0, 1000, (count,))
    return torch.where(torch.rand(count) < 0.85, torch.randint(30, 500, (count,)), whole)


def velocity_batch(
    pool: Pool, frozen: Conditioning, alphas: Tensor, generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents, timesteps, embeddings, and the v to predict.

    v = alpha eps - sigma x0 is written with the noisy latents instead of the noise, v = (alpha x_t - x0) / sigma, so
    that it leads to the colour latents x0 also where x_t was made of spoilt ones.
    """
    latents, grays, captions = pool.draw(BATCH_SIZE, generator)
    captions = ["" if generator.random() < 0.1 else caption for caption in captions]
    timesteps = draw_timesteps(BATCH_SIZE)
    noisy, velocity = velocity_towards(latents, spoil_color(latents, grays, timesteps), alphas[timesteps])
    return noisy, timesteps, frozen.embed(captions), velocity


def velocity_towards(latents: Tensor, starts: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Noised `starts`, and the v that leads from them to `latents`; `alphas` (B,) are the timesteps' alpha_bar."""
    alpha, sigma = alphas.sqrt()[:, None, None, None], (1 - alphas).sqrt()[:, None, None, None]
    noise = torch.randn(latents.shape)
    noisy = alpha * starts + sigma * noise
    return noisy, alpha * noise - sigma * latents + (alpha**2 / sigma) * (starts - latents)


def save(out: Path, unet: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes the checkpoint that the export and a resumed training read."""
    checkpoint = {
        "unet": unet.state_dict(),
        "average": average.state_dict(),
        "step": step,
        **frozen_digests(out.parent),
    }
    torch.save(checkpoint | {"optimizer": optimizer.state_dict()}, out / "unet.part")
    (out / "unet.part").rename(out / "unet.pt")


def train_unet(
    pools: dict[tuple[int, int], Pool], frozen: Conditioning, out: Path, minutes: float, resume: bool, seed: int
) -> None:
    """Trains for some minutes; a checkpoint is in `out`/unet.pt every 3 minutes and at the end.

    Args:
        pools: training pictures by the shape of their latents.
        frozen: VAE, text encoder and tokenizer.
        out: folder of log and checkpoint.
        minutes: budget.
        resume: go on from the checkpoint.
        seed: of the pictures' order.
    """
    out.mkdir(parents=True, exist_ok=True)
    unet, step = build_unet().to(memory_format=torch.channels_last), 0
    average = copy.deepcopy(unet).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    if resume:
        checkpoint = torch.load(out / "unet.pt")
        check_frozen(out.parent, checkpoint)
        unet.load_state_dict(checkpoint["unet"])
        average.load_state_dict(checkpoint["average"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        step = checkpoint["step"]
    alphas, axes = build_scheduler().alphas_cumprod, color_axes(pools.values())
    generator, ordered = np.random.default_rng([seed, step]), list(pools.values())
    torch.manual_seed(int(generator.integers(2**63)))  # resumed, it draws other noise than before
    shares = np.array([len(pool.captions) for pool in ordered], dtype=float)
    clock, saved, losses = Clock(minutes=minutes), time.monotonic(), []
    for _ in clock.steps():
        pool = ordered[generator.choice(len(ordered), p=shares / shares.sum())]
        noisy, timesteps, embeds, velocity = velocity_batch(pool, frozen, alphas, generator)
        set_learning_rate(optimizer, PEAK_RATE, clock.share(), step, warmup=100)
        with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16):
            predicted = unet(noisy.to(memory_format=torch.channels_last), timesteps, embeds).sample.float()
        weights = (1 - alphas[timesteps])[:, None, None, None].clamp(min=0.05)
        error = (predicted - velocity) * weights.sqrt()
        along = torch.einsum("bchw,ck->bkhw", error, axes)
        loss = (error.square().sum(1) + (COLOR_WEIGHT - 1) * along.square().sum(1)).mean() / error.shape[1]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        update_average(average, unet, step, 0.9975)
        losses.append(loss.item())
        step += 1
        if step % 50 == 0:
            log(out, step=step, share=clock.share(), loss=float(np.mean(losses[-50:])))
        if time.monotonic() - saved > 180:
            save(out, unet, average, optimizer, step)
            saved = time.monotonic()
    save(out, unet, average, optimizer, step)
