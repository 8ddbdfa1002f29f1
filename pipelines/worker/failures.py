"""What an exception means for the row that it belongs to."""

import logging
import os
import tempfile
import traceback

import torch

from diffcolor.errors import DiffColorError
from pipelines.images.errors import InputImageError
from pipelines.ledger.results import FAILED, SKIPPED
from pipelines.store.retry import FULL

logger = logging.getLogger(__name__)
GPU_LOST = 70  # exit code of a process whose GPU context is lost


class ImageTimeoutError(DiffColorError):
    """An image took more training time than it may."""

    kind = "timeout"

    def __init__(self, seconds: float, stage: str, step: int) -> None:
        super().__init__(seconds, stage, step)
        self.seconds, self.stage, self.step = seconds, stage, step

    def __str__(self) -> str:
        return (
            f"{self.seconds:g} s of training were not enough: it was in {self.stage} at step {self.step}; "
            "see --timeout-per-image"
        )


def outcome_of(error: Exception) -> tuple[str, str, str]:
    """Status, kind and message of a row that ended so; `internal` is what we did not think of."""
    if isinstance(error, InputImageError):
        return (SKIPPED if error.skipped else FAILED), error.kind, error.message
    if isinstance(error, DiffColorError):
        return FAILED, error.kind, str(error)
    if isinstance(error, FloatingPointError):
        return FAILED, "non_finite", str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        remedy = f"make room, or point TMPDIR to a larger disk, then --retry-failed ({error})"
        return FAILED, "no_space", f"no room for the page in {tempfile.gettempdir()}: {remedy}"
    if is_out_of_memory(error):
        return FAILED, "oom", f"out of memory with this image alone: {error}"
    return FAILED, "internal", f"{type(error).__name__}: {error}"


def is_out_of_memory(error: Exception) -> bool:
    """A GPU's, or the machine's as torch's CPU allocator says it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def leave_if_the_gpu_is_lost(error: Exception) -> None:
    """After some CUDA errors every further call fails; a fresh process is the only cure, and the driver's business."""
    if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
        logger.error("the GPU's context is lost:\n%s", traceback.format_exc())
        os._exit(GPU_LOST)
