"""Is a scan a negative? A guess, by what the coarse colorizer's encoder makes of it."""

import json
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcolor.coarse import SIZE_MULTIPLE, CoarseColorizer
from diffcolor.geometry import working_size
from diffcolor.identity import embedded_folder

FILE = "negatives.json"
LIMIT = 4.6  # of the log odds; 0.6 % of the validation part are above it, and 48 % of their inverses


def negative_odds(coarse: CoarseColorizer, gray: Tensor) -> float:
    """The log odds that a picture (1, H, W) in [0, 1] is a negative, by a logistic regression."""
    weights, bias = _regression()
    return float(pooled_features(coarse, gray[None]) @ weights.to(coarse.device) + bias)


def pooled_features(coarse: CoarseColorizer, gray: Tensor) -> Tensor:
    """(D,): the means of the encoder's two coarsest levels over a picture (1, 1, H, W)."""
    size = working_size(gray.shape[-2], gray.shape[-1], coarse.net.config.area, SIZE_MULTIPLE)
    seen = F.interpolate(gray.to(coarse.device), size, mode="bilinear", antialias=True, align_corners=False)
    return torch.cat([level.mean((-2, -1))[0] for level in coarse.features(seen)[-2:]])


@cache
def _regression() -> tuple[Tensor, float]:
    learnt = json.loads((embedded_folder("coarse") / FILE).read_text(encoding="utf-8"))
    return torch.tensor(learnt["weights"]), learnt["bias"]
