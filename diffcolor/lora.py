"""Low-rank adapters with a leading image axis: K images adapt together on one shared, untouched U-Net.

Layer names and the export follow peft/diffusers: `unet.<layer>.lora_A.weight` (rank, in), `lora_B.weight` (out, rank),
alpha equal to the rank, so that the scale is 1 and diffusers' own `load_lora_weights` reads them as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
    """Adapters of K images. `down[layer]` is (K, rank, in), `up[layer]` is (K, out, rank); float32."""

    down: dict[str, Tensor]
    up: dict[str, Tensor]

    def __len__(self) -> int:
        return next(iter(self.down.values())).shape[0]

    def named(self) -> dict[str, Tensor]:
        """All tensors by the names that `from_named` reads; not copies, so that they can be trained in place."""
        return {f"{part}/{name}": tensor for part in ("down", "up") for name, tensor in getattr(self, part).items()}

    @staticmethod
    def from_named(tensors: Mapping[str, Tensor]) -> "LoRA":
        """The inverse of `named`; tensors of other names are ignored."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        return LoRA(part("down/"), part("up/"))

    def select(self, images: Sequence[int]) -> "LoRA":
        """Adapters of the given images in the given order; repeats are allowed."""
        return self._map(lambda tensor: tensor.detach()[list(images)])

    def rounded(self) -> "LoRA":
        """The values as they are saved (float16), so that a fresh fit and its artifact sample the same pixels."""
        return self._map(lambda tensor: tensor.detach().half().float())

    def to(self, device: torch.device) -> "LoRA":
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "LoRA":
        return LoRA(
            {name: change(tensor) for name, tensor in self.down.items()},
            {name: change(tensor) for name, tensor in self.up.items()},
        )


def init_lora(unet: nn.Module, rank: int, generators: Sequence[torch.Generator]) -> LoRA:
    """Adapters that change nothing yet (`up` is zero), one per generator; `down` is N(0, 1/rank), as in peft."""
    device = next(unet.parameters()).device
    down, up = {}, {}
    for name, layer in target_layers(unet).items():
        drawn = [torch.randn(rank, layer.in_features, generator=generator) / rank for generator in generators]
        down[name] = torch.stack(drawn).to(device)
        up[name] = torch.zeros(len(generators), layer.out_features, rank, device=device)
    return LoRA(down, up)


@contextmanager
def attached_lora(unet: nn.Module, lora: LoRA) -> Iterator[None]:
    """Attaches the adapters to the U-Net while the context lasts; the U-Net's own weights are never touched.

    The U-Net's batch must be image-major with K * m elements: element i belongs to image i // m.
    """

    def adapted(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x, images = inputs[0], len(lora)
            down, up = lora.down[name].to(x.dtype), lora.up[name].to(x.dtype)
            delta = torch.bmm(torch.bmm(x.reshape(images, -1, x.shape[-1]), down.mT), up.mT)
            return output + delta.view_as(output)

        return hook

    handles = [layer.register_forward_hook(adapted(name)) for name, layer in target_layers(unet).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def to_diffusers(lora: LoRA) -> dict[str, Tensor]:
    """One image's adapters under the names that `StableDiffusionPipeline.load_lora_weights` reads; float16."""
    assert not lora.down or len(lora) == 1, "one artifact holds one image"  # without a base model: no adapters
    named = {f"unet.{name}.lora_A.weight": tensor[0] for name, tensor in lora.down.items()}
    named |= {f"unet.{name}.lora_B.weight": tensor[0] for name, tensor in lora.up.items()}
    return {name: tensor.detach().half().contiguous().cpu() for name, tensor in named.items()}


def from_diffusers(state: dict[str, Tensor]) -> LoRA:
    """The inverse of `to_diffusers`."""

    def part(suffix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix("unet.").removesuffix(suffix): tensor[None].float()
            for key, tensor in state.items()
            if key.endswith(suffix)
        }

    return LoRA(part(".lora_A.weight"), part(".lora_B.weight"))


def stack(loras: Sequence[LoRA]) -> LoRA:
    """Joins adapters along the image axis."""

    def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    return LoRA(joined([lora.down for lora in loras]), joined([lora.up for lora in loras]))
