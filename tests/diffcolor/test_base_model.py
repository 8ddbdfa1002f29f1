import json
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel

from diffcolor.base_folder import read_base_folder
from diffcolor.base_model import load_base_model, with_loss_decoder
from diffcolor.diffusion import decode, decode_for_loss, encode
from diffcolor.errors import BaseModelError
from diffcolor.identity import embedded_folder, weights_digest
from diffcolor.judge import _trained_with_quick_gelu, load_judge
from tests.tiny_models import make_tiny_decoder


def test_sizes_come_from_the_models_own_config(base):
    assert (base.latent_factor, base.size_multiple, base.training_area) == (4, 8, 32 * 32)


def test_a_tiny_distilled_autoencoder_is_accepted(base_folder, tmp_path):
    folder = tmp_path / "taesd"
    shutil.copytree(base_folder, folder)
    shutil.rmtree(folder / "vae")
    blocks = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
    AutoencoderTiny(**blocks, num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1)).save_pretrained(
        folder / "vae"
    )
    index = (folder / "model_index.json").read_text().replace("AutoencoderKL", "AutoencoderTiny")
    (folder / "model_index.json").write_text(index)
    base = load_base_model(str(folder))
    assert base.latent_factor == 4
    with torch.no_grad():
        latents = encode(base, torch.rand(1, 3, 32, 32))
        assert latents.shape == (1, 4, 8, 8)
        assert decode(base, latents).shape == (1, 3, 32, 32)


def test_digest_names_the_weights_not_the_place(base, base_folder, tmp_path):
    shutil.copytree(base_folder, tmp_path / "copy")
    assert load_base_model(str(tmp_path / "copy")).digest == base.digest


def test_a_pickle_is_not_loaded(base_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(base_folder, folder)
    weights = next((folder / "unet").glob("*.safetensors"))
    torch.save({}, weights.with_name("diffusion_pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(BaseModelError):
        load_base_model(str(folder))


@pytest.mark.parametrize("name", ["no/such-folder-or-hub-id/anywhere", ""])
def test_a_missing_base_model_is_named(name):
    with pytest.raises(BaseModelError):
        load_base_model(name)


def test_a_judge_needs_a_folder_or_a_tag():
    with pytest.raises(BaseModelError, match="MODEL:TAG"):
        load_judge("ViT-B-32")


def test_a_judge_without_weights_is_refused(judge_folder, tmp_path):
    shutil.copytree(judge_folder, tmp_path / "j")
    next((tmp_path / "j").glob("*.safetensors")).unlink()
    with pytest.raises(BaseModelError, match=r"no \.safetensors"):
        load_judge(str(tmp_path / "j"))


def test_judge_features_are_unit_norm_and_differentiable(judge):
    rgb = torch.rand(2, 3, 40, 56, requires_grad=True)
    features = judge.image_features(rgb)
    assert torch.allclose(features.norm(dim=-1), torch.ones(2), atol=1e-5)
    features.sum().backward()
    assert rgb.grad.abs().sum() > 0
    assert torch.allclose(judge.text_features(["a red barn"]).norm(dim=-1), torch.ones(1), atol=1e-5)


def changed(base_folder, folder, part: str, **settings):
    """A copy of the folder with another configuration of a part."""
    shutil.copytree(base_folder, folder)
    file = folder / part
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return str(folder)


OTHERS = {
    "SDXL": ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "XL"),
    "two text encoders": ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModel"]}, "XL"),
    "Flux": ("model_index.json", {"_class_name": "FluxPipeline", "unet": None}, "FluxPipeline"),
    "inpainting": ("unet/config.json", {"in_channels": 9}, "inpainting"),
    "LCM": ("unet/config.json", {"time_cond_proj_dim": 256}, "LCM"),
    "upscaler": ("unet/config.json", {"class_embed_type": "timestep"}, "upscaler"),
    "wide text": ("unet/config.json", {"cross_attention_dim": 1024}, "width 1024"),
    "flow": ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}, "flow_prediction"),
    "LCM scheduler": ("scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, "distilled"),
    "turbo": (
        "scheduler/scheduler_config.json",
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
        "distilled",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_families_are_named_and_refused(base_folder, tmp_path, kind):
    part, settings, said = OTHERS[kind]
    folder = changed(base_folder, tmp_path / "other", part, **settings)
    with pytest.raises(BaseModelError, match=said) as refused:
        load_base_model(folder)
    assert "taken are Stable Diffusion 1.x, 2.x and XL" in str(refused.value)


def test_a_single_file_is_told_how_to_become_a_folder(tmp_path):
    (tmp_path / "fine-tune.safetensors").write_bytes(b"x")
    with pytest.raises(BaseModelError, match="from_single_file"):
        load_base_model(str(tmp_path / "fine-tune.safetensors"))


def test_files_that_are_not_loaded_do_not_count(base, base_folder, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(base_folder, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (folder / "safety_checker").mkdir()
    shutil.copy(weights, folder / "safety_checker" / "model.safetensors")
    assert load_base_model(str(folder)).digest == base.digest


def test_the_digest_of_the_embedded_model_is_that_of_its_weights_as_ever():
    """So that outputs of every version know it."""
    assert load_base_model().digest == weights_digest(embedded_folder("mini"))[0]


@pytest.mark.parametrize(
    ("file", "change", "counts"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, True),
        ("scheduler/scheduler_config.json", {"_diffusers_version": "0.1.0"}, False),
        ("unet/config.json", {"attention_head_dim": 4}, True),
        ("unet/config.json", {"_name_or_path": "/somewhere/else"}, False),
        ("vae/config.json", {"scaling_factor": 0.5}, True),
        ("text_encoder/config.json", {"use_attention_mask": True}, True),
        ("text_encoder/config.json", {"transformers_version": "0.1.0", "torch_dtype": "float16"}, False),
        ("tokenizer/tokenizer_config.json", {"remark": "x"}, False),
    ],
)
def test_a_config_that_decides_something_counts_and_a_remark_does_not(
    base, base_folder, tmp_path, file, change, counts
):
    folder = tmp_path / "changed"
    shutil.copytree(base_folder, folder)
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **change}))
    assert (read_base_folder("x", folder).digests()[0] != base.digest) == counts


def test_a_folder_of_a_variant_alone_loads(base, base_folder, tmp_path):
    folder = tmp_path / "variant"
    shutil.copytree(base_folder, folder)
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    loaded = load_base_model(str(folder))
    for name, value in base.unet.state_dict().items():
        assert torch.equal(value, loaded.unet.state_dict()[name])


def test_sharded_weights_load_and_count(base, base_folder, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(base_folder, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    UNet2DConditionModel.from_pretrained(base_folder, subfolder="unet").save_pretrained(
        folder / "unet", max_shard_size="50KB"
    )
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    layout = read_base_folder("x", folder)
    assert set(layout.weights) == set(folder.rglob("*.safetensors"))
    assert load_base_model(str(folder)).digest != base.digest


def test_a_sharded_variant_is_a_variant(base_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(base_folder, folder)
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shards = [plain.with_name(f"diffusion_pytorch_model.fp16-0000{k}-of-00002.safetensors") for k in (1, 2)]
    for shard in shards:
        shutil.copy(plain, shard)
    assert read_base_folder("x", folder).variant is None
    plain.unlink()
    layout = read_base_folder("x", folder)
    assert layout.variant == "fp16"
    assert set(shards) < set(layout.weights)
    assert len(layout.weights) == 4


def test_a_judge_trained_with_quick_gelu_gets_it():
    assert _trained_with_quick_gelu("ViT-B-32", "openai")
    assert not _trained_with_quick_gelu("ViT-B-32", "laion2b_s34b_b79k")


def test_a_loss_decoder_sees_the_predictions_and_paints_nothing(tmp_path, models):
    """Stage 1 learns otherwise with it, but nothing that is seen is decoded by it."""
    small = with_loss_decoder(models.base, str(make_tiny_decoder(tmp_path / "tiny")))
    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(decode(small, latents), decode(models.base, latents))
    assert decode_for_loss(small, latents).shape == (2, 3, 32, 32)
    assert not torch.allclose(decode_for_loss(small, latents), decode(small, latents), atol=1e-2)
    identity = replace(models, base=small).identity
    assert identity.loss_decoder == str(tmp_path / "tiny")
    assert len(identity.loss_decoder_digest) == 64
    assert models.identity.loss_decoder_digest == ""


@pytest.mark.parametrize(("made", "named"), [({"latent_channels": 16}, "16 channels"), ({"scales": 4}, "1/8")])
def test_a_loss_decoder_for_other_latents_is_refused(tmp_path, base, made, named):
    folder = make_tiny_decoder(tmp_path / "tiny", **made)
    with pytest.raises(BaseModelError, match=named):
        with_loss_decoder(base, str(folder))


def test_a_loss_decoder_that_is_none_is_refused_in_a_sentence(tmp_path, base, base_folder):
    for folder in (tmp_path, base_folder / "unet"):
        with pytest.raises(BaseModelError, match=str(folder)):
            with_loss_decoder(base, str(folder))
