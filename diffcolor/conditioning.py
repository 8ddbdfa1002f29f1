"""What a denoiser reads of a prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Of K prompts, as named float32 tensors with a leading image axis.

    Attributes:
        tensors: "embeds" (K, T, D), a vector for each token; on Stable Diffusion XL also "pooled" (K, P), one for the
            whole prompt.
    """

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values()), ()))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def of(self, rows: Tensor | slice | Sequence[int]) -> "Conditioning":
        """That of some images."""
        return Conditioning({name: tensor[rows] for name, tensor in self.tensors.items()})

    def mixed(self, other: "Conditioning", eta: Tensor) -> "Conditioning":
        """(1 - eta) self + eta other, eta (K,)."""

        def mix(ours: Tensor, theirs: Tensor) -> Tensor:
            weight = eta.view(-1, *[1] * (ours.dim() - 1))
            return (1 - weight) * ours + weight * theirs

        return Conditioning({name: mix(tensor, other[name]) for name, tensor in self.tensors.items()})

    def after(self, other: "Conditioning") -> "Conditioning":
        """(2 K) for pairs: each image's is preceded by `other` (1 or K)."""
        return Conditioning(
            {
                name: torch.stack([other[name].expand_as(tensor), tensor], dim=1).flatten(0, 1)
                for name, tensor in self.tensors.items()
            }
        )

    def to(self, device: torch.device) -> "Conditioning":
        return Conditioning({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def named(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under names that begin with `prefix`, as files and training states have them."""
        return {f"{prefix}{name}": tensor for name, tensor in self.tensors.items()}

    @staticmethod
    def from_named(tensors: Mapping[str, Tensor], prefix: str) -> "Conditioning":
        """The inverse of `named`; tensors of other names are ignored."""
        return Conditioning(
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        )

    @staticmethod
    def stack(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Joins along the image axis."""
        return Conditioning({name: torch.cat([part[name] for part in parts]) for name in parts[0].tensors})
