"""Trains K rows together: checkpoints, stops and time limits. Knows no store."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from diffcolor.checkpoint import Checkpoint
from diffcolor.colorize import Fitted, fit
from diffcolor.config import STAGES, FitConfig
from diffcolor.errors import DiffColorError
from diffcolor.lockstep import Progress
from diffcolor.models import Models
from pipelines.job import CHECKPOINT_SECONDS
from pipelines.worker.failures import ImageTimeoutError
from pipelines.worker.rows import FitRequest, Training

LOSS_POINTS = 24  # of each stage's curve
_SAMPLING_SHARE = 0.3  # of an image's training time, a guess on the safe side for what comes after it


class Stopped(Exception):
    """Asked to stop with too much left to do: the images are checkpointed, their rows stay pending."""


class CheckpointKeeper(Protocol):
    """Where training states are kept."""

    def save(self, states: Sequence[tuple[str, Checkpoint]]) -> bool:
        """Starts to store (fit key, state) pairs."""
        ...

    def wait(self) -> None:
        """Until everything is stored."""
        ...


class StopRequest:
    """Asked by the driver, from another thread, to end within some time."""

    def __init__(self) -> None:
        self._deadline: float | None = None

    def ask(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def leaves_time_for(self, seconds: float) -> bool:
        """Whether so much work can still be done; always, where nobody asked."""
        return self._deadline is None or time.monotonic() + seconds <= self._deadline


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the training of one row has given."""

    fitted: Fitted
    training: Training


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains rows of one working size, all fresh or all at one stage and step.

    Attributes:
        checkpoint_seconds: time between checkpoints, of which a short training has none.
        timeout_seconds: time that one image may take, None for no limit; K images together may take K times as much.
        report: called with the progress after every step.
    """

    models: Models
    config: FitConfig
    checkpoints: CheckpointKeeper
    stop: StopRequest
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    timeout_seconds: float | None = None
    report: Callable[[Progress], None] = lambda _: None

    def train(self, requests: Sequence[FitRequest]) -> list[Trained | DiffColorError]:
        """One outcome per request, in order.

        Raises:
            Stopped: the stop leaves no time for the rest; checkpoints are stored.
        """
        resumed = [request.checkpoint for request in requests if request.checkpoint is not None]
        assert len(resumed) in (0, len(requests)), "all rows are fresh or none is"
        fitting = fit(self.models, [request.scan for request in requests], self.config, resumed or None)
        curves, started = _LossCurves(len(requests)), time.monotonic()
        steps, saved = 0, started
        last: Progress | None = None
        stored: Progress | None = None
        for progress in fitting:
            last, steps = progress, steps + (progress.step > 0)
            curves.add(progress)
            self.report(progress)
            now = time.monotonic()
            if now - saved >= self.checkpoint_seconds:
                self._save(requests, progress)
                saved, stored = now, progress
            if self.timeout_seconds is not None and now - started > self.timeout_seconds * len(requests):
                error = ImageTimeoutError(self.timeout_seconds, progress.stage, progress.step)
                self.checkpoints.wait()
                self._save(requests, progress)  # a longer limit goes on from here
                return [error for _ in requests]
            if not self.stop.leaves_time_for(self._steps_left(progress) * (now - started) / max(1, steps)):
                self.checkpoints.wait()
                self._save(requests, progress)
                self.checkpoints.wait()
                raise Stopped
        if stored and last and stored is not last:  # what took long is not lost while it waits to be stored
            self.checkpoints.wait()
            self._save(requests, last)
        resumed_at = f"{resumed[0].stage}/{resumed[0].step}" if resumed else None
        return [
            Trained(fitted=outcome, training=Training(steps=steps, resumed_at=resumed_at, losses=tuple(losses)))
            if isinstance(outcome, Fitted)
            else outcome
            for outcome, losses in zip(fitting.outcomes, curves.points, strict=True)
        ]

    def _save(self, requests: Sequence[FitRequest], progress: Progress) -> None:
        states = [(request.fit_key, progress.checkpoint(image)) for image, request in enumerate(requests)]
        self.checkpoints.save([(key, state) for key, state in states if state is not None])

    def _steps_left(self, progress: Progress) -> float:
        """Until the rows are done, sampling included, in training steps."""
        later = STAGES[STAGES.index(progress.stage) :]
        left = sum(self.config.steps(stage) for stage in later) - progress.step
        return left + _SAMPLING_SHARE * self.config.total_steps


class _LossCurves:
    """A few points of each image's loss curves, for the report: means over the steps since the last point, because
    single steps say more of their timestep than of the training. Each point waits for the GPU."""

    def __init__(self, images: int) -> None:
        self.points: list[list[dict[str, Any]]] = [[] for _ in range(images)]
        self._recent: list[torch.Tensor] = []

    def add(self, progress: Progress) -> None:
        if not progress.losses:  # a stage begins
            self._recent.clear()
            return
        self._recent.append(torch.stack(list(progress.losses.values())).sum(0))
        if progress.step % max(1, progress.steps // LOSS_POINTS) == 0:
            means = torch.stack(self._recent).mean(0).tolist()
            self._recent.clear()
            for points, loss in zip(self.points, means, strict=True):
                if math.isfinite(loss):
                    points.append({"stage": progress.stage, "step": progress.step, "loss": loss})
