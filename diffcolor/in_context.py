"""Stage 2: in-context controllable colorization (arXiv 2308.01655), after Imagic (arXiv 2210.09276)."""

from collections.abc import Generator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.config import FitConfig
from diffcolor.diffusion import add_noise, denoise, encode, training_target
from diffcolor.lockstep import Lockstep, Progress
from diffcolor.lora import attached_lora
from diffcolor.losses import denoising_loss
from diffcolor.prompts import embed_identified
from diffcolor.scan import ScanBatch
from diffcolor.training_state import TrainingState


def optimize_embedding(
    base: BaseModel, batch: ScanBatch, state: TrainingState, config: FitConfig
) -> Generator[Progress, None, TrainingState]:
    """e_opt = argmin_e mse(unet(x_t, t, e), eps or v) on the primary colours; the U-Net and stage 1's LoRA are frozen.

    The search starts from the context prompt with a unique identifier before each noun.

    Returns:
        The state with `optimized_embeds`.
    """
    if state.is_past("embedding"):
        return state
    embeds = state.optimized_embeds
    if embeds is None:
        embeds = embed_identified(base, batch.context_prompts)
        state = replace(state, optimized_embeds=embeds)
    yield from _reconstruct(
        base, Lockstep("embedding", base, batch, state, config), state, {"optimized_embeds": embeds}
    )
    return state


def fine_tune(
    base: BaseModel, batch: ScanBatch, state: TrainingState, config: FitConfig
) -> Generator[Progress, None, TrainingState]:
    """Trains the adapters on the same loss, with e_opt frozen, so that e_opt reproduces the primary colours.

    Returns:
        The state, its `lora` trained in place.
    """
    yield from _reconstruct(
        base, Lockstep("in_context", base, batch, state, config), state, {"lora": state.lora.values}
    )
    return state


def _reconstruct(
    base: BaseModel, stage: Lockstep, state: TrainingState, trained: Mapping[str, Tensor]
) -> Generator[Progress, None, None]:
    """Trains some of the state's tensors (`trained`) to reproduce the primary colours."""
    assert state.primary is not None, "stage 1 samples the primary colours"
    assert state.optimized_embeds is not None
    with torch.no_grad():
        latents = encode(base, state.primary)
    stage.train(trained)
    if stage.is_new:
        yield stage.progress()  # a chance for a checkpoint between two stages
    for images in stage.steps():
        x_0 = latents[images]
        timesteps, noise = stage.draw(x_0)
        x_t = add_noise(base, x_0, noise, timesteps)
        with attached_lora(base.unet, state.lora.of(images)):
            model_output = denoise(base, x_t, timesteps, state.optimized_embeds[images])
        loss = denoising_loss(model_output, training_target(base, x_0, noise, timesteps))
        stage.update(loss)
        yield stage.progress(denoising=loss)
