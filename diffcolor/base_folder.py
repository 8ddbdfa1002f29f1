"""What a base model's folder holds, by its configs alone: quick to know before a job, and no torch is needed."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcolor.errors import BaseModelError
from diffcolor.identity import embedded_folder, weights_digest

_TAKEN = "taken are Stable Diffusion 1.x, 2.x and XL and fine-tunes of their shape, as diffusers folders"
_WEIGHTS = re.compile(r"(\.(?P<variant>[\w-]+?))?(-\d+-of-\d+)?\.safetensors")
_ZEROS = "force_zeros_for_empty_prompt"
_REMARKS = ("architectures", "dtype", "torch_dtype", "transformers_version")  # what decides nothing here
_CONVERSION = "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"  # XL: StableDiffusionXLPipeline
# Of U-Nets that are conditioned on more than a timestep and one text.
_MORE_CONDITIONS = {
    "addition_embed_type": "one that takes further conditions",
    "class_embed_type": "an upscaler or another that takes a class or a noise level",
    "time_cond_proj_dim": "a latent consistency model (LCM), distilled to a few steps",
    "encoder_hid_dim_type": "one with projected conditions (Kandinsky, DeepFloyd)",
}
_INPUTS = {9: "an inpainting model", 8: "an instruction (InstructPix2Pix) model", 5: "a depth model", 7: "an upscaler"}


@dataclass(frozen=True)
class Family:
    """What the folders of a family hold.

    Attributes:
        stems: names of the weight files, before their variant, by part.
        small: parts without weights.
    """

    name: str
    stems: dict[str, str]
    small: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        return (*self.stems, *self.small)

    @property
    def configs(self) -> dict[str, str]:
        """The files that say how the parts compute."""
        return {
            **{part: f"{part}/config.json" for part in self.stems},
            "scheduler": "scheduler/scheduler_config.json",
        }


_SD_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
SD = Family("sd", _SD_STEMS, ("tokenizer", "scheduler"))
SDXL = Family("sdxl", {**_SD_STEMS, "text_encoder_2": "model"}, ("tokenizer", "tokenizer_2", "scheduler"))


@dataclass(frozen=True)
class BaseFolder:
    """A folder of a base model.

    Attributes:
        variant: of its weight files, such as "fp16"; None for files without one.
        weights: the files that are loaded, by part.
    """

    folder: Path
    family: Family
    variant: str | None
    weights: tuple[Path, ...]

    def digests(self) -> tuple[str, str]:
        """sha256 (hex) over the weights and the configs that are loaded, and over the weights alone, by which version
        0.1.0 knew a model; other files of the folder do not count."""
        weights, _ = weights_digest(self.folder, self.weights)
        if self.folder == embedded_folder("mini"):  # its configs come with the program, as they always did
            return weights, weights
        configs = {name: _read("", self.folder / name) for name in sorted(self.family.configs.values())}
        told: dict[str, Any] = {
            name: {key: each[key] for key in each if not _is_remark(key)} for name, each in configs.items()
        }
        if self.family is SDXL:
            told[_ZEROS] = _read("", self.folder / "model_index.json").get(_ZEROS, True)
        return hashlib.sha256(f"{weights}\0{json.dumps(told, sort_keys=True)}".encode()).hexdigest(), weights


def read_base_folder(name: str, folder: Path) -> BaseFolder:
    """Looks at the folder of model `name`.

    Raises:
        BaseModelError: it is of another family, or lacks something.
    """
    family = check_family(name, folder)
    files = [
        file.relative_to(folder).as_posix() for part in family.stems for file in (folder / part).glob("*.safetensors")
    ]
    variant, weights = _chosen_weights(name, family, files)
    return BaseFolder(folder, family, variant, tuple(folder / file for file in weights))


def needed_configs(names: list[str]) -> list[str]:
    """Of the files of a model on a hub, those that tell what it is; small."""
    return [one for one in names if one.endswith((".json", ".txt")) and _folder(one) in ("", *SDXL.parts)]


def needed_files(name: str, family: Family, names: list[str]) -> list[str]:
    """Of the files of a model on a hub, those that are loaded, and the configs.

    Raises:
        BaseModelError: it has no weights that can be read.
    """
    return [*needed_configs(names), *_chosen_weights(name, family, names)[1]]


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def check_family(name: str, folder: Path) -> Family:
    """Looks at the configs alone.

    Raises:
        BaseModelError: it is of no family that is taken, or lacks a part.
    """

    def refused(reason: str) -> BaseModelError:
        return BaseModelError(name, f"{reason}; {_TAKEN}")

    if folder.is_file():
        raise refused(f"it is a single file; in Python with diffusers, {_CONVERSION} makes a folder of it")
    index = _read(name, folder / "model_index.json")
    pipeline = str(index.get("_class_name", ""))
    family = SDXL if "XL" in pipeline or "text_encoder_2" in index else SD
    if missing := [part for part in family.parts if not _is_there(index.get(part))]:
        kind = "a refiner, or no Stable Diffusion XL" if family is SDXL else "no Stable Diffusion"
        raise refused(f"it is {kind} ({pipeline or 'of no class'}): it has no {', '.join(missing)}")
    configs = {part: _read(name, folder / file) for part, file in family.configs.items()}
    unet, vae = configs["unet"], configs["vae"]
    for setting, kind in _MORE_CONDITIONS.items():
        if unet.get(setting) and not (family is SDXL and unet[setting] == "text_time"):
            raise refused(f"it is {kind} ({setting} is {unet[setting]!r})")
    channels, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latents:
        kind = _INPUTS.get(channels, "a model that takes more than latents")
        raise refused(f"it is {kind}: its U-Net takes {channels} channels, latents have {latents}")
    width = unet.get("cross_attention_dim")
    hidden = [configs[part].get("hidden_size", 0) for part in family.stems if part.startswith("text_encoder")]
    if width is not None and all(hidden) and width != sum(hidden):
        wrote = " and ".join(map(str, hidden))
        raise refused(f"its U-Net reads texts of width {width}, its text encoders write {wrote}")
    _check_scheduler(configs["scheduler"], refused)
    return family


def _is_there(part: Any) -> bool:
    """Whether an entry of `model_index.json` names a part: [library, class], and not [null, null]."""
    return bool(part) and part != [None, None]


def _check_scheduler(scheduler: dict[str, Any], refused: Any) -> None:
    kind, prediction = str(scheduler.get("_class_name", "")), scheduler.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise refused(f"it predicts {prediction!r}, not epsilon or v_prediction")
    trailing = scheduler.get("timestep_spacing") == "trailing" and prediction == "epsilon"
    if kind in ("LCMScheduler", "TCDScheduler") or ("Euler" in kind and trailing):  # sd-turbo, Lightning
        raise refused(f"it is distilled to a few steps (its scheduler is {kind}), which fine-tuning undoes")


def _chosen_weights(name: str, family: Family, files: list[str]) -> tuple[str | None, list[str]]:
    """The variant and the weight files that diffusers would load. A variant is taken where a part has no other."""
    found: dict[str, dict[str, list[str]]] = {}  # by part, then by variant ("" for none)
    for part, stem in family.stems.items():
        found[part] = {}
        for file in sorted(one for one in files if one.startswith(f"{part}/{stem}")):
            if match := _WEIGHTS.fullmatch(file.removeprefix(f"{part}/{stem}")):
                found[part].setdefault(match["variant"] or "", []).append(file)
        if not found[part]:
            raise BaseModelError(name, f"{part}/ holds no {stem}.safetensors (pickled weights, .bin, are not read)")
    wanted = {min(some, key=lambda one: one != "fp16") for some in found.values() if "" not in some}
    variant = min(wanted) if wanted else None
    chosen = [some[variant or ""] if (variant or "") in some else next(iter(some.values())) for some in found.values()]
    return variant, [file for files in chosen for file in files]


def _is_remark(key: str) -> bool:
    return key.startswith("_") or key in _REMARKS


def _read(name: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        place = "/".join(file.parts[-2:]) if file.name != "model_index.json" else file.name
        raise BaseModelError(name, f"it has no {place}; {_TAKEN}") from error
    except (OSError, ValueError) as error:
        raise BaseModelError(name, f"{file.name} cannot be read ({error})") from error
    return content if isinstance(content, dict) else {}
