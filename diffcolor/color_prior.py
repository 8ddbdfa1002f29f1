"""Stage 1: colorization with the generative colour prior (arXiv 2308.01655)."""

from collections.abc import Generator

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.config import FitConfig
from diffcolor.diffusion import add_noise, decode_for_loss, predict_original, training_target
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
    context = embed_prompts(base, batch.context_prompts)
    positive, negatives = judge.text_features(batch.context_prompts), batch.anti_color_features(judge)
    stage = Lockstep(STAGE, base, batch, state, config)
    stage.train({"lora": state.lora.values})
    for images in stage.steps():
        x_0, e = latents[images], context.of(images)
        timesteps, noise = stage.draw(x_0)
        x_t = add_noise(base, x_0, noise, timesteps)
        with attached_lora(base.unet, state.lora.of(images)):
            model_output = base.predict(x_t, timesteps, e)
        predicted = predict_original(base, x_t, model_output, timesteps)
        looked_at = (predicted, batch.gray[images], positive[images], negatives[images])
        # Departs from the paper: predictions from almost pure noise say little about this picture, so the loss is
        # weighted with the share of signal in x_t; or, for the same expectation, computed that often.
        if config.contrastive_at == "all":
            loss_con = base.alphas_cumprod[timesteps] * contrast(base, judge, config, *looked_at)
        else:
            loss_con = torch.zeros(len(x_0), device=base.device)
            some = stage.chosen(base.scheduler.alphas_cumprod[stage.drawn])
            if len(some):
                found = contrast(base, judge, config, *(tensor[some] for tensor in looked_at))
                loss_con = loss_con.index_put((some,), found)
        if config.denoising_target == "prior":
            with torch.no_grad():  # without the adapters
                target = base.predict(x_t, timesteps, e)
        else:
            target = training_target(base, x_0, noise, timesteps)
        loss_dif = denoising_loss(model_output, target)
        stage.update(config.contrastive_weight * loss_con + loss_dif)
        yield stage.progress(contrastive=loss_con, denoising=loss_dif)
    return state


def contrast(
    base: BaseModel,
    judge: Judge,
    config: FitConfig,
    predicted: Tensor,
    gray: Tensor,
    positive: Tensor,
    negatives: Tensor,
) -> Tensor:
    """L_con of predicted originals.

    Departs from the paper: the judge (CLIP) sees the predicted chroma on the scan's own luminance, because that is what
    we keep; its gradient then changes colour alone.
    """
    features = judge.image_features(replace_luma(decode_for_loss(base, predicted), gray))
    return contrastive_loss(features, positive, negatives, config.temperature or judge.temperature)
