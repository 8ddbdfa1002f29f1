"""The training state of one image as bytes, from which a killed job resumes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from diffcolor.errors import CheckpointError

FORMAT_VERSION = "1"
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Checkpoint:
    """An image between two training steps: adapters, embedding, optimizer moments, random stream, losses so far.

    Resumed training gives the same values as uninterrupted training, bit for bit with the same kernels. `tensors` are
    on the CPU; in a joined checkpoint they have a leading image axis.
    """

    stage: str
    step: int
    tensors: dict[str, Tensor]


def join(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Joins images at the same stage and step, to be trained together."""
    ((stage, step),) = {(checkpoint.stage, checkpoint.step) for checkpoint in checkpoints}
    names = checkpoints[0].tensors
    tensors = {name: torch.stack([checkpoint.tensors[name] for checkpoint in checkpoints]) for name in names}
    return Checkpoint(stage, step, tensors)


def to_bytes(checkpoint: Checkpoint, fit_key: str) -> bytes:
    """A safetensors file, followed by its sha256."""
    facts = {"checkpoint": FORMAT_VERSION, "fit_key": fit_key, "stage": checkpoint.stage, "step": str(checkpoint.step)}
    content = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, metadata=facts)
    return content + hashlib.sha256(content).digest()


def from_bytes(content: bytes, fit_key: str) -> Checkpoint:
    """The inverse of `to_bytes`. Nothing is unpickled.

    Raises:
        CheckpointError: damaged, of another format version, or of another fit.
    """
    content, expected = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != expected:
        raise CheckpointError("damaged: its sha256 differs")
    try:
        facts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"not a checkpoint ({type(error).__name__}: {error})") from error
    if (facts.get("checkpoint"), facts.get("fit_key")) != (FORMAT_VERSION, fit_key):
        raise CheckpointError("it belongs to another fit, or another version of this program")
    return Checkpoint(stage=facts["stage"], step=int(facts["step"]), tensors=tensors)
