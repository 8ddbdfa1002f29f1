"""In which numbers the frozen models compute, and whether the same numbers come out again."""

import os

import torch
from torch import nn

from diffcolor.config import Precision

_DTYPES = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16, Precision.fp32: torch.float32}
# float16 has no numbers below 6e-8, where many gradients lie: losses are scaled up, gradients down again.
LOSS_SCALE = {torch.float16: 1024.0}


def dtype_for(precision: Precision | str, device: torch.device) -> torch.dtype:
    """The dtype of frozen weights and their activations.

    "auto" is float32 on a CPU, bfloat16 on a GPU whose tensor cores have it (NVIDIA's since Ampere), float16 on others.
    """
    precision = Precision(precision)
    if precision != Precision.auto:
        return _DTYPES[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def set_float32_products(dtype: torch.dtype) -> None:
    """States how a GPU multiplies what stays float32, instead of leaving it to PyTorch's defaults (which differ for
    convolutions and matrices): exactly where everything is float32, else in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype != torch.float32


def freeze(module: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Moves a module to the device in `dtype` and evaluation mode, its parameters excluded from training."""
    channels_last = dtype != torch.float32  # what tensor cores read without reordering; float32 keeps its known bits
    module = module.to(device, dtype).eval().requires_grad_(False)
    return module.to(memory_format=torch.channels_last) if channels_last else module


def compute_deterministically() -> None:
    """From here on only kernels whose sums have a fixed order; those that lack one raise an error.

    It must be called before the first use of a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
