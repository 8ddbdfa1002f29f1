"""Spatial alignment: moves the sample's chroma to where the scan has the same structure.

The paper warps a sample by correspondence and then repaints it. Repainting changes the luminance, so we keep the
correspondence and take chroma alone. Luminance patches are matched within a small window, because luminance-consistent
sampling leaves only small shifts to repair.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcolor.luminance import replace_luma, soft_luma

GRID = 96  # cells on the long side at which correspondence is searched
PATCH = 7  # cells
REACH = 4  # cells, in each direction
TEMPERATURE = 0.01  # of the softmax over patch similarities, as in the authors' notebooks
_CONTRAST_FLOOR = 0.02  # luminance contrast below which a patch counts as flat and stays in place
_PRIOR_SIGMA = 1.0  # cells: of two equal matches the nearer one wins


def _patch_features(luminance: Tensor) -> Tensor:
    """(N, 1, h, w) to (N, PATCH^2, h, w): local patches, mean removed, norm about 1 where there is contrast."""
    padded = F.pad(luminance, [PATCH // 2] * 4, mode="replicate")
    patches = F.unfold(padded, PATCH).unflatten(-1, luminance.shape[-2:])
    patches = patches - patches.mean(1, keepdim=True)
    return patches / (patches.norm(dim=1, keepdim=True) + _CONTRAST_FLOOR * PATCH)


def correspondence(sample_luma: Tensor, gray: Tensor) -> Tensor:
    """Where in the sample each pixel of the scan has its match.

    Args:
        sample_luma, gray: (N, 1, H, W) in [0, 1].

    Returns:
        (N, 2, H, W): displacement (x, y) in pixels of the working picture; 0 = same position.
    """
    height, width = gray.shape[-2:]
    cell = max(1, -(-max(height, width) // GRID))
    size = (max(1, height // cell), max(1, width // cell))
    of_scan = _patch_features(F.interpolate(gray, size, mode="area"))
    of_sample = F.pad(_patch_features(F.interpolate(sample_luma, size, mode="area")), [REACH] * 4, mode="replicate")
    offsets = [(dx, dy) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1)]
    scores = []
    for dx, dy in offsets:
        shifted = of_sample[..., REACH + dy : REACH + dy + size[0], REACH + dx : REACH + dx + size[1]]
        prior = (dx * dx + dy * dy) / (2 * _PRIOR_SIGMA**2)
        scores.append((of_scan * shifted).sum(1) / TEMPERATURE - prior)
    weights = torch.stack(scores, 1).softmax(1)
    # A flat patch matches everywhere alike, so its weights follow the prior, which is centred, and it stays in place.
    table = torch.tensor(offsets, dtype=weights.dtype, device=weights.device)
    flow = torch.einsum("nkhw,kd->ndhw", weights, table) * cell
    return F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Samples `picture` (N, C, H, W) bilinearly at each pixel's position plus `flow` (N, 2, H, W); edges replicated."""
    height, width = picture.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    grid_x = (x + flow[:, 0] + 0.5) * (2 / width) - 1
    grid_y = (y + flow[:, 1] + 0.5) * (2 / height) - 1
    return F.grid_sample(picture, torch.stack([grid_x, grid_y], -1), padding_mode="border", align_corners=False)


def spatial_align(sample_rgb: Tensor, gray: Tensor) -> Tensor:
    """The sample's colours on the scan (arXiv 2308.01655, spatial alignment).

    Args:
        sample_rgb: (N, 3, H, W) in [0, 1].
        gray: (N, 1, H, W) in [0, 1].

    Returns:
        (N, 3, H, W) in [0, 1] with luma `gray`.
    """
    return replace_luma(warp(sample_rgb, correspondence(soft_luma(sample_rgb), gray)), gray)
