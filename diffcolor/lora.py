"""Low-rank adapters with a leading image axis: K images adapt together on one shared, untouched U-Net.

Layer names and the export follow peft/diffusers: `unet.<layer>.lora_A.weight` (rank, in), `lora_B.weight` (out, rank),
alpha equal to the rank, so that the scale is 1 and diffusers' own `load_lora_weights` reads them as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# Every linear layer of the attention blocks: self- and cross-attention projections and the feed-forward.
_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


def target_layers(unet: nn.Module) -> dict[str, nn.Linear]:
    """The layers that are adapted, by name."""
    return {
        name: layer for name, layer in unet.named_modules() if isinstance(layer, nn.Linear) and name.endswith(_TARGETS)
    }


@dataclass(frozen=True)
class LoRA:
    """Adapters of K images in one tensor, so that a step casts, clips and updates all layers at once.

    Attributes:
        values: (K, P) float32, all numbers of an image's adapters one after the other.
        shapes: of each part in their order: (rank, in) of `down/<layer>`, (out, rank) of `up/<layer>`.
    """

    values: Tensor
    shapes: dict[str, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.values)

    def named(self) -> dict[str, Tensor]:
        """(K, *shape) of each part, as views of `values`."""
        parts = self.values.split([rows * columns for rows, columns in self.shapes.values()], dim=1)
        return {name: part.unflatten(1, shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    @staticmethod
    def from_named(tensors: Mapping[str, Tensor]) -> "LoRA":
        """The inverse of `named`; tensors of other names are ignored. No part at all: adapters of a model of none."""
        names = sorted(name for name in tensors if name.startswith(("down/", "up/")))
        shapes = {name: (tensors[name].shape[1], tensors[name].shape[2]) for name in names}
        flat = [tensors[name].flatten(1) for name in names]
        return LoRA(torch.cat(flat, dim=1) if flat else torch.zeros(1, 0), shapes)

    @property
    def down(self) -> dict[str, Tensor]:
        """(K, rank, in) by layer."""
        return self._part("down/")

    @property
    def up(self) -> dict[str, Tensor]:
        """(K, out, rank) by layer."""
        return self._part("up/")

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): part for name, part in self.named().items() if name.startswith(prefix)}

    def of(self, rows: Tensor | slice) -> "LoRA":
        """Adapters of some images, through which gradients reach `values`."""
        return LoRA(self.values[rows], self.shapes)

    def select(self, images: Sequence[int]) -> "LoRA":
        """Adapters of the given images in the given order; repeats are allowed."""
        return LoRA(self.values.detach()[list(images)], self.shapes)

    def rounded(self) -> "LoRA":
        """The values as they are saved (float16), so that a fresh fit and its artifact sample the same pixels."""
        return LoRA(self.values.detach().half().float(), self.shapes)

    def to(self, device: torch.device) -> "LoRA":
        return LoRA(self.values.to(device), self.shapes)


def init_lora(unet: nn.Module, rank: int, generators: Sequence[torch.Generator]) -> LoRA:
    """Adapters that change nothing yet (`up` is zero), one per generator; `down` is N(0, 1/rank), as in peft."""
    parts = {}
    for name, layer in target_layers(unet).items():
        drawn = [torch.randn(rank, layer.in_features, generator=generator) / rank for generator in generators]
        parts[f"down/{name}"] = torch.stack(drawn)
        parts[f"up/{name}"] = torch.zeros(len(generators), layer.out_features, rank)
    return LoRA.from_named(parts).to(next(unet.parameters()).device)


class _Hooks:
    """The hooks in the adapted layers of one U-Net, and what they add at the moment: nothing, where `parts` is empty.

    They stay there, because to set 160 of them in every step takes longer than the step's kernels take to start.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.parts: dict[str, Tensor] = {}
        for name, layer in target_layers(unet).items():
            layer.register_forward_hook(self._adapted(name))

    def _adapted(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self.parts:
                return output
            down, up = self.parts[f"down/{name}"], self.parts[f"up/{name}"]
            x = inputs[0].reshape(len(down), -1, down.shape[-1])
            by_image = output.reshape(len(up), -1, up.shape[1])
            return torch.baddbmm(by_image, torch.bmm(x, down.mT), up.mT).view_as(output)

        return hook


_hooks: WeakKeyDictionary[nn.Module, _Hooks] = WeakKeyDictionary()


@contextmanager
def attached_lora(unet: nn.Module, lora: LoRA) -> Iterator[None]:
    """The U-Net has the adapters while the context lasts; its own weights are never touched.

    The U-Net's batch must be image-major with K * m elements: element i belongs to image i // m. The values are those
    at the time of the call, in the U-Net's precision; gradients reach `lora.values`.
    """
    hooks = _hooks.get(unet) or _hooks.setdefault(unet, _Hooks(unet))
    hooks.parts = LoRA(lora.values.to(next(unet.parameters()).dtype), lora.shapes).named()
    try:
        yield
    finally:
        hooks.parts = {}


def to_diffusers(lora: LoRA) -> dict[str, Tensor]:
    """One image's adapters under the names that `StableDiffusionPipeline.load_lora_weights` reads; float16."""
    assert len(lora) == 1, "one artifact holds one image"
    named = {f"unet.{name}.lora_A.weight": tensor[0] for name, tensor in lora.down.items()}
    named |= {f"unet.{name}.lora_B.weight": tensor[0] for name, tensor in lora.up.items()}
    return {name: tensor.detach().half().contiguous().cpu() for name, tensor in named.items()}


def from_diffusers(state: dict[str, Tensor]) -> LoRA:
    """The inverse of `to_diffusers`."""
    kinds = {".lora_A.weight": "down/", ".lora_B.weight": "up/"}
    return LoRA.from_named(
        {
            prefix + key.removeprefix("unet.").removesuffix(suffix): tensor[None].float()
            for key, tensor in state.items()
            for suffix, prefix in kinds.items()
            if key.endswith(suffix)
        }
    )


def stack(loras: Sequence[LoRA]) -> LoRA:
    """Joins adapters along the image axis."""
    return LoRA(torch.cat([lora.values for lora in loras]), loras[0].shapes)
