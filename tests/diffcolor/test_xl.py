"""Stable Diffusion XL through the same seam, on a tiny one, against stock diffusers."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from diffcolor.artifact import ArtifactRecord, from_bytes, read_record, to_bytes
from diffcolor.base_folder import read_base_folder
from diffcolor.base_model import StableDiffusionXL, load_base_model
from diffcolor.checkpoint import from_bytes as checkpoint_from_bytes
from diffcolor.checkpoint import to_bytes as checkpoint_to_bytes
from diffcolor.colorize import fit, recolor
from diffcolor.conditioning import Conditioning
from diffcolor.diffusion import sample
from diffcolor.errors import BaseModelError
from diffcolor.lora import attached_lora, target_layers
from diffcolor.models import Models
from diffcolor.precision import Precision
from diffcolor.prompts import embed_prompts
from pipelines.worker.worker import Worker
from tests import tiny_models
from tests.conftest import TINY, write_picture
from tests.diffcolor.test_colorize import same, scan
from tests.pipelines.worker.test_worker import row, tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.make_xl_base_model(tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def xl(folder):
    return load_base_model(str(folder))


@pytest.fixture(scope="module")
def xl_models(xl, models):
    return Models(xl, models.judge, models.coarse)


@pytest.fixture(scope="module")
def fitted(xl_models):
    return fit(xl_models, [scan(k) for k in range(2)], TINY.fit).outcomes


@pytest.fixture(scope="module")
def stock(folder):
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    return pipeline


def test_it_is_what_it_says(xl):
    assert isinstance(xl, StableDiffusionXL)
    assert (xl.latent_factor, xl.size_multiple, xl.training_area) == (4, 8, 32 * 32)
    assert target_layers(xl.unet)


def test_prompts_are_what_stock_diffusers_makes_of_them(xl, stock):
    ours = embed_prompts(xl, ["a red apple"])
    embeds, nothing, pooled, nothing_pooled = stock.encode_prompt("a red apple", do_classifier_free_guidance=True)
    empty = xl.no_condition()
    for mine, theirs in (
        (ours["embeds"], embeds),
        (ours["pooled"], pooled),
        (empty["embeds"], nothing),
        (empty["pooled"], nothing_pooled),
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_it_samples_the_same_as_stock_diffusers_with_the_saved_file(
    xl, xl_models, stock, fitted, tmp_path, guidance_scale
):
    """Tolerance: 1e-3 of latents whose size is about 1."""
    one = fitted[0]
    content = to_bytes(one, record(xl_models))
    (tmp_path / "a.safetensors").write_bytes(content)
    state = load_file(tmp_path / "a.safetensors")
    embeds, pooled = state.pop("optimized_embeds")[None], state.pop("optimized_pooled")[None]
    stock.load_lora_weights(state)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    nothing = xl.no_condition()
    options = {"num_inference_steps": 6, "guidance_scale": guidance_scale}
    theirs = stock(
        prompt_embeds=embeds,
        pooled_prompt_embeds=pooled,
        negative_prompt_embeds=nothing["embeds"],
        negative_pooled_prompt_embeds=nothing["pooled"],
        latents=noise,
        height=32,
        width=32,
        output_type="latent",
        **options,
    ).images
    stock.unload_lora_weights()
    again = from_bytes(content, one.scan.gray, xl_models)
    with attached_lora(xl.unet, again.lora):
        ours = sample(xl, noise, noise, again.optimized, nothing, strength=1.0, **options)
    assert torch.allclose(ours, theirs, atol=1e-3)


def record(models) -> ArtifactRecord:
    return ArtifactRecord(
        base_model="xl",
        base_model_digest=models.identity.base_model_digest,
        config_digest="",
        context_prompt="a photo of the red barn",
        identified_prompt="",
        anti_color_prompts=("grayscale",),
        seed=0,
        height=32,
        width=32,
        gray_sha256="",
        primary_image="",
    )


def test_its_artifact_is_of_the_second_format_and_stable_diffusions_is_of_the_first(
    xl_models, fitted, models, tmp_path
):
    content = to_bytes(fitted[0], record(xl_models))
    (tmp_path / "a.safetensors").write_bytes(content)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert {"optimized_embeds", "optimized_pooled"} <= set(file.keys())
    assert read_record(content) == record(xl_models)
    again = from_bytes(content, fitted[0].scan.gray, xl_models)
    for name in ("embeds", "pooled"):
        assert torch.equal(again.optimized[name], fitted[0].optimized[name])
    of_sd = to_bytes(fit(models, [scan(0)], TINY.fit).outcomes[0], record(models))
    for each, version in ((content, "2"), (of_sd, "1")):
        metadata = json.loads(each[8 : 8 + int.from_bytes(each[:8], "little")])["__metadata__"]
        assert json.loads(metadata["diffcolor"])["version"] == version


def test_both_parts_of_the_embedding_are_trained_and_mixed(xl, xl_models, fitted):
    start = embed_prompts(xl, [fitted[0].scan.context_prompt])
    for name in ("embeds", "pooled"):
        assert not torch.equal(fitted[0].optimized[name], start[name])
    half = fitted[0].optimized.mixed(start, torch.tensor([0.25]))
    for name in ("embeds", "pooled"):
        assert torch.allclose(half[name], 0.75 * fitted[0].optimized[name] + 0.25 * start[name])
    (ladder,) = recolor(xl_models, [(fitted[0], "a photo of the blue barn")], TINY)
    assert torch.isfinite(ladder[0].rgb).all()


def test_an_image_gets_what_it_gets_alone_and_goes_on_from_a_checkpoint(xl_models, fitted):
    (alone,) = fit(xl_models, [scan(1)], TINY.fit).outcomes
    assert same(alone.lora.values[0], fitted[1].lora.values[0])
    assert same(alone.optimized["pooled"], fitted[1].optimized["pooled"])
    saved = None
    for progress in fit(xl_models, [scan(1)], TINY.fit):
        if (progress.stage, progress.step) == ("embedding", 1):
            saved = checkpoint_to_bytes(progress.checkpoint(0), "key")
            break
    (resumed,) = fit(xl_models, [scan(1)], TINY.fit, [checkpoint_from_bytes(saved, "key")]).outcomes
    assert torch.equal(resumed.lora.values, alone.lora.values)
    assert torch.equal(resumed.optimized["pooled"], alone.optimized["pooled"])


def test_its_vae_is_never_in_float16(folder):
    half = load_base_model(str(folder), precision=Precision.fp16)
    assert {parameter.dtype for parameter in half.vae.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in half.unet.parameters()} == {torch.float16}
    bf16 = load_base_model(str(folder), precision=Precision.bf16)
    assert {parameter.dtype for parameter in bf16.vae.parameters()} == {torch.bfloat16}


def test_a_job_runs_on_it_from_scan_to_picture(folder, spec, tmp_path):
    from dataclasses import replace

    worker = Worker(replace(spec, base_model=str(folder)))
    for name in "ab":
        write_picture(tmp_path / f"{name}.png", ord(name))
    results = worker.process(tasks(tmp_path, [row("a"), row("b", target_prompts=["a red barn", "a blue barn"])]))
    assert {result.status for result in results} == {"ok"}
    (again,) = Worker(replace(spec, base_model=str(folder))).process(tasks(tmp_path, [row("a", shelf="another plan")]))
    assert again.trained_steps == 0


def test_what_is_not_it_is_told_apart(folder, tmp_path):
    def changed(name: str, file: str, **change) -> str:
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        config = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps({**config, **change}))
        return str(copy)

    for said, path in {
        "a refiner": changed("refiner", "model_index.json", text_encoder=[None, None], tokenizer=[None, None]),
        "an inpainting model": changed("inpainting", "unet/config.json", in_channels=9),
        "distilled": changed(
            "lightning", "scheduler/scheduler_config.json", timestep_spacing="trailing", prediction_type="epsilon"
        ),
        "16 and 24": changed("width", "unet/config.json", cross_attention_dim=64),
    }.items():
        with pytest.raises(BaseModelError, match=said):
            load_base_model(path)
    zeros = changed("zeros", "model_index.json", force_zeros_for_empty_prompt=False)
    assert read_base_folder("x", tmp_path / "zeros").digests()[0] != read_base_folder("x", folder).digests()[0]
    other = load_base_model(zeros)
    assert torch.equal(other.no_condition()["embeds"], other.condition([""])["embeds"])


def test_pairs_keep_an_images_own_order():
    e = Conditioning({"embeds": torch.tensor([[[1.0]], [[2.0]]]), "pooled": torch.tensor([[3.0], [4.0]])})
    pairs = e.after(Conditioning({"embeds": torch.zeros(1, 1, 1), "pooled": torch.zeros(1, 1)}))
    assert pairs["embeds"].flatten().tolist() == [0, 1, 0, 2]
    assert pairs["pooled"].flatten().tolist() == [0, 3, 0, 4]
