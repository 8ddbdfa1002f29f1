"""One image in the middle of its training, as bytes: what a killed job goes on from."""

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
    """An image between two steps: adapters, embedding, optimizer moments, random stream, losses so far.

    Training that goes on from here gives the values that undisturbed training gives: the same bits with the same
    kernels. `tensors` are on the CPU; joined ones have the image axis in front.
    """

    stage: str
    step: int
    tensors: dict[str, Tensor]


def join(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Images at one stage and step, to be trained on together."""
    (point,) = {(one.stage, one.step) for one in checkpoints}
    names = checkpoints[0].tensors
    return Checkpoint(*point, {name: torch.stack([one.tensors[name] for one in checkpoints]) for name in names})


def to_bytes(checkpoint: Checkpoint, fit_key: str) -> bytes:
    """safetensors, then the sha256 of it."""
    facts = {"checkpoint": FORMAT_VERSION, "fit_key": fit_key, "stage": checkpoint.stage, "step": str(checkpoint.step)}
    content = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, metadata=facts)
    return content + hashlib.sha256(content).digest()


def from_bytes(content: bytes, fit_key: str) -> Checkpoint:
    """Raises CheckpointError: damaged, of another format, or of another fit. Nothing is unpickled."""
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
