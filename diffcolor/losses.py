"""The two losses of the paper, as pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(image_features: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Colour contrastive loss, InfoNCE (arXiv 2308.01655, stage 1), divided by log(1 + N) so that chance is 1.

    Args:
        image_features: (K, D), unit norm.
        positive: (K, D), unit norm: each image's context prompt.
        negatives: (K, N, D), unit norm, each image's anti-colour prompts, at least one. Rows that are all zero are
            padding (images differ in how many they have) and do not count.
        temperature: > 0, on cosines.

    Returns:
        (K,), in units of chance.

    Raises:
        ValueError: the D differ.
    """
    if not image_features.shape[-1] == positive.shape[-1] == negatives.shape[-1]:
        raise ValueError(f"feature sizes differ: {image_features.shape}, {positive.shape}, {negatives.shape}")
    present = negatives.abs().sum(-1) > 0
    to_positive = (image_features * positive).sum(-1, keepdim=True) / temperature
    to_negatives = torch.einsum("kd,knd->kn", image_features, negatives) / temperature
    logits = torch.cat([to_positive, to_negatives.masked_fill(~present, -torch.inf)], dim=-1)
    return -F.log_softmax(logits, dim=-1)[:, 0] / torch.log1p(present.sum(-1).to(logits.dtype))


def denoising_loss(model_output: Tensor, target: Tensor) -> Tensor:
    """Noise-prediction error `L_dif` (eq. of arXiv 2006.11239): mean square per image; (K, ...) to (K,)."""
    return (model_output.float() - target.float()).square().flatten(1).mean(1)
