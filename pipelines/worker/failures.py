"""What an exception means for its row."""

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
    """An image took more training time than it is allowed."""

    kind = "timeout"

    def __init__(self, seconds: float, stage: str, step: int) -> None:
        super().__init__(seconds, stage, step)
        self.seconds, self.stage, self.step = seconds, stage, step

    def __str__(self) -> str:
        return (
            f"not finished after {self.seconds:g} s of training: it was in {self.stage} at step {self.step}; "
            "see --timeout-per-image"
        )


def outcome_of(error: Exception) -> tuple[str, str, str]:
    """Status, kind and message of a row that ended with `error`; unforeseen errors are `internal`."""
    if isinstance(error, InputImageError):
        return (SKIPPED if error.skipped else FAILED), error.kind, error.message
    if isinstance(error, DiffColorError):
        return FAILED, error.kind, str(error)
    if isinstance(error, FloatingPointError):
        return FAILED, "non_finite", str(error)
    if isinstance(error, OSError) and error.errno in FULL:
        remedy = f"free some space, or point TMPDIR to a larger disk, then --retry-failed ({error})"
        return FAILED, "no_space", f"no space for the page in {tempfile.gettempdir()}: {remedy}"
    if is_out_of_memory(error):
        return FAILED, "oom", f"out of memory with this image alone: {error}"
    return FAILED, "internal", f"{type(error).__name__}: {error}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU's memory ran out, or the machine's as reported by torch's CPU allocator."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def leave_if_the_gpu_is_lost(error: Exception) -> None:
    """Ends the process after a CUDA error that makes every further call fail; the driver starts a fresh one."""
    if isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
        logger.error("the GPU's context is lost:\n%s", traceback.format_exc())
        os._exit(GPU_LOST)
