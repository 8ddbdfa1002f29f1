"""Learns to tell negatives from positives by the coarse colorizer's features, on the training part.

python -m training.negatives PACK.parquet
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from diffcolor.coarse import CoarseColorizer, load_coarse
from diffcolor.identity import embedded_folder, weights_digest
from diffcolor.luminance import luma
from diffcolor.negatives import FILE, LIMIT, pooled_features
from training.shoots import read_pack

PICTURES = 1800  # each as it is and inverted
DECAY = 1e-3
STEPS = 600


def gather(coarse: CoarseColorizer, pack: Path, part: str, most: int) -> tuple[NDArray, NDArray]:
    """Features (N, D) of a part's pictures and of their negatives, and which are (N,)."""
    pictures = [one for some in read_pack(pack, part).values() for one in some]
    chosen = np.random.default_rng(0).permutation(len(pictures))[:most]
    rows, labels = [], []
    for index in chosen:
        gray = luma(pictures[index].pixels)
        for label, codes in enumerate((gray, 255 - gray)):
            picture = torch.from_numpy(codes.astype(np.float32) / 255)[None, None]
            rows.append(pooled_features(coarse, picture).numpy())
            labels.append(label)
    return np.stack(rows).astype(np.float64), np.array(labels)


def regress(features: NDArray, labels: NDArray) -> tuple[NDArray, float]:
    """Weights and bias of a logistic regression with weight decay, by Adam."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    x, y = torch.tensor((features - mean) / spread), torch.tensor(labels, dtype=torch.float64)
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weights, bias], lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights + bias, y)
        (loss + DECAY / 2 * weights.square().sum()).backward()
        optimizer.step()
    scaled = weights.detach().numpy() / spread
    return scaled, float(bias.detach()) - float(scaled @ mean)


if __name__ == "__main__":
    model, pack_file = load_coarse(), Path(sys.argv[1])
    slopes, constant = regress(*gather(model, pack_file, "train", PICTURES))
    learnt = {"encoder": weights_digest(embedded_folder("coarse"))[0], "bias": round(constant, 5)}
    text = json.dumps({**learnt, "weights": [round(float(one), 5) for one in slopes]})
    (embedded_folder("coarse") / FILE).write_text(text + "\n", encoding="utf-8")
    held_out, truth = gather(model, pack_file, "validation", sys.maxsize)
    odds = held_out @ slopes + constant
    print(f"right {np.mean((odds > 0) == truth):.3f}; at {LIMIT}: ", end="")
    print(f"{np.mean(odds[truth == 0] > LIMIT):.4f} of positives, {np.mean(odds[truth == 1] > LIMIT):.3f} of negatives")
