"""Stage 2: in-context controllable colorization (arXiv 2308.01655), after Imagic (arXiv 2210.09276)."""

from collections.abc import Generator

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
        embeds: (K, T, D), where the search starts, or goes on.

    Returns:
        (K, T, D), e_opt.
    """
    optimized = embeds.clone()
    stage.train({"optimized_embeds": optimized}, config.embedding_learning_rate)
    yield from _reconstruct(base, lora, primary_latents, optimized, stage)
    return optimized


def fine_tune(
    base: BaseModel, lora: LoRA, primary_latents: Tensor, optimized_embeds: Tensor, stage: Lockstep, config: FitConfig
) -> Generator[Progress, None, None]:
    """Trains `lora` in place on the same loss, e_opt frozen, so that e_opt gives back the primary colours."""
    stage.train(lora.named(), config.in_context_learning_rate)
    yield from _reconstruct(base, lora, primary_latents, optimized_embeds, stage)


def _reconstruct(
    base: BaseModel, lora: LoRA, latents: Tensor, embeds: Tensor, stage: Lockstep
) -> Generator[Progress, None, None]:
    if not stage.history:
        yield stage.progress()  # the boundary between two stages is worth a checkpoint
    for _ in stage.steps():
        timesteps, noise = stage.draw(latents)
        with attached_lora(base.unet, lora):
            model_output = denoise(base, add_noise(base, latents, noise, timesteps), timesteps, embeds)
        loss = denoising_loss(model_output, training_target(base, latents, noise, timesteps))
        stage.update(loss)
        yield stage.progress(denoising=loss)
