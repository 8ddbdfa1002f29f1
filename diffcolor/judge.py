"""The CLIP model that rates how well a picture matches a text."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcolor.config import MINI, Precision
from diffcolor.errors import BaseModelError
from diffcolor.identity import embedded_folder, weights_digest
from diffcolor.precision import dtype_for, freeze
from diffcolor.words import EVERY_WORD, Vocabulary, embedded_vocabulary


@dataclass(frozen=True, kw_only=True)
class Judge:
    """An open_clip model and its tokenizer.

    Attributes:
        image_size: (height, width) of the pictures that it sees.
        mean, std: (3, 1, 1), normalization of its input.
        digest: sha256 (hex) of its weights.
        precision: dtype of its weights and activations.
        vocabulary: the words that it reads.
    """

    model: Any
    tokenize: Any
    image_size: tuple[int, int]
    mean: Tensor
    std: Tensor
    name: str
    digest: str
    device: torch.device
    precision: torch.dtype = torch.float32
    vocabulary: Vocabulary = EVERY_WORD

    def image_features(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, D), unit norm; differentiable."""
        # The decoded image is mapped to [0, 1] once (the authors' notebooks did it twice, washing it out).
        resized = _resize(rgb, self.image_size).clamp(0, 1)
        pixels = ((resized - self.mean) / self.std).to(self.precision)
        return F.normalize(self.model.encode_image(pixels).float(), dim=-1)

    @cached_property
    def temperature(self) -> float:
        """Of the softmax over cosines in its own training: the inverse of CLIP's logit scale."""
        return float((-self.model.logit_scale.float()).exp())

    @torch.no_grad()
    def text_features(self, prompts: list[str]) -> Tensor:
        """N prompts to (N, D), unit norm."""
        return F.normalize(
            self.model.encode_text(
                self.tokenize([self.vocabulary.read(prompt) for prompt in prompts]).to(self.device)
            ).float(),
            dim=-1,
        )


def _resize(rgb: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 3, H, W) to (N, 3, *size), bicubic with antialiasing."""
    if not torch.are_deterministic_algorithms_enabled():
        return F.interpolate(rgb, size, mode="bicubic", antialias=True)
    # Its gradient on a GPU is a sum in any order; the same as two products of matrices has one order.
    rows, columns = (_resizing(old, new, rgb) for old, new in zip(rgb.shape[-2:], size, strict=True))
    return rows @ rgb @ columns.mT


def _resizing(old: int, new: int, like: Tensor) -> Tensor:
    """(new, old), the matrix by which one side is resized."""
    with torch.no_grad():
        each = torch.eye(old, device=like.device, dtype=like.dtype)[None, None]
        return F.interpolate(each, (new, old), mode="bicubic", antialias=True)[0, 0]


def load_judge(
    name: str = MINI, device: str | torch.device = "cpu", precision: Precision | str = Precision.auto
) -> Judge:
    """Loads the CLIP judge: `mini`, a local open_clip folder (config and weights), or `MODEL:TAG` of open_clip.

    Args:
        precision: see `load_base_model`.

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
        model = open_clip.create_model(
            model_name,
            pretrained=tag or None,
            device=device,
            require_pretrained=True,
            force_quick_gelu=not local and _trained_with_quick_gelu(model_name, tag),
        )
        tokenize = open_clip.get_tokenizer(model_name)
    except Exception as error:
        raise BaseModelError(name, f"{type(error).__name__}: {error}") from error
    dtype = dtype_for(precision, device)
    preprocess = model.visual.preprocess_cfg
    size = preprocess["size"]
    quick_gelu = not local and _trained_with_quick_gelu(model_name, tag)
    digest = weights_digest(folder)[0] if local else _state_digest(model.state_dict(), quick_gelu)
    return Judge(
        model=freeze(model, device, dtype),
        tokenize=tokenize,
        image_size=(size, size) if isinstance(size, int) else tuple(size),
        mean=torch.tensor(preprocess["mean"], device=device).view(3, 1, 1),
        std=torch.tensor(preprocess["std"], device=device).view(3, 1, 1),
        name=name,
        digest=digest,
        device=device,
        precision=dtype,
        vocabulary=embedded_vocabulary() if name == MINI else EVERY_WORD,
    )


def _trained_with_quick_gelu(model_name: str, tag: str) -> bool:
    """Whether weights were trained with QuickGELU. open_clip gives them GELU where the model's name does not say so,
    warns, and their features are others than the trained ones."""
    import open_clip

    return bool(open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu", False))


def _state_digest(state: dict[str, Tensor], quick_gelu: bool) -> str:
    """sha256 (hex) over names and tensors, for weights from open_clip's own cache, and over how they are used."""
    sha = hashlib.sha256(b"quick_gelu" if quick_gelu else b"")
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
