"""The pretrained models that an image is adapted on: a Stable-Diffusion-shaped base and a CLIP judge."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcolor.errors import BaseModelError

MINI = "mini"


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A Stable-Diffusion-1.x/2.x-shaped model. All weights are frozen; adapters are attached per image.

    Attributes:
        unet: UNet2DConditionModel. vae: AutoencoderKL or AutoencoderTiny. text_encoder, tokenizer: CLIP's.
        scheduler: DDIMScheduler made from the folder's own scheduler config.
        digest: sha256 (hex) over every weight file's path and sha256.
        precision: dtype of the U-Net's matrix products; parameters that train stay float32.
    """

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    name: str
    digest: str
    device: torch.device
    precision: torch.dtype

    @property
    def latent_factor(self) -> int:
        """Pixels per latent along one side."""
        config = self.vae.config
        blocks = config.get("block_out_channels") or config["encoder_block_out_channels"]  # AutoencoderKL or -Tiny
        return 2 ** (len(blocks) - 1)

    @property
    def size_multiple(self) -> int:
        """A working size must be a multiple of this many pixels (64 on Stable Diffusion)."""
        return self.latent_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @property
    def training_area(self) -> int:
        """Pixels of the square picture that the base was trained on."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * width * self.latent_factor**2

    @property
    def alphas_cumprod(self) -> Tensor:
        """(num_train_timesteps,) float32."""
        return self.scheduler.alphas_cumprod


@dataclass(frozen=True, kw_only=True)
class Judge:
    """An open_clip model: says how near a picture is to a text."""

    model: nn.Module
    tokenize: Any
    image_size: tuple[int, int]
    mean: Tensor
    std: Tensor
    name: str
    digest: str
    device: torch.device

    def image_features(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, D), unit norm; differentiable."""
        # The decoded image is mapped to [0, 1] once (the authors' notebooks did it twice, washing it out).
        resized = F.interpolate(rgb, self.image_size, mode="bicubic", antialias=True).clamp(0, 1)
        return F.normalize(self.model.encode_image((resized - self.mean) / self.std).float(), dim=-1)

    @torch.no_grad()
    def text_features(self, prompts: list[str]) -> Tensor:
        """N prompts to (N, D), unit norm."""
        return F.normalize(self.model.encode_text(self.tokenize(prompts).to(self.device)).float(), dim=-1)


def embedded_folder(part: str) -> Path:
    """Folder of the embedded model: `part` is "mini" (the base) or "judge"."""
    return Path(str(resources.files("diffcolor.embedded") / part))


def weights_digest(folder: Path) -> tuple[str, dict[str, str]]:
    """sha256 over the folder's weight files (path and content), and each file's own."""
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }
    return hashlib.sha256("".join(f"{name}\0{sha}\n" for name, sha in files.items()).encode()).hexdigest(), files


def resolve_device(device: str) -> str:
    """ "auto" is CUDA where there is any, else the CPU; everything else is itself."""
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _freeze(module: nn.Module, device: torch.device) -> nn.Module:
    return module.float().to(device).eval().requires_grad_(False)


def load_base_model(
    name: str = MINI, device: str | torch.device = "cpu", precision: torch.dtype | None = None
) -> BaseModel:
    """Loads `mini`, a diffusers folder, or a hub id. Only safetensors weights are read.

    Args:
        name: "mini", a local folder, or a hub id.
        device: where the model lives.
        precision: dtype of matrix products; default bfloat16 on CUDA, float32 elsewhere.

    Raises:
        BaseModelError: the folder lacks a part, or its shape is not that of Stable Diffusion 1.x/2.x.
    """
    from diffusers import DDIMScheduler, DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    # Their progress bars and advice would fill a batch job's log once per worker.
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    device = torch.device(device)
    folder = embedded_folder("mini") if name == MINI else Path(name)
    try:
        if not folder.is_dir():
            folder = Path(DiffusionPipeline.download(name, use_safetensors=True))
        pipeline = DiffusionPipeline.from_pretrained(
            str(folder),
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        parts = {part: getattr(pipeline, part) for part in ("unet", "vae", "text_encoder", "tokenizer")}
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False, thresholding=False)
    except Exception as error:  # a library's many ways to say that a folder is not what it should be
        raise BaseModelError(name, f"{type(error).__name__}: {error}") from error
    if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise BaseModelError(name, f"prediction_type {scheduler.config.prediction_type!r}, not epsilon or v_prediction")
    if parts["unet"].config.in_channels != parts["vae"].config.latent_channels:
        raise BaseModelError(name, "the U-Net does not take the VAE's latents alone (an inpainting model?)")
    return BaseModel(
        **{
            part: _freeze(module, device) if isinstance(module, nn.Module) else module for part, module in parts.items()
        },
        scheduler=scheduler,
        name=name,
        digest=weights_digest(folder)[0],
        device=device,
        precision=precision or (torch.bfloat16 if device.type == "cuda" else torch.float32),
    )


def load_judge(name: str = MINI, device: str | torch.device = "cpu") -> Judge:
    """Loads the CLIP judge: `mini`, a local open_clip folder (config and weights), or `MODEL:TAG` of open_clip.

    Raises:
        BaseModelError: it cannot be loaded.
    """
    import open_clip

    device = torch.device(device)
    folder = embedded_folder("judge") if name == MINI else Path(name)
    local = folder.is_dir()
    model_name, _, tag = (f"local-dir:{folder}", "", "") if local else name.partition(":")
    try:
        if not local and not tag:
            raise ValueError("give a local open_clip folder, or MODEL:TAG such as ViT-B-32:openai")
        if local and not list(folder.glob("*.safetensors")):
            raise ValueError("the folder holds no .safetensors weights")
        model = open_clip.create_model(model_name, pretrained=tag or None, device=device, require_pretrained=True)
        tokenize = open_clip.get_tokenizer(model_name)
    except Exception as error:
        raise BaseModelError(name, f"{type(error).__name__}: {error}") from error
    preprocess = model.visual.preprocess_cfg
    size = preprocess["size"]
    state = model.state_dict()
    return Judge(
        model=_freeze(model, device),
        tokenize=tokenize,
        image_size=(size, size) if isinstance(size, int) else tuple(size),
        mean=torch.tensor(preprocess["mean"], device=device).view(3, 1, 1),
        std=torch.tensor(preprocess["std"], device=device).view(3, 1, 1),
        name=name,
        digest=weights_digest(folder)[0] if local else _state_digest(state),
        device=device,
    )


def _state_digest(state: dict[str, Tensor]) -> str:
    """sha256 over named tensors, for weights that came from a library's own cache."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
