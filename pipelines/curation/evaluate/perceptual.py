"""Figures from pretrained networks (torchmetrics): LPIPS of a pair, FID and KID of all pictures against all truths.

No package contains their weights: they are taken from torch's hub folder, or downloaded to it once.
"""

import os
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image import FrechetInceptionDistance, KernelInceptionDistance
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from diffcolor.judge import Judge

MIN_SIDE = 64  # pixels; LPIPS's network shrinks pictures 32 times
KID_SUBSET = 50  # pictures; all of them where there are fewer
_LPIPS_SIDE = 1024  # pixels of the longer side at most: the network's memory grows with the picture
_SIDE = 299  # pixels; pictures of any shape are resized to a square of this side for FID and KID


class Metric(StrEnum):
    """Metrics that can be chosen by name."""

    lpips = "lpips"  # arXiv 1801.03924, AlexNet
    fid = "fid"  # arXiv 1706.08500, Inception v3
    kid = "kid"  # arXiv 1801.01401, Inception v3


SOURCES = {
    Metric.lpips: "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    Metric.fid: "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
}
SOURCES[Metric.kid] = SOURCES[Metric.fid]
_Loaded = TypeVar("_Loaded", bound=nn.Module)


class MetricUnavailableError(RuntimeError):
    """A metric's network cannot be loaded; the message tells where to get it and where to put it."""


class _JudgeFeatures(nn.Module):
    """A CLIP model's image features, in place of Inception's."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, D)."""
        return self.judge.image_features(pictures.to(self.judge.device).float() / 255).to(pictures.device)


class Perceptual:
    """Compares pictures with truths, pair by pair and then as two data sets.

    Args:
        metrics: the metrics to compute.
        judges: by name, CLIP models whose features give further distances of the data sets (`fid_NAME`, `kid_NAME`),
            which need no download if the models need none. Their values cannot be compared with those of `fid` and
            `kid`.
        hub: torch's hub folder; None for the default one.
        device: where the networks run.

    Raises:
        MetricUnavailableError: a network cannot be loaded.
    """

    def __init__(
        self, metrics: Iterable[Metric], judges: dict[str, Judge], hub: Path | None = None, device: str = "cpu"
    ) -> None:
        metrics, self.pictures, self.device = set(metrics), 0, device
        before = torch.hub.get_dir()
        if hub is not None:
            torch.hub.set_dir(str(hub))
        try:
            self.lpips: LearnedPerceptualImagePatchSimilarity | None = None
            distances: dict[str, FrechetInceptionDistance | KernelInceptionDistance] = {}
            if Metric.lpips in metrics:
                self.lpips = _load_metric(Metric.lpips, LearnedPerceptualImagePatchSimilarity, "alex").to(device)
            if Metric.fid in metrics:
                distances["fid"] = _load_metric(Metric.fid, FrechetInceptionDistance, 2048)
            if Metric.kid in metrics:
                distances["kid"] = _load_metric(Metric.kid, KernelInceptionDistance, 2048, subset_size=KID_SUBSET)
        finally:
            torch.hub.set_dir(before)
        for name, judge in judges.items():
            features = _JudgeFeatures(judge)
            distances[f"fid_{name}"] = FrechetInceptionDistance(features, input_img_size=(3, _SIDE, _SIDE))
            distances[f"kid_{name}"] = KernelInceptionDistance(features, subset_size=KID_SUBSET)
        self.distances = {name: metric.to(device) for name, metric in distances.items()}

    def pair(self, rgb: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
        """Figures of a picture and its truth, both (H, W, 3) sRGB; both are added to `dataset_metrics`."""
        tensors = [torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(self.device) for pixels in (rgb, truth)]
        self.pictures += 1
        for metric in self.distances.values():
            for picture, real in zip(tensors, (False, True), strict=True):
                square = nn.functional.interpolate(picture.float(), (_SIDE, _SIDE), mode="bicubic", antialias=True)
                metric.update(square.round().clamp(0, 255).to(torch.uint8), real=real)
        if self.lpips is None or min(rgb.shape[:2]) < MIN_SIDE:
            return {}
        smaller = min(1.0, _LPIPS_SIDE / max(rgb.shape[:2]))
        size = [max(MIN_SIDE, round(side * smaller)) for side in rgb.shape[:2]]
        resized = [
            nn.functional.interpolate(tensor.float(), size, mode="bicubic", antialias=True) for tensor in tensors
        ]
        with torch.no_grad():
            return {"lpips": float(self.lpips(*(tensor.clamp(0, 255) / 127.5 - 1 for tensor in resized)))}

    def dataset_metrics(self) -> dict[str, float]:
        """The distances of all pictures from all truths; empty for fewer than two pictures.

        A Frechet distance of fewer pictures than the network has features is biased upwards, so compare it only between
        runs over the same pictures. The kernel distance is unbiased.
        """
        values: dict[str, float] = {}
        if self.pictures < 2:
            return values
        for name, metric in self.distances.items():
            if isinstance(metric, KernelInceptionDistance):
                metric.subset_size = min(KID_SUBSET, self.pictures)
                with torch.random.fork_rng():  # the subsets are drawn at random
                    torch.manual_seed(0)
                    values[name] = float(metric.compute()[0])
            else:
                values[name] = float(metric.compute())
        return values


def _load_metric(metric: Metric, make: Callable[..., _Loaded], *args: Any, **options: Any) -> _Loaded:
    """Calls `make`, which loads the metric's network. Its weights are read as tensors; nothing is unpickled.

    Raises:
        MetricUnavailableError: the weights cannot be loaded.
    """
    try:
        with patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"):  # torch-fidelity would unpickle them
            return make(*args, **options)
    # No connection, a damaged file, or a file that holds more than tensors.
    except (OSError, RuntimeError, UnpicklingError) as error:
        file = SOURCES[metric].rpartition("/")[2]
        message = (
            f"{metric} needs {file}, which could not be loaded ({error}). Get it from {SOURCES[metric]}, put it in"
        )
        raise MetricUnavailableError(f"{message} HUB/checkpoints/ and give --hub-folder HUB") from error
