"""How many images of a size fit on a GPU together: steps of stage 1, which needs the most, are made and measured."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch

from diffcolor.color_prior import find_color_prior
from diffcolor.config import ANTI_COLOR_PROMPTS, MOST_IMAGES, FitConfig
from diffcolor.models import Models
from diffcolor.scan import Scan, ScanBatch
from diffcolor.training_state import TrainingState

_SPARE = 0.1  # of the memory, for fragments and for what other libraries take


class Meter(Protocol):
    """Measures a device's memory."""

    def peak(self, work: Callable[[], None]) -> int:
        """The most bytes that were allocated while `work` was done, what was there before included."""
        ...

    def limit(self) -> int:
        """Bytes that this process can have in all."""
        ...


class CudaMeter:
    """Of a GPU, by PyTorch's own allocator."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def peak(self, work: Callable[[], None]) -> int:
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        return torch.cuda.max_memory_allocated(self.device)

    def limit(self) -> int:
        free, _ = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device)


def images_that_fit(models: Models, size: tuple[int, int], config: FitConfig, meter: Meter) -> int:
    """K for scans of a working size (height, width): from 1 to `MOST_IMAGES`.

    A step's memory is a part that is there once and a part for each image: a line through two points.
    """
    if models.base is None:
        return MOST_IMAGES
    _step(models, size, config, 1)  # the first of all also holds what libraries set up
    try:
        one, two = (meter.peak(partial(_step, models, size, config, k)) for k in (1, 2))
    except torch.OutOfMemoryError:
        return 1
    each = max(1, two - one)
    return max(1, min(MOST_IMAGES, int(((1 - _SPARE) * meter.limit() - (one - each)) / each)))


def _step(models: Models, size: tuple[int, int], config: FitConfig, k: int) -> None:
    """One step of stage 1 with its contrastive term, and its optimizer's; what comes of it is thrown away."""
    assert models.base is not None
    gray = torch.full((1, *size), 0.5)
    prompts = config.anti_color_prompts or ANTI_COLOR_PROMPTS
    scans = [Scan(gray=gray, context_prompt="", anti_color_prompts=prompts, seed=seed) for seed in range(k)]
    batch = ScanBatch.of(models, scans, config.primary)
    once = replace(config, color_prior_steps=1, contrastive_at="all", plateau_window=0)
    state = TrainingState.fresh(models.base, batch, once)
    for _ in find_color_prior(models.base, models.judge, batch, state, once):
        pass
