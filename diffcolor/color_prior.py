"""Stage 1: colorization with the generative colour prior (arXiv 2308.01655)."""

from collections.abc import Generator

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel, Judge
from diffcolor.config import FitConfig
from diffcolor.diffusion import add_noise, decode, denoise, predict_original, training_target
from diffcolor.lockstep import Lockstep, Progress
from diffcolor.lora import LoRA, attached_lora
from diffcolor.losses import contrastive_loss, denoising_loss
from diffcolor.luminance import replace_luma


def find_color_prior(
    base: BaseModel,
    judge: Judge,
    lora: LoRA,
    gray: Tensor,
    latents: Tensor,
    context_embeds: Tensor,
    positive: Tensor,
    negatives: Tensor,
    stage: Lockstep,
    config: FitConfig,
) -> Generator[Progress, None, None]:
    """Trains `lora` in place until the base paints the scan in the colours that its caption calls for.

    Args:
        gray: (K, 1, H, W) in [0, 1], working size.
        latents: (K, C, h, w), the gray pictures' latents.
        context_embeds: (K, T, D).
        positive, negatives: (K, D) and (K, N, D), the judge's unit-norm text features.
    """
    stage.train(lora.named(), config.color_prior_learning_rate)
    signal_share = base.alphas_cumprod.to(base.device)
    for _ in stage.steps():
        timesteps, noise = stage.draw(latents)
        x_t = add_noise(base, latents, noise, timesteps)
        with attached_lora(base.unet, lora):
            model_output = denoise(base, x_t, timesteps, context_embeds)
        rgb = decode(base, predict_original(base, x_t, model_output, timesteps))
        # Departs from the paper: the judge sees the predicted chroma on the scan's own luminance, because that is
        # what we keep; its gradient then moves colour alone. Predictions from almost pure noise say little about
        # this picture, so the loss is weighted with the share of signal in x_t.
        features = judge.image_features(replace_luma(rgb, gray))
        loss_con = signal_share[timesteps] * contrastive_loss(features, positive, negatives, config.temperature)
        if config.denoising_target == "prior":
            with torch.no_grad():
                target = denoise(base, x_t, timesteps, context_embeds)
        else:
            target = training_target(base, latents, noise, timesteps)
        loss_dif = denoising_loss(model_output, target)
        stage.update(config.contrastive_weight * loss_con + loss_dif)
        yield stage.progress(contrastive=loss_con, denoising=loss_dif)
