"""Trains the U-Net: v-prediction with zero terminal SNR, taught to start from noised coarse colours, and from gray."""

from argparse import Namespace
from collections.abc import Iterable

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from diffcolor.base_model import resolve_device
from training.conditioning import Conditioning
from training.pool import Pool, folder_of, load_pools
from training.runs import Budget, Run

BATCH_SIZE = 32
PEAK_RATE = 5e-4
COLOR_WEIGHT = 4.0  # of the loss along the directions of colour: the rest, structure, is given by the scan anyway
STARTS = (0.6, 0.2, 0.2)  # shares of noisy latents made of coarse colours, of gray and of the true colours


def build_unet() -> UNet2DConditionModel:
    """The untrained U-Net; cross-attention on every level: colour words have to find small things."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=192,
        attention_head_dim=(2, 4, 6),  # in diffusers, the number of heads
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


def draw_starts(pool: Pool, chosen: np.ndarray, generator: np.random.Generator) -> Tensor:
    """What is noised: coarse colours, gray or the true colours, two in five of them on the way to the true ones.

    Sampling starts from noised coarse colours (or gray), and its early predictions are still near them; a model that
    only ever saw noised true colours takes wrong colours for a fact.

    Args:
        chosen: (B,) indices into the pool.

    Returns:
        (B, C, h, w).
    """
    latents = pool.latents[chosen].float()
    kinds = torch.from_numpy(generator.choice(3, len(chosen), p=STARTS))[:, None, None, None]
    starts = torch.where(kinds == 0, pool.starts[chosen].float(), pool.grays[chosen].float())
    way = torch.from_numpy(np.where(generator.random(len(chosen)) < 0.4, generator.random(len(chosen)), 0.0)).float()
    return torch.where(kinds == 2, latents, starts + way[:, None, None, None] * (latents - starts))


def color_axes(pools: Iterable[Pool], count: int = 2) -> Tensor:
    """(C, count), orthonormal: the directions of latent space in which pictures differ most from their gray versions.

    Colour has two dimensions beside luminance, and the autoencoder keeps them nearly apart: along the first two axes
    lie 97 % of the difference (the third has 3 % of the second's).
    """
    differences = torch.cat([(pool.latents - pool.grays).movedim(1, -1).flatten(0, -2).float() for pool in pools])
    return torch.linalg.eigh(differences.T @ differences).eigenvectors[:, -count:]


def draw_timesteps(generator: np.random.Generator) -> Tensor:
    """(B,) in [20, 1000): mostly those that sampling from coarse colours passes; some as far as from gray.

    From more noise than 500, the scan no longer shows what is where.
    """
    draw = generator.random(BATCH_SIZE)
    ranges = [generator.integers(20, end, BATCH_SIZE) for end in (300, 500, 1000)]
    return torch.from_numpy(np.select([draw < 0.65, draw < 0.95], ranges[:2], ranges[2]))


def velocity_batch(
    pool: Pool, alphas: Tensor, generator: np.random.Generator
) -> tuple[Tensor, Tensor, list[str], Tensor]:
    """Noisy latents, timesteps, captions, and the v to predict.

    v = alpha eps - sigma x0 is written with the noisy latents instead of the noise, v = (alpha x_t - x0) / sigma, so
    that it leads to the colour latents x0 also where x_t was made of others.
    """
    chosen = generator.integers(0, len(pool.captions), BATCH_SIZE)
    timesteps = draw_timesteps(generator)
    noisy, velocity = velocity_towards(
        pool.latents[chosen].float(), draw_starts(pool, chosen, generator), alphas[timesteps]
    )
    captions = ["" if generator.random() < 0.1 else pool.captions[i] for i in chosen]
    return noisy, timesteps, captions, velocity


def velocity_towards(latents: Tensor, starts: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Noised `starts`, and the v that leads from them to `latents`; `alphas` (B,) are the timesteps' alpha_bar."""
    alpha, sigma = alphas.sqrt()[:, None, None, None], (1 - alphas).sqrt()[:, None, None, None]
    noise = torch.randn(latents.shape)
    noisy = alpha * starts + sigma * noise
    return noisy, alpha * noise - sigma * latents + (alpha**2 / sigma) * (starts - latents)


def train_unet(options: Namespace, frozen: Conditioning) -> None:
    """Goes on from the checkpoint in RUNS/unet, if there is one, on the pools of RUNS."""
    device = torch.device(resolve_device(options.device))
    frozen.text_encoder.to(device)
    unet = build_unet().to(device, memory_format=torch.channels_last)
    run = Run(options.runs / "unet", unet, {"": PEAK_RATE})
    pools = load_pools(folder_of(options.runs))
    shares = np.array([len(pool.captions) for pool in pools], dtype=float)
    alphas, axes = build_scheduler().alphas_cumprod, color_axes(pools).to(device)
    generator = np.random.default_rng([options.seed, run.step])
    torch.manual_seed(int(generator.integers(2**63)))  # resumed, it draws other noise than before
    for _ in run.steps(Budget(minutes=options.minutes, decay_steps=options.decay_steps), dict):
        pool = pools[generator.choice(len(pools), p=shares / shares.sum())]
        noisy, timesteps, captions, velocity = velocity_batch(pool, alphas, generator)
        noisy = noisy.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):  # the weights stay float32
            predicted = unet(noisy, timesteps.to(device), frozen.embed(captions)).sample.float()
        weights = (1 - alphas[timesteps])[:, None, None, None].clamp(min=0.05).to(device)
        error = (predicted - velocity.to(device)) * weights.sqrt()
        along = torch.einsum("bchw,ck->bkhw", error, axes)
        run.learn((error.square().sum(1) + (COLOR_WEIGHT - 1) * along.square().sum(1)).mean() / error.shape[1])
