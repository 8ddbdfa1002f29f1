"""Figures from other people's networks (torchmetrics): LPIPS of a pair, FID and KID of all pictures against all truths.

Their weights come with no package: torch's hub folder holds them, or they are downloaded to it once.
"""

import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from pickle import UnpicklingError
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image import FrechetInceptionDistance, KernelInceptionDistance
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from diffcolor.base_model import Judge

MIN_SIDE = 64  # pixels; LPIPS's network shrinks pictures 32 times
KID_SUBSET = 50  # pictures, as far as there are as many
_LPIPS_SIDE = 1024  # pixels of the longer side at most: the network's memory grows with the picture
_SIDE = 299  # of what FID's and KID's networks see: pictures of any shape in one tensor


class Metric(StrEnum):
    """What can be asked for by name."""

    lpips = "lpips"  # arXiv 1801.03924, AlexNet
    fid = "fid"  # arXiv 1706.08500, Inception v3
    kid = "kid"  # arXiv 1801.01401, Inception v3


SOURCES = {
    Metric.lpips: "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    Metric.fid: "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
}
SOURCES[Metric.kid] = SOURCES[Metric.fid]


class MetricUnavailableError(RuntimeError):
    """A metric's network cannot be had; says where it comes from and where to put it."""


class _JudgeFeatures(nn.Module):
    """A CLIP model's image features, in place of Inception's."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, D)."""
        return self.judge.image_features(pictures.to(self.judge.device).float() / 255).to(pictures.device)


class Perceptual:
    """Compares pictures with truths, pair by pair and then as two crowds.

    Args:
        metrics: by their names.
        judges: by name, CLIP models whose features serve for further distances of the crowds (`fid_NAME`,
            `kid_NAME`), which need no download where the models need none. Their scales are their own.
        hub: torch's hub folder; None for the usual one.
        device: where the networks run.

    Raises:
        MetricUnavailableError: a network cannot be had.
    """

    def __init__(
        self, metrics: Iterable[Metric], judges: dict[str, Judge], hub: Path | None = None, device: str = "cpu"
    ) -> None:
        metrics, self.pictures, self.device = set(metrics), 0, device
        before = torch.hub.get_dir()
        if hub is not None:
            torch.hub.set_dir(str(hub))
        try:
            self.lpips, self.crowds = None, {}
            if Metric.lpips in metrics:
                self.lpips = _had(Metric.lpips, LearnedPerceptualImagePatchSimilarity, "alex").to(device)
            if Metric.fid in metrics:
                self.crowds["fid"] = _had(Metric.fid, FrechetInceptionDistance, 2048)
            if Metric.kid in metrics:
                self.crowds["kid"] = _had(Metric.kid, KernelInceptionDistance, 2048, subset_size=KID_SUBSET)
        finally:
            torch.hub.set_dir(before)
        for name, judge in judges.items():
            features = _JudgeFeatures(judge)
            self.crowds[f"fid_{name}"] = FrechetInceptionDistance(features, input_img_size=(3, _SIDE, _SIDE))
            self.crowds[f"kid_{name}"] = KernelInceptionDistance(features, subset_size=KID_SUBSET)
        self.crowds = {name: metric.to(device) for name, metric in self.crowds.items()}

    def pair(self, rgb: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
        """Figures of a picture and its truth, both (H, W, 3) sRGB; both are remembered for `crowd`."""
        tensors = [torch.from_numpy(one.copy()).permute(2, 0, 1)[None].to(self.device) for one in (rgb, truth)]
        self.pictures += 1
        for metric in self.crowds.values():
            for picture, real in zip(tensors, (False, True), strict=True):
                square = nn.functional.interpolate(picture.float(), (_SIDE, _SIDE), mode="bicubic", antialias=True)
                metric.update(square.round().clamp(0, 255).to(torch.uint8), real=real)
        if self.lpips is None or min(rgb.shape[:2]) < MIN_SIDE:
            return {}
        smaller = min(1.0, _LPIPS_SIDE / max(rgb.shape[:2]))
        size = [max(MIN_SIDE, round(side * smaller)) for side in rgb.shape[:2]]
        resized = [nn.functional.interpolate(one.float(), size, mode="bicubic", antialias=True) for one in tensors]
        with torch.no_grad():
            return {"lpips": float(self.lpips(*(one.clamp(0, 255) / 127.5 - 1 for one in resized)))}

    def crowd(self) -> dict[str, float]:
        """The distances of all pictures from all truths; nothing for fewer than two pictures.

        A Frechet distance of fewer pictures than the network has features is biased upwards: compare it only between
        runs over the same pictures. The kernel distance is unbiased.
        """
        found = {}
        if self.pictures < 2:
            return found
        for name, metric in self.crowds.items():
            if name.startswith("kid"):
                metric.subset_size = min(KID_SUBSET, self.pictures)
                with torch.random.fork_rng():  # the subsets are drawn
                    torch.manual_seed(0)
                    found[name] = float(metric.compute()[0])
            else:
                found[name] = float(metric.compute())
        return found


def _had(metric: Metric, make, *args, **options):
    """What `make` makes, of weights that are read as tensors and nothing else.

    Raises:
        MetricUnavailableError: not without weights that cannot be had.
    """
    try:
        with patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):  # torch-fidelity would unpickle them
            return make(*args, **options)
    # No connection; a damaged file; one with more than tensors.
    except (OSError, RuntimeError, UnpicklingError) as error:
        file = SOURCES[metric].rpartition("/")[2]
        message = (
            f"{metric} needs {file}, which could not be loaded ({error}). Get it from {SOURCES[metric]}, put it in"
        )
        raise MetricUnavailableError(f"{message} HUB/checkpoints/ and give --hub-folder HUB") from error
