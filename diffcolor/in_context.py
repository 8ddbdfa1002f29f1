"""Stage 2: in-context controllable colorization (arXiv 2308.01655), after Imagic (arXiv 2210.09276)."""

from collections.abc import Generator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.config import FitConfig
from diffcolor.diffusion import add_noise, encode, training_target
from diffcolor.lockstep import Lockstep, Progress
from diffcolor.lora import attached_lora
from diffcolor.losses import denoising_loss
from diffcolor.prompts import embed_identified
from diffcolor.scan import ScanBatch
from diffcolor.training_state import OPTIMIZED, TrainingState


def optimize_embedding(
    base: BaseModel, batch: ScanBatch, state: TrainingState, config: FitConfig
) -> Generator[Progress, None, TrainingState]:
    """e_opt = argmin_e mse(unet(x_t, t, e), eps or v) on the primary colours; the U-Net and stage 1's LoRA are frozen.

    The search starts from the context prompt with a unique identifier before each noun.

    Returns:
        The state with `optimized`.
    """
    if state.is_past("embedding"):
        return state
    e_opt = state.optimized
    if e_opt is None:
        e_opt = embed_identified(base, batch.context_prompts)
        state = replace(state, optimized=e_opt)
    yield from _reconstruct(base, Lockstep("embedding", base, batch, state, config), state, e_opt.named(OPTIMIZED))
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
    assert state.optimized is not None
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
            model_output = base.predict(x_t, timesteps, state.optimized.of(images))
        loss = denoising_loss(model_output, training_target(base, x_0, noise, timesteps))
        stage.update(loss)
        yield stage.progress(denoising=loss)
