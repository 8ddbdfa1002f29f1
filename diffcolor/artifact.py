"""A fitted image as a safetensors file of a few MB, from which it can be recoloured at any later time."""

import json
from dataclasses import asdict, dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from diffcolor.colorize import Fitted
from diffcolor.conditioning import Conditioning
from diffcolor.errors import ArtifactError
from diffcolor.lora import from_diffusers, to_diffusers
from diffcolor.models import Models
from diffcolor.scan import Scan
from diffcolor.training_state import OPTIMIZED

_FORMATS = ("1", "2")  # the second is for models that are conditioned on more than embeddings


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord:
    """An artifact's metadata: the models, settings, prompts and scan of the fit.

    Attributes:
        height, width: working size, pixels.
        gray_sha256: of the decoded gray array that was fitted.
        primary_image: key of stage 1's picture, which holds the exact gray scan as its luma.
        primary_preview: key of its preview.
        coarse_digest: of the coarse colorizer; "" where it had no part in the pictures.
    """

    base_model: str
    base_model_digest: str
    config_digest: str
    context_prompt: str
    identified_prompt: str
    anti_color_prompts: tuple[str, ...]
    seed: int
    height: int
    width: int
    gray_sha256: str
    primary_image: str
    primary_preview: str | None = None
    coarse_digest: str = ""


def to_bytes(fitted: Fitted, record: ArtifactRecord) -> bytes:
    """One safetensors file: the LoRA under diffusers' names, e_opt as `optimized_embeds` (T, D), of SDXL with
    `optimized_pooled` (P,), and the record as metadata."""
    e_opt = {name: each[0].float().contiguous().cpu() for name, each in fitted.optimized.named(OPTIMIZED).items()}
    tensors = {**to_diffusers(fitted.lora), **e_opt}
    facts = {"version": _FORMATS[len(e_opt) > 1], **asdict(record)}
    # One key alone: safetensors writes several in random order, and the same fit must give the same bytes.
    return save(tensors, metadata={"diffcolor": json.dumps(facts)})


def read_record(content: bytes) -> ArtifactRecord:
    """The metadata alone.

    Raises:
        ArtifactError: not one of our artifacts, damaged, or of another format version.
    """
    try:
        header_size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + header_size])["__metadata__"]
        fields = json.loads(metadata["diffcolor"])
        version = fields.pop("version")
        record = ArtifactRecord(**{**fields, "anti_color_prompts": tuple(fields["anti_color_prompts"])})
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"its header is not a DiffColor artifact's ({type(error).__name__}: {error})") from error
    if version not in _FORMATS:
        raise ArtifactError(f"format version {version}, this program reads {' and '.join(_FORMATS)}")
    return record


def from_bytes(content: bytes, gray: torch.Tensor, models: Models) -> Fitted:
    """Reads an artifact for sampling on `models`. Nothing is unpickled.

    Args:
        gray: (1, H, W) in [0, 1]: the scan at the recorded working size.

    Raises:
        ArtifactError: damaged, or fitted on other models.
    """
    record, ours = read_record(content), models.identity
    if record.base_model_digest != ours.base_model_digest:
        raise ArtifactError(
            f"it was fitted on {record.base_model} ({record.base_model_digest[:12]}), "
            f"not on {ours.base_model} ({ours.base_model_digest[:12]})"
        )
    if record.coarse_digest not in ("", ours.coarse_digest):
        raise ArtifactError(
            f"it was fitted with another coarse colorizer ({record.coarse_digest[:12]}, not "
            f"{ours.coarse_digest[:12]}): use the version of this program that made it"
        )
    if gray.shape[-2:] != (record.height, record.width):
        raise ArtifactError(
            f"working size {tuple(gray.shape[-2:])} is not the recorded {record.height}, {record.width}"
        )
    try:
        tensors = load(content)
        e_opt = Conditioning.from_named({name: each[None] for name, each in tensors.items()}, OPTIMIZED)
    except SafetensorError as error:
        raise ArtifactError(f"damaged ({error})") from error
    if "embeds" not in e_opt.tensors:
        raise ArtifactError(f"damaged (no {OPTIMIZED}embeds)")
    scan = Scan(
        gray=gray,
        context_prompt=record.context_prompt,
        anti_color_prompts=record.anti_color_prompts,
        seed=record.seed,
    )
    return Fitted(
        scan=scan,
        lora=from_diffusers(tensors).to(models.device),
        optimized=e_opt.to(models.device),
        primary=None,
    )
