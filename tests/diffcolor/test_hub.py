"""Models by their hub ids, from a real server, through the real client in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffcolor.base_model import load_base_model
from tests.model_hub import ModelHub
from tests.tiny_models import make_tiny_decoder

_LOAD = """
import sys
from diffcolor.base_model import load_base_model, with_loss_decoder
from diffcolor.errors import BaseModelError
try:
    base = load_base_model(sys.argv[1])
    print(with_loss_decoder(base, sys.argv[2]).loss_decoder_digest if len(sys.argv) > 2 else base.digest)
except BaseModelError as error:
    print(error)
    sys.exit(5)
"""


@pytest.fixture(scope="module")
def model(base_folder, tmp_path_factory):
    """The base model as hubs have them: with files beside it that nobody needs."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    shutil.copytree(base_folder, folder)
    (folder / "README.md").write_text("a model")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickled")
    shutil.copy(
        folder / "unet" / "diffusion_pytorch_model.safetensors",
        folder / "unet" / "diffusion_pytorch_model.fp16.safetensors",
    )
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"large")
    (folder / "safety_checker" / "config.json").write_text("{}")
    return folder


@pytest.fixture
def load(tmp_path):
    """Loads by hub id in a new process; returns (exit code, what it said)."""

    def run(hub, *names, **variables):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "HF_HOME": str(tmp_path / "cache"),
            "HF_ENDPOINT": hub.endpoint,
            **variables,
        }
        found = subprocess.run(
            [sys.executable, "-c", _LOAD, *names], env=environment, capture_output=True, text=True, timeout=300
        )
        return found.returncode, (found.stdout.strip().splitlines() or [found.stderr])[-1]

    return run


def test_what_is_needed_is_fetched_once_and_nothing_else(model, load):
    with ModelHub({"museum/model": model}) as hub:
        assert load(hub, "museum/model") == (0, load_base_model(str(model)).digest)
        wanted = {
            f"museum/model/{file.relative_to(model).as_posix()}"
            for file in model.rglob("*")
            if file.is_file()
            and not file.name.endswith((".bin", ".md", ".fp16.safetensors"))
            and file.parent.name != "safety_checker"
        }
        assert set(hub.fetched) == wanted
        assert load(hub, "museum/model")[0] == 0
        assert set(hub.fetched.values()) == {1}
    # The hub is gone: what is here is taken.
    assert load(hub, "museum/model")[0] == 0
    assert load(hub, "museum/model", HF_HUB_OFFLINE="1")[0] == 0


def test_half_a_download_is_finished(model, load):
    with ModelHub({"museum/model": model}, breaks=1) as hub:
        code, said = load(hub, "museum/model")
        if code:  # the client may try again by itself
            assert "museum/model" in said
            code, said = load(hub, "museum/model")
        assert (code, said) == (0, load_base_model(str(model)).digest)


def test_a_private_model_needs_its_token(model, load):
    with ModelHub({"museum/model": model}, token="hf_secret") as hub:
        code, said = load(hub, "museum/model")
        assert code == 5
        assert "HF_TOKEN" in said
        assert load(hub, "museum/model", HF_TOKEN="hf_secret")[0] == 0


def test_another_family_is_refused_before_its_weights_are_fetched(model, load, tmp_path):
    folder = tmp_path / "xl"
    shutil.copytree(model, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionXLPipeline"}))
    with ModelHub({"museum/xl": folder}) as hub:
        code, said = load(hub, "museum/xl")
        assert (code, "Stable Diffusion XL" in said) == (5, True)
        assert not [name for name in hub.fetched if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    ("name", "variables", "named"),
    [
        ("museum/nosuch", {}, "no such model"),
        ("museum/model", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ("museum/model", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        ("./no/such/folder", {}, "no hub id"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(model, load, name, variables, named):
    with ModelHub({"museum/model": model}) as hub:
        code, said = load(hub, name, **variables)
    assert code == 5
    assert name in said
    assert named in said


def test_a_loss_decoder_comes_from_the_hub_too(model, load, tmp_path):
    tiny = make_tiny_decoder(tmp_path / "tiny")
    (tiny / "pictures.png").write_bytes(b"large")
    with ModelHub({"museum/model": model, "museum/tiny": tiny}) as hub:
        code, said = load(hub, "museum/model", "museum/tiny")
        assert (code, len(said)) == (0, 64)
        assert {name for name in hub.fetched if "/tiny/" in name} == {
            "museum/tiny/config.json",
            "museum/tiny/diffusion_pytorch_model.safetensors",
        }


def test_the_path_of_a_folder_that_is_not_there_is_said(tmp_path, load, model):
    with ModelHub({}) as hub:
        code, said = load(hub, str(Path(tmp_path) / "models" / "sd15"))
    assert code == 5
    assert "there is no such folder" in said
