from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from diffcolor.artifact import ArtifactRecord, from_bytes, read_record, to_bytes
from diffcolor.colorize import recolor
from diffcolor.diffusion import sample
from diffcolor.errors import ArtifactError
from diffcolor.lora import attached_lora
from diffcolor.prompts import embed_prompts
from tests.conftest import TINY
from tests.diffcolor.test_colorize import fitted, scan


@pytest.fixture(scope="module")
def fit_and_bytes(models):
    (one,) = fitted(models, [scan(0)])
    record = ArtifactRecord(
        base_model="tiny",
        base_model_digest=models.base.digest,
        config_digest="c",
        context_prompt=one.scan.context_prompt,
        identified_prompt="a photo of a sks barn",
        anti_color_prompts=one.scan.anti_color_prompts,
        seed=one.scan.seed,
        height=32,
        width=32,
        gray_sha256="g",
        primary_image="images/a/0-primary.png",
    )
    return one, record, to_bytes(one, record)


def test_an_artifact_recolors_like_the_fit_itself(models, fit_and_bytes):
    one, record, content = fit_and_bytes
    again = from_bytes(content, one.scan.gray, models)
    assert read_record(content) == record
    fresh, stored = (recolor(models, [(each, "a red barn")], TINY)[0] for each in (one, again))
    assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(fresh, stored, strict=True))


def test_any_safetensors_reader_sees_lora_embedding_and_record(fit_and_bytes, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(fit_and_bytes[2])
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        keys = set(file.keys())
        assert "diffcolor" in file.metadata()
    assert "optimized_embeds" in keys
    assert all("lora" in key for key in keys - {"optimized_embeds"})


def test_another_base_model_is_refused_by_name(models, fit_and_bytes):
    one, record, _ = fit_and_bytes
    content = to_bytes(one, replace(record, base_model_digest="0" * 64, base_model="other"))
    with pytest.raises(ArtifactError, match="fitted on other"):
        from_bytes(content, one.scan.gray, models)


@pytest.mark.parametrize("damage", [lambda c: c[:100], lambda c: b"\x00" * len(c), lambda c: b"", lambda c: c[:-50]])
def test_damage_is_refused(models, fit_and_bytes, damage):
    one, _, content = fit_and_bytes
    with pytest.raises(ArtifactError):
        from_bytes(damage(content), one.scan.gray, models)


def test_the_saved_file_samples_the_same_in_stock_diffusers(models, base, base_folder, fit_and_bytes, tmp_path):
    """As the README shows it. Tolerance: 1e-3 of latents whose size is about 1."""
    one, _, content = fit_and_bytes
    (tmp_path / "a.safetensors").write_bytes(content)
    state = load_file(tmp_path / "a.safetensors")
    e_opt = state.pop("optimized_embeds")[None]
    pipeline = StableDiffusionPipeline.from_pretrained(
        base_folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.load_lora_weights(state)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    empty = embed_prompts(base, [""])
    options = {"num_inference_steps": 6, "guidance_scale": 3.0}
    theirs = pipeline(
        prompt_embeds=e_opt, negative_prompt_embeds=empty["embeds"], latents=noise, output_type="latent", **options
    ).images
    again = from_bytes(content, one.scan.gray, models)
    with attached_lora(base.unet, again.lora):
        ours = sample(base, noise, noise, again.optimized, empty, strength=1.0, **options)
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_another_coarse_colorizer_is_refused_but_none_is_asked_of_artifacts_that_knew_none(models, fit_and_bytes):
    one, record, _ = fit_and_bytes
    with pytest.raises(ArtifactError, match="another coarse colorizer"):
        from_bytes(to_bytes(one, replace(record, coarse_digest="0" * 64)), one.scan.gray, models)
    for digest in ("", models.coarse.digest):
        assert from_bytes(to_bytes(one, replace(record, coarse_digest=digest)), one.scan.gray, models)
