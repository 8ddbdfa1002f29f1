"""Stage 1: colorization with the generative colour prior (arXiv 2308.01655)."""

from collections.abc import Generator

import torch

from diffcolor.base_model import BaseModel
from diffcolor.config import FitConfig
from diffcolor.diffusion import add_noise, decode, denoise, predict_original, training_target
from diffcolor.judge import Judge
from diffcolor.lockstep import Lockstep, Progress
from diffcolor.lora import attached_lora
from diffcolor.losses import contrastive_loss, denoising_loss
from diffcolor.luminance import replace_luma
from diffcolor.prompts import embed_prompts
from diffcolor.scan import ScanBatch
from diffcolor.training_state import TrainingState

STAGE = "color_prior"


def find_color_prior(
    base: BaseModel, judge: Judge, batch: ScanBatch, state: TrainingState, config: FitConfig
) -> Generator[Progress, None, TrainingState]:
    """Trains the adapters on `L = lambda * L_con + L_dif`, so that the base paints each scan in the colours of its
    context prompt.

    Returns:
        The state, its `lora` trained in place.
    """
    if state.is_past(STAGE):
        return state
    latents = batch.latents
    context_embeds = embed_prompts(base, batch.context_prompts)
    positive, negatives = judge.text_features(batch.context_prompts), batch.anti_color_features(judge)
    stage = Lockstep(STAGE, base, batch, state, config)
    stage.train({"lora": state.lora.values})
    for _ in stage.steps():
        timesteps, noise = stage.draw(latents)
        x_t = add_noise(base, latents, noise, timesteps)
        with attached_lora(base.unet, state.lora):
            model_output = denoise(base, x_t, timesteps, context_embeds)
        rgb = decode(base, predict_original(base, x_t, model_output, timesteps))
        # Departs from the paper: the judge (CLIP) sees the predicted chroma on the scan's own luminance, because that
        # is what we keep; its gradient then changes colour alone. Predictions from almost pure noise say little about
        # this picture, so the loss is weighted with the share of signal in x_t.
        features = judge.image_features(replace_luma(rgb, batch.gray))
        loss_con = base.alphas_cumprod[timesteps] * contrastive_loss(features, positive, negatives, config.temperature)
        if config.denoising_target == "prior":
            with torch.no_grad():  # without the adapters
                target = denoise(base, x_t, timesteps, context_embeds)
        else:
            target = training_target(base, latents, noise, timesteps)
        loss_dif = denoising_loss(model_output, target)
        stage.update(config.contrastive_weight * loss_con + loss_dif)
        yield stage.progress(contrastive=loss_con, denoising=loss_dif)
    return state
