"""What all trainings share: a run that can be stopped at any minute and goes on, and the averaged weights."""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SAVE_SECONDS = 400.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a training goes on: for some minutes at the full rates, or to its end.

    Attributes:
        minutes: of this call.
        decay_steps: if not 0, so many steps while the rates fall to zero, instead: the end of the training.
            Interrupted, it goes on where it was.
    """

    minutes: float
    decay_steps: int = 0


class Run:
    """One network's training, with its checkpoint FOLDER/NAME.pt and its log FOLDER/log.jsonl.

    Attributes:
        net: is trained.
        average: its exponential moving average, which is exported.
        step: counts from the first call.
    """

    def __init__(
        self, folder: Path, net: nn.Module, rates: dict[str, float], *, warmup: int = 100, memory: float = 0.998
    ) -> None:
        """
        Args:
            folder: is made; where it holds a checkpoint, the training goes on from it.
            rates: the learning rate of the parameters whose names begin with a key; "" is that of all others.
            warmup: steps of rising rates.
            memory: of the average.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.net, self.step, self.decay_began = folder / f"{folder.name}.pt", net, 0, -1
        self.average = copy.deepcopy(net).eval().requires_grad_(False)
        self.warmup, self.memory, self._losses = warmup, memory, [0.0]
        parts: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                parts[next((part for part in rates if part and name.startswith(part)), "")].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": some, "lr": rates[part], "peak": rates[part]} for part, some in parts.items()],
            betas=(0.9, 0.98),
            weight_decay=0.05,
        )
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True, map_location="cpu")
            self.net.load_state_dict(saved["net"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            for group, part in zip(self.optimizer.param_groups, parts, strict=True):
                group["peak"] = rates[part]  # the checkpoint's may be older
            self.step, self.decay_began = saved["step"], saved["decay_began"]

    def steps(self, budget: Budget, check: Callable[[], dict[str, float]]) -> Iterator[int]:
        """Counts the steps of the budget; saves and logs every few minutes and at the end.

        Args:
            check: figures of the average, for the log.
        """
        began = saved = time.monotonic()
        if not budget.decay_steps:
            self.decay_began = -1
        elif self.decay_began < 0:
            self.decay_began = self.step
        while (
            self.step < self.decay_began + budget.decay_steps
            if budget.decay_steps
            else time.monotonic() - began < 60 * budget.minutes
        ):
            share = 1 - (self.step - self.decay_began) / budget.decay_steps if budget.decay_steps else 1.0
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * min(1.0, (self.step + 1) / self.warmup) * share
            yield self.step
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                self._log(began, check)
                saved = time.monotonic()
        self.save()
        self._log(began, check)

    def learn(self, loss: Tensor, greatest_norm: float = 1.0) -> None:
        """One step of the optimizer."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), greatest_norm)
        self.optimizer.step()
        update_average(self.average, self.net, self.step, self.memory)
        self._losses = [*self._losses[-199:], loss.item()]
        self.step += 1

    def save(self) -> None:
        """Writes the checkpoint; the old one stays until the new one is whole."""
        state: dict[str, Any] = {"net": self.net.state_dict(), "average": self.average.state_dict()}
        state |= {"optimizer": self.optimizer.state_dict(), "step": self.step, "decay_began": self.decay_began}
        torch.save(state, self.path.with_suffix(".part"))
        self.path.with_suffix(".part").rename(self.path)

    def _log(self, began: float, check: Callable[[], dict[str, float]]) -> None:
        figures = {"step": self.step, "minutes": (time.monotonic() - began) / 60, "loss": float(np.mean(self._losses))}
        line = json.dumps({name: round(float(value), 5) for name, value in (figures | check()).items()})
        with (self.path.parent / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        print(line, flush=True)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average of the weights, with a shorter memory in the first steps; in place."""
    decay = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def trained(runs: Path, name: str) -> dict[str, Tensor] | None:
    """The averaged weights of RUNS/NAME; None where there is no such training."""
    path = runs / name / f"{name}.pt"
    return torch.load(path, weights_only=True, map_location="cpu")["average"] if path.exists() else None


def digest(runs: Path, *names: str) -> str:
    """What names things made with these trainings' weights, so that none is used with others."""
    files = [runs / name / f"{name}.pt" for name in names]
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(hashlib.sha256(file.read_bytes()).digest() if file.exists() else b"embedded")
    return hashed.hexdigest()[:12]
