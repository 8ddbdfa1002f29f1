"""Our steps against diffusers' own scheduler and pipeline."""

import pytest
import torch
from diffusers import StableDiffusionPipeline

from diffcolor.base_model import load_base_model
from diffcolor.conditioning import Conditioning
from diffcolor.diffusion import add_noise, decode, encode, predict_original, sample, training_target
from diffcolor.lora import attached_lora, to_diffusers
from diffcolor.luminance import soft_luma
from diffcolor.prompts import embed_prompts
from tests import tiny_models
from tests.diffcolor.test_lora import some_lora


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def folder(request, tmp_path_factory):
    return tiny_models.make_base_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def base(folder):
    return load_base_model(str(folder))


def latents_and_noise():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)


def test_noise_and_targets_are_the_schedulers(base):
    latents, noise = latents_and_noise()
    timesteps = torch.tensor([3, 700])
    assert torch.allclose(
        add_noise(base, latents, noise, timesteps), base.scheduler.add_noise(latents, noise, timesteps), atol=1e-6
    )
    if base.scheduler.config.prediction_type == "v_prediction":
        velocity = base.scheduler.get_velocity(latents, noise, timesteps)
        assert torch.allclose(training_target(base, latents, noise, timesteps), velocity, atol=1e-6)


def test_a_perfect_prediction_gives_the_original_back(base):
    latents, noise = latents_and_noise()
    timesteps = torch.tensor([3, 700])
    x_t = add_noise(base, latents, noise, timesteps)
    target = training_target(base, latents, noise, timesteps)
    assert torch.allclose(predict_original(base, x_t, target, timesteps), latents, atol=1e-4)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_saved_lora_and_embedding_sample_the_same_in_stock_diffusers(base, folder, guidance_scale):
    """Tolerance: 1e-3 of latents whose size is about 1; both run in float32 on the same noise."""
    lora = some_lora(base.unet, 1).rounded()
    embeds = Conditioning({"embeds": embed_prompts(base, ["a red apple"])["embeds"] * 1.1})
    empty = embed_prompts(base, [""])
    _, noise = latents_and_noise()
    with attached_lora(base.unet, lora):
        ours = sample(
            base,
            torch.zeros(1, 4, 8, 8),
            noise[:1],
            embeds,
            empty,
            num_inference_steps=10,
            guidance_scale=guidance_scale,
            strength=1.0,
        )
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )

    def theirs() -> torch.Tensor:
        return pipeline(
            prompt_embeds=embeds["embeds"],
            negative_prompt_embeds=empty["embeds"],
            latents=noise[:1],
            num_inference_steps=10,
            guidance_scale=guidance_scale,
            output_type="latent",
        ).images

    pipeline.load_lora_weights(to_diffusers(lora))
    assert torch.allclose(ours, theirs(), atol=1e-3)
    pipeline.unload_lora_weights()
    assert not torch.allclose(ours, theirs(), atol=1e-2), "the adapters made no difference: nothing was compared"


def test_luminance_consistent_sampling_stays_nearer_the_scan():
    base = load_base_model()
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    gray = (0.3 + 0.4 * ((x - 32) ** 2 + (y - 32) ** 2 < 400)).float()[None, None]
    latents = encode(base, gray.expand(1, 3, -1, -1))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    embeds, empty = embed_prompts(base, ["a photo of a red ball"]), embed_prompts(base, [""])
    options = {"num_inference_steps": 10, "guidance_scale": 3.0, "strength": 0.8}

    def luma_error(**more):
        rgb = decode(base, sample(base, latents, noise, embeds, empty, **options, **more)).clamp(0, 1)
        return (soft_luma(rgb) - gray).abs().mean()

    assert luma_error(luminance=gray) < 0.5 * luma_error()
