"""Ratios of one run on the embedded model: images together against one at a time, recolouring against training.

python benchmarks/lockstep.py [K]
"""

import sys
import time
from dataclasses import replace

import torch

from diffcolor.colorize import Fitted, fit, recolor
from diffcolor.config import ANTI_COLOR_PROMPTS, PRESETS, FitConfig
from diffcolor.models import Models, load_models
from diffcolor.scan import Scan


def scan(seed: int, size: tuple[int, int]) -> Scan:
    """A smooth random picture."""
    coarse = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    gray = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
    return Scan(gray=gray, context_prompt="a photo of a barn", anti_color_prompts=ANTI_COLOR_PROMPTS, seed=seed)


def fitted(models: Models, scans: list[Scan], config: FitConfig) -> tuple[list[Fitted], float]:
    """The fits, and seconds per image."""
    started = time.perf_counter()
    return fit(models, scans, config).outcomes, (time.perf_counter() - started) / len(scans)


def main(k: int) -> None:
    """Prints seconds per image and their ratios, without early stopping."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = load_models(device=device)
    preset = PRESETS["balanced"]
    config = replace(preset.fit, plateau_window=0)
    side = round(models.base.training_area**0.5)
    fitted(
        models,
        [scan(0, (side, side))],
        replace(config, color_prior_steps=2, embedding_steps=1, in_context_steps=1),
    )
    (one,), alone = fitted(models, [scan(0, (side, side))], config)
    _, together = fitted(models, [scan(seed, (side, side)) for seed in range(k)], config)
    started = time.perf_counter()
    recolor(models, [(one, "a photo of a red barn")], preset)
    sampling = time.perf_counter() - started
    print(f"{device}, {models.base.name}, balanced without early stopping, {side} x {side}")
    print(f"training, one image:       {alone:6.1f} s")
    print(f"training, {k} in lockstep:   {together:6.1f} s per image, {alone / together:.2f} times the rate of one")
    print(f"recolour, one prompt:      {sampling:6.1f} s, {sampling / alone:.3f} of one image's training")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
