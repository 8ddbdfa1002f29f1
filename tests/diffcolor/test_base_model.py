import shutil

import pytest
import torch
from diffusers import AutoencoderTiny

from diffcolor.base_model import load_base_model
from diffcolor.diffusion import decode, encode
from diffcolor.errors import BaseModelError
from diffcolor.judge import load_judge


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
