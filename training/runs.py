"""What all trainings share: when to stop, the learning rate's course, and the averaged weights."""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.photographs import load_photographs
from training.pictures import PictureSource
from training.stamps import load_stamps, split_stamps


@dataclass(kw_only=True)
class Clock:
    """A training's budget in minutes; steps are whatever fits in it."""

    minutes: float
    started: float = field(default_factory=time.monotonic)

    def share(self) -> float:
        """The part of the budget that is spent, in [0, ...)."""
        return (time.monotonic() - self.started) / (60 * self.minutes)

    def steps(self) -> Iterator[int]:
        """Counts from 0 until the budget is spent."""
        step = 0
        while self.share() < 1:
            yield step
            step += 1


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, share: float, step: int, warmup: int = 50) -> None:
    """Linear warm-up over `warmup` steps, then half a cosine down to 5 % of the peak by the end of the budget."""
    cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    for group in optimizer.param_groups:
        group["lr"] = peak * min(1.0, (step + 1) / warmup) * cosine


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average of the weights, with a shorter memory in the first steps; in place."""
    decay = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def open_sources(
    photographs: Path, stamps: Path, seed: int, photograph_share: float
) -> tuple[PictureSource, PictureSource]:
    """The source of training pictures and that of held-out ones (other titles, other objects)."""
    train_photographs, held_photographs = load_photographs(photographs)
    train_stamps, held_stamps = split_stamps(load_stamps(stamps))
    return (
        PictureSource(
            photographs=train_photographs,
            stamps=train_stamps,
            generator=np.random.default_rng(seed),
            photograph_share=photograph_share,
        ),
        PictureSource(
            photographs=held_photographs,
            stamps=held_stamps,
            generator=np.random.default_rng(seed + 1),
            photograph_share=photograph_share,
        ),
    )


def log(folder: Path, **figures: float) -> None:
    """Appends one line of figures to the run's log and prints it."""
    line = json.dumps({name: round(float(value), 5) for name, value in figures.items()})
    with (folder / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    print(line, flush=True)


def vae_digest(runs: Path) -> str:
    """What names the things made with the VAE of `runs`, so that none is used with another one."""
    return _digest(runs / "vae" / "vae.pt")


def check_frozen(runs: Path, checkpoint: dict) -> None:
    """
    Raises:
        ValueError: the U-Net's checkpoint is of another VAE or judge (its text tower's source) than `runs` holds.
    """
    for name, digest in frozen_digests(runs).items():
        if checkpoint.get(name) != digest:
            raise ValueError(f"the U-Net is of {name} {checkpoint.get(name)}, not of {digest}: train it anew")


def frozen_digests(runs: Path) -> dict[str, str]:
    """What a U-Net's checkpoint belongs to."""
    return {"vae": vae_digest(runs), "judge": _digest(runs / "judge" / "judge.pt")}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.exists() else "untrained"
