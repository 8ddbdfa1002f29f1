"""The diffusion steps that both stages share. Latents are (N, C, h, w), pictures (N, 3, H, W) in [0, 1]."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.conditioning import Conditioning
from diffcolor.luminance import replace_luma


def encode(base: BaseModel, rgb: Tensor) -> Tensor:
    """Pictures to latents: the mean of the posterior (a draw would add noise that no seed of ours controls)."""
    encoded = base.vae.encode((rgb * 2 - 1).to(base.vae_precision))
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return latents.float() * base.vae.config.scaling_factor


def decode(base: BaseModel, latents: Tensor) -> Tensor:
    """Latents to pictures; differentiable, and not clamped, so that no gradient is lost beyond [0, 1]."""
    return _decode(base.vae, latents, base.vae_precision)


def decode_for_loss(base: BaseModel, latents: Tensor) -> Tensor:
    """Like `decode`, for a loss alone: by a smaller decoder where one was given."""
    return _decode(base.loss_decoder or base.vae, latents, base.vae_precision)


def _decode(vae: Any, latents: Tensor, precision: torch.dtype) -> Tensor:
    return vae.decode((latents / vae.config.scaling_factor).to(precision)).sample.float() / 2 + 0.5


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """What was drawn on the CPU, on the device; a GPU copies it while it computes, and nobody waits."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def draw_noise(generators: Sequence[torch.Generator], shape: Sequence[int], device: torch.device) -> Tensor:
    """(K, *shape) of N(0, 1), element i from generator i; drawn on the CPU, so that it is equal on every device."""
    return to_device(torch.stack([torch.randn(*shape, generator=generator) for generator in generators]), device)


def _coefficients(base: BaseModel, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alpha_bar), sqrt(1 - alpha_bar) at `timesteps` (N,), shaped to multiply `like`."""
    alpha_bar = base.alphas_cumprod[timesteps].view(-1, *[1] * (like.dim() - 1))
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(base: BaseModel, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t of DDPM (arXiv 2006.11239, eq. 4); timesteps (N,) int64."""
    signal, sigma = _coefficients(base, timesteps, latents)
    return signal * latents + sigma * noise


def training_target(base: BaseModel, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the U-Net has to predict: eps, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (arXiv 2202.00512)."""
    if base.scheduler.config.prediction_type == "epsilon":
        return noise
    signal, sigma = _coefficients(base, timesteps, latents)
    return signal * noise - sigma * latents


def predict_original(base: BaseModel, x_t: Tensor, model_output: Tensor, timesteps: Tensor) -> Tensor:
    """x0' from one prediction (DDIM, arXiv 2010.02502, eq. 9 and 12; or from v)."""
    signal, sigma = _coefficients(base, timesteps, x_t)
    if base.scheduler.config.prediction_type == "epsilon":
        return (x_t - sigma * model_output) / signal
    return signal * x_t - sigma * model_output


def guide(
    base: BaseModel, x_t: Tensor, t: Tensor, e: Conditioning, nothing: Conditioning, guidance_scale: float
) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598). A picture's pair stays together: LoRA needs an image-major batch."""
    if guidance_scale == 1:
        return base.predict(x_t, t, e)
    output = base.predict(x_t.repeat_interleave(2, 0), t.repeat_interleave(2, 0), e.after(nothing))
    unconditional, conditional = output.unflatten(0, (-1, 2)).unbind(1)
    return unconditional + guidance_scale * (conditional - unconditional)


@torch.no_grad()
def sample(
    base: BaseModel,
    start: Tensor,
    noise: Tensor,
    e: Conditioning,
    nothing: Conditioning,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    strength: float,
    luminance: Tensor | None = None,
    luminance_every: int = 1,
) -> Tensor:
    """Deterministic DDIM (arXiv 2010.02502, eq. 12) from noised start latents.

    Args:
        start: (N, C, h, w), the scan's latents; unused at strength 1.
        noise: like `start`, the only random input.
        e: of the N pictures' prompts.
        nothing: K = 1, what guidance leads away from.
        strength: share of the schedule that is run; 1 starts from pure noise.
        luminance: (N, 1, H, W) in [0, 1]. If given, every predicted original is decoded, gets this luminance back and
            is encoded again, so that colour follows the scan's edges (ours, docs/decisions/0003).
        luminance_every: at every so many steps, counted from the last.

    Returns:
        (N, C, h, w) latents.
    """
    # A scheduler object keeps its own schedule, so a copy per call leaves the shared one untouched.
    ddim = type(base.scheduler).from_config(base.scheduler.config)
    ddim.set_timesteps(num_inference_steps)
    schedule = ddim.timesteps[num_inference_steps - max(1, round(num_inference_steps * strength)) :].tolist()
    stride = ddim.config.num_train_timesteps // num_inference_steps
    first = torch.full((len(start),), schedule[0], device=start.device)
    x = noise.clone() if strength == 1 else add_noise(base, start, noise, first)
    for number, t in enumerate(schedule):
        timesteps = torch.full((len(x),), t, device=x.device)
        original = predict_original(base, x, guide(base, x, timesteps, e, nothing, guidance_scale), timesteps)
        signal, sigma = _coefficients(base, timesteps, x)
        if luminance is not None and (len(schedule) - 1 - number) % luminance_every == 0:
            original = encode(base, replace_luma(decode(base, original).clamp(0, 1), luminance))
        noise_pred = (x - signal * original) / sigma
        previous = float(ddim.alphas_cumprod[t - stride] if t >= stride else ddim.final_alpha_cumprod)
        x = previous**0.5 * original + (1 - previous) ** 0.5 * noise_pred
    return x
