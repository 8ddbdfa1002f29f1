"""The pretrained model that is adapted to each image: Stable Diffusion 1.x, 2.x or XL, or one of their shape."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffcolor.base_folder import SDXL, check_family, needed_configs, needed_files, read_base_folder
from diffcolor.conditioning import Conditioning
from diffcolor.config import MINI, Precision
from diffcolor.errors import BaseModelError
from diffcolor.hub import fetch
from diffcolor.identity import embedded_folder, weights_digest
from diffcolor.precision import dtype_for, freeze
from diffcolor.words import EVERY_WORD, TOKENIZING, Vocabulary, embedded_vocabulary

_TINY_FILES = ["config.json", "diffusion_pytorch_model.safetensors"]
_LEFT_OUT = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}  # not loaded


@dataclass(frozen=True, kw_only=True)
class BaseModel(ABC):
    """A latent diffusion model with a U-Net. All weights are frozen; adapters are attached per image.

    This is the seam between the method and the families of models: what is below differs between them, or is found out
    from a model's configs; everything else is the method's. `StableDiffusion` and `StableDiffusionXL` are the families.

    Attributes:
        unet: UNet2DConditionModel. vae: AutoencoderKL or AutoencoderTiny. text_encoder, tokenizer: CLIP's.
        scheduler: DDIMScheduler made from the folder's own scheduler config.
        digest, weights_digest: sha256 (hex) of all that was loaded, and of the weights alone (`BaseFolder.digests`).
        alphas_cumprod: (num_train_timesteps,) float32, on the device.
        precision: dtype of the weights and activations of U-Net and text encoder; what is trained, and all arithmetic
            between them, stays float32.
        vocabulary: the words that it reads.
        loss_decoder: an AutoencoderTiny for the same latents, by which stage 1's loss looks at predictions; None for
            the VAE itself. Pictures are never made with it.
        loss_decoder_name, loss_decoder_digest: of that; "" without one.
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
    alphas_cumprod: Tensor
    weights_digest: str = ""
    vocabulary: Vocabulary = EVERY_WORD
    loss_decoder: Any = None
    loss_decoder_name: str = ""
    loss_decoder_digest: str = ""

    # What a family says of itself -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def vae_precision(self) -> torch.dtype:
        """dtype of the VAE's weights and activations."""

    @abstractmethod
    def condition(self, prompts: list[str]) -> Conditioning:
        """What the denoiser reads of prompts, without gradients."""

    @abstractmethod
    def no_condition(self) -> Conditioning:
        """What it reads where guidance leads away from: nothing said; K = 1."""

    @abstractmethod
    def predict(self, x_t: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The U-Net's raw output (eps or v), float32; x_t (N, C, h, w), timesteps (N,)."""

    # What follows from its configs ------------------------------------------------------------------------------------

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
        """Area, in pixels, of the pictures that the base was trained on."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return height * width * self.latent_factor**2


class StableDiffusion(BaseModel):
    """Stable Diffusion 1.x and 2.x: one text encoder, whose last layer the U-Net reads."""

    @property
    def vae_precision(self) -> torch.dtype:
        return self.precision

    @torch.no_grad()
    def condition(self, prompts: list[str]) -> Conditioning:
        ids, padding_mask = _tokens(self.tokenizer, prompts)
        # SD 2.x's text encoder needs the padding mask, SD 1.x's must not get one.
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = padding_mask.to(self.device) if masked else None
        encoded = self.text_encoder(ids.to(self.device), attention_mask=mask)
        return Conditioning({"embeds": encoded.last_hidden_state.float()})

    def no_condition(self) -> Conditioning:
        return self.condition([""])

    def predict(self, x_t: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        texts = conditioning["embeds"].to(self.precision)
        return self.unet(x_t.to(self.precision), timesteps, encoder_hidden_states=texts).sample.float()


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(BaseModel):
    """Stable Diffusion XL (arXiv 2307.01952): the last but one layers of two text encoders side by side, the second's
    summary of the whole prompt, and the picture's size.

    Attributes:
        text_encoder_2, tokenizer_2: the second, with a projection.
        zero_without_prompt: nothing said is zeros, and not the empty prompt.
    """

    text_encoder_2: Any
    tokenizer_2: Any
    zero_without_prompt: bool = True

    @property
    def vae_precision(self) -> torch.dtype:
        """Its VAE overflows in float16."""
        return torch.float32 if self.precision == torch.float16 else self.precision

    @torch.no_grad()
    def condition(self, prompts: list[str]) -> Conditioning:
        first, second = (
            encoder(_tokens(tokenizer, prompts)[0].to(self.device), output_hidden_states=True)
            for tokenizer, encoder in (
                (self.tokenizer, self.text_encoder),
                (self.tokenizer_2, self.text_encoder_2),
            )
        )
        embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return Conditioning({"embeds": embeds.float(), "pooled": second.text_embeds.float()})

    def no_condition(self) -> Conditioning:
        empty = self.condition([""])
        if not self.zero_without_prompt:
            return empty
        return Conditioning({name: torch.zeros_like(tensor) for name, tensor in empty.tensors.items()})

    def predict(self, x_t: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        height, width = (side * self.latent_factor for side in x_t.shape[-2:])
        # The size that it had, what was cut off at the top and left, the size that it has.
        sizes = torch.tensor([height, width, 0, 0, height, width], device=self.device, dtype=self.precision)
        more = {"text_embeds": conditioning["pooled"].to(self.precision), "time_ids": sizes.expand(len(x_t), -1)}
        texts = conditioning["embeds"].to(self.precision)
        return self.unet(
            x_t.to(self.precision), timesteps, encoder_hidden_states=texts, added_cond_kwargs=more
        ).sample.float()


FAMILIES: dict[str, type[BaseModel]] = {"sd": StableDiffusion, "sdxl": StableDiffusionXL}


def _tokens(tokenizer: Any, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Ids (K, T) and the mask of those that are no padding."""
    limit = tokenizer.model_max_length
    with TOKENIZING:
        tokens = tokenizer(prompts, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
    return tokens.input_ids, tokens.attention_mask


def resolve_device(device: str) -> str:
    """Replaces "auto" by "cuda" where a GPU is available, else by "cpu"; other names are returned unchanged."""
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def load_base_model(
    name: str = MINI, device: str | torch.device = "cpu", precision: Precision | str = Precision.auto
) -> BaseModel:
    """Loads `mini`, a diffusers folder, or a hub id. Only safetensors weights are read.

    Args:
        name: "mini", a local folder, or a hub id.
        device: where the model lives.
        precision: of its weights and activations; "auto" by the device (`precision.dtype_for`).

    Raises:
        BaseModelError: the folder lacks a part, or its shape is not that of a family (`BaseModel`).
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
        if not folder.exists():
            folder = _fetched(name)
        layout = read_base_folder(name, folder)
        pipeline = DiffusionPipeline.from_pretrained(
            str(folder),
            use_safetensors=True,
            variant=layout.variant,
            requires_safety_checker=False,
            **_LEFT_OUT,
        )
        parts = {part: getattr(pipeline, part) for part in layout.family.parts if part != "scheduler"}
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False, thresholding=False)
    except BaseModelError:
        raise
    except Exception as error:  # diffusers raises many types for an unsuitable folder
        raise BaseModelError(name, f"{type(error).__name__}: {error}") from error
    digest, weights_alone = layout.digests()
    dtype = dtype_for(precision, device)
    if layout.family is SDXL:
        parts["zero_without_prompt"] = bool(pipeline.config.get("force_zeros_for_empty_prompt", True))
    base = FAMILIES[layout.family.name](
        **parts,
        scheduler=scheduler,
        name=name,
        digest=digest,
        weights_digest=weights_alone,
        device=device,
        vocabulary=embedded_vocabulary() if name == MINI else EVERY_WORD,
        precision=dtype,
        alphas_cumprod=scheduler.alphas_cumprod.to(device),
    )
    for part, module in parts.items():
        if isinstance(module, nn.Module):
            freeze(module, device, base.vae_precision if part == "vae" else dtype)
    return base


def _fetched(name: str) -> Path:
    """The folder of a hub id. Its configs come first: of another family's model no weights are fetched."""
    family = check_family(name, fetch(name, needed_configs))
    return fetch(name, partial(needed_files, name, family))


def with_loss_decoder(base: BaseModel, name: str) -> BaseModel:
    """The base model with an AutoencoderTiny (such as madebyollin/taesd) as decoder of stage 1's loss.

    Args:
        name: a diffusers folder, or a hub id.

    Raises:
        BaseModelError: it cannot be loaded, or is for other latents.
    """
    from diffusers import AutoencoderTiny

    try:
        folder = Path(name) if Path(name).exists() else fetch(name, lambda _: _TINY_FILES)
        tiny = AutoencoderTiny.from_pretrained(str(folder), use_safetensors=True)
    except BaseModelError:
        raise
    except Exception as error:  # as for a base model
        raise BaseModelError(name, f"{type(error).__name__}: {error}") from error
    scale = 2 ** (len(tiny.config.decoder_block_out_channels) - 1)
    wanted, found = (base.unet.config.in_channels, base.latent_factor), (tiny.config.latent_channels, scale)
    if wanted != found:
        raise BaseModelError(
            name,
            f"it is for latents of {found[0]} channels and 1/{found[1]} of the picture's side; those of {base.name} "
            f"have {wanted[0]} and 1/{wanted[1]}",
        )
    return replace(
        base,
        loss_decoder=freeze(tiny, base.device, base.vae_precision),
        loss_decoder_name=name,
        loss_decoder_digest=weights_digest(folder)[0],
    )
