"""The scans that are fitted or recoloured together, and each scan's random numbers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcolor.config import SampleConfig
from diffcolor.diffusion import encode
from diffcolor.judge import Judge
from diffcolor.models import Models


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One gray photograph, as the model sees it, with its prompts.

    Attributes:
        gray: (1, H, W) in [0, 1] at working size.
        context_prompt: what the picture shows.
        anti_color_prompts: descriptions that stage 1 moves away from; at least one.
        seed: the seed of all its random numbers, 0 .. 2^63 - 1.
    """

    gray: Tensor
    context_prompt: str
    anti_color_prompts: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self.anti_color_prompts:
            raise ValueError("anti_color_prompts is empty: the contrastive loss needs a negative")


@dataclass(frozen=True, kw_only=True)
class ScanBatch:
    """K scans of one working size on the base model's device.

    Attributes:
        gray: (K, 1, H, W) in [0, 1].
        starts: (K, 3, H, W) in [0, 1], from which sampling starts: the gray scans, or in coarse colours.
        latents: (K, C, h, w), theirs; stage 1 trains on them. Empty without a base model.
    """

    scans: tuple[Scan, ...]
    gray: Tensor
    starts: Tensor
    latents: Tensor

    @staticmethod
    def of(
        models: Models, scans: Sequence[Scan], config: SampleConfig, prompts: Sequence[str] | None = None
    ) -> "ScanBatch":
        """Moves scans to the device and encodes what sampling with `config` starts from.

        Args:
            prompts: what the coarse colorizer is told of each scan; by default their context prompts.
        """
        gray = torch.stack([scan.gray for scan in scans]).to(models.device)
        if config.start == "coarse":
            starts = models.coarse.colorize(gray, prompts or [scan.context_prompt for scan in scans])
        else:
            starts = gray.expand(-1, 3, -1, -1)
        with torch.no_grad():
            latents = encode(models.base, starts) if models.base else torch.empty(0)
        return ScanBatch(scans=tuple(scans), gray=gray, starts=starts, latents=latents)

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def context_prompts(self) -> list[str]:
        return [scan.context_prompt for scan in self.scans]

    def random_streams(self, purpose: str) -> list[torch.Generator]:
        """One generator per scan for this purpose.

        A stage draws more numbers when other scans of the batch keep it running longer; with a stream for each stage,
        that changes nothing in later stages.
        """
        seeds = [hashlib.sha256(f"{scan.seed}/{purpose}".encode()).digest()[:8] for scan in self.scans]
        return [torch.Generator().manual_seed(int.from_bytes(seed, "big") >> 1) for seed in seeds]

    def anti_color_features(self, judge: Judge) -> Tensor:
        """(K, N, D), the judge's features of each scan's anti-colour prompts; zero rows where a scan has fewer."""
        unique = sorted({prompt for scan in self.scans for prompt in scan.anti_color_prompts})
        features = dict(zip(unique, judge.text_features(unique), strict=True))
        rows = [torch.stack([features[prompt] for prompt in scan.anti_color_prompts]) for scan in self.scans]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
