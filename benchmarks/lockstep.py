"""Ratios of one run on the embedded model: images together against one at a time, recolouring against training.

python benchmarks/lockstep.py [K]
"""

import sys
import time
from dataclasses import replace

import torch

from diffcolor.base_model import load_base_model, load_judge
from diffcolor.colorize import Fitted, Scan, fit, recolor
from diffcolor.config import ANTI_COLOR_PROMPTS, PRESETS


def scan(seed: int, size: tuple[int, int]) -> Scan:
    """A smooth random picture."""
    coarse = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    gray = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
    return Scan(gray=gray, context_prompt="a photo of a barn", anti_color_prompts=ANTI_COLOR_PROMPTS, seed=seed)


def fitted(base, judge, scans, config) -> tuple[list[Fitted], float]:
    """The fits, and seconds per image."""
    started, steps = time.perf_counter(), fit(base, judge, scans, config)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, (time.perf_counter() - started) / len(scans)


def main(k: int) -> None:
    """Prints seconds per image and their ratios, without early stopping."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base, judge = load_base_model(device=device), load_judge(device=device)
    preset = PRESETS["balanced"]
    config = replace(preset.fit, plateau_window=0)
    side = round(base.training_area**0.5)
    fitted(
        base,
        judge,
        [scan(0, (side, side))],
        replace(config, color_prior_steps=2, embedding_steps=1, in_context_steps=1),
    )
    (one,), alone = fitted(base, judge, [scan(0, (side, side))], config)
    _, together = fitted(base, judge, [scan(seed, (side, side)) for seed in range(k)], config)
    started = time.perf_counter()
    recolor(base, judge, [(one, "a photo of a red barn")], preset)
    sampling = time.perf_counter() - started
    print(f"{device}, {base.name}, balanced without early stopping, {side} x {side}")
    print(f"training, one image:       {alone:6.1f} s")
    print(f"training, {k} in lockstep:   {together:6.1f} s per image, {alone / together:.2f} times the rate of one")
    print(f"recolour, one prompt:      {sampling:6.1f} s, {sampling / alone:.3f} of one image's training")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
