"""The models that the method needs, and their identity."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from diffcolor.base_model import BaseModel, load_base_model, resolve_device, with_loss_decoder
from diffcolor.coarse import SIZE_MULTIPLE, CoarseColorizer, load_coarse
from diffcolor.config import MINI, NO_BASE, Precision
from diffcolor.geometry import working_size
from diffcolor.identity import ModelIdentity
from diffcolor.judge import Judge, load_judge
from diffcolor.precision import compute_deterministically, dtype_for, set_float32_products
from diffcolor.words import Vocabulary


@dataclass(frozen=True)
class Models:
    """The base model that is adapted to each scan, the CLIP judge that rates how well a picture matches a text, and the
    coarse colorizer, from whose colours sampling may start. Without a base model (None) its colours are the picture."""

    base: BaseModel | None
    judge: Judge
    coarse: CoarseColorizer

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(
            base_model=self.base.name if self.base else NO_BASE,
            base_model_digest=self.base.digest if self.base else "",
            judge=self.judge.name,
            judge_digest=self.judge.digest,
            coarse_digest=self.coarse.digest,
            loss_decoder=self.base.loss_decoder_name if self.base else "",
            loss_decoder_digest=self.base.loss_decoder_digest if self.base else "",
        )

    @property
    def device(self) -> torch.device:
        return self.coarse.device

    @property
    def tokenizer(self) -> Any:
        """Of what reads the prompts."""
        return self.base.tokenizer if self.base else self.coarse.tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that what reads the prompts knows."""
        return self.base.vocabulary if self.base else self.coarse.vocabulary

    def known_as(self, before: ModelIdentity | None) -> "Models":
        """The same models under the digest that an output knows its base model by, where that counts weights alone: an
        output that an earlier version has begun goes on."""
        if self.base and before and before.base_model_digest == self.base.weights_digest:
            return replace(self, base=replace(self.base, digest=self.base.weights_digest))
        return self

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a scan is colorized."""
        if self.base:
            return working_size(height, width, self.base.training_area, self.base.size_multiple)
        return working_size(height, width, self.coarse.net.config.area, SIZE_MULTIPLE)


def load_models(
    base_model: str = MINI,
    judge: str = MINI,
    device: str = "cpu",
    precision: Precision | str = Precision.auto,
    deterministic: bool = False,
    loss_decoder: str | None = None,
) -> Models:
    """Loads all three.

    Args:
        base_model: see `load_base_model`; "none" for none.
        device: "auto", "cpu" or "cuda".
        precision: of base model and judge; the small coarse colorizer is float32 always.
        loss_decoder: see `with_loss_decoder`; None for none.
        deterministic: the whole process computes so from here on (`precision.compute_deterministically`).

    Raises:
        BaseModelError: base model or judge cannot be loaded.
    """
    resolved = resolve_device(device)
    if deterministic:
        compute_deterministically()
    set_float32_products(dtype_for(precision, torch.device(resolved)))
    base = None if base_model == NO_BASE else load_base_model(base_model, resolved, precision)
    if base and loss_decoder:
        base = with_loss_decoder(base, loss_decoder)
    return Models(base, load_judge(judge, resolved, precision), load_coarse(resolved))
