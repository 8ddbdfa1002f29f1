"""Stage 2: in-context controllable colorization (arXiv 2308.01655), after Imagic (arXiv 2210.09276)."""

from collections.abc import Generator

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.config import FitConfig
from diffcolor.diffusion import add_noise, denoise, training_target
from diffcolor.lockstep import Lockstep, Progress
from diffcolor.lora import LoRA, attached_lora
from diffcolor.losses import denoising_loss


def optimize_embedding(
    base: BaseModel, lora: LoRA, primary_latents: Tensor, embeds: Tensor, stage: Lockstep, config: FitConfig
) -> Generator[Progress, None, Tensor]:
    """e_opt = argmin_e mse(unet(x_t, t, e), eps) on the primary colours; the U-Net and stage 1's LoRA stand still.

    Args:
        primary_latents: (K, C, h, w).
        embeds: (K, T, D), the identified prompts' embeddings, where the search starts.

    Returns:
        (K, T, D), e_opt.
    """
    optimized = embeds.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([optimized], lr=config.embedding_learning_rate)
    yield from _reconstruct(base, lora, primary_latents, optimized, optimizer, stage, config.embedding_steps)
    return optimized.detach()


def fine_tune(
    base: BaseModel, lora: LoRA, primary_latents: Tensor, optimized_embeds: Tensor, stage: Lockstep, config: FitConfig
) -> Generator[Progress, None, None]:
    """Trains `lora` in place on the same loss, e_opt frozen, so that e_opt gives back the primary colours."""
    optimizer = torch.optim.Adam(lora.requires_grad_(True).parameters(), lr=config.in_context_learning_rate)
    yield from _reconstruct(base, lora, primary_latents, optimized_embeds, optimizer, stage, config.in_context_steps)
    lora.requires_grad_(False)


def _reconstruct(
    base: BaseModel,
    lora: LoRA,
    latents: Tensor,
    embeds: Tensor,
    optimizer: torch.optim.Optimizer,
    stage: Lockstep,
    steps: int,
) -> Generator[Progress, None, None]:
    for step in range(steps):
        timesteps, noise = stage.draw(latents)
        with attached_lora(base.unet, lora):
            model_output = denoise(base, add_noise(base, latents, noise, timesteps), timesteps, embeds)
        loss = denoising_loss(model_output, training_target(base, latents, noise, timesteps))
        training = stage.update(optimizer, loss)
        yield Progress(stage.stage, step + 1, steps, {"denoising": loss.detach()})
        if not training:
            break
    stage.finish()
