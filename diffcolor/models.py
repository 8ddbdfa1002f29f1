"""The two models that the method needs, and their identity."""

from dataclasses import dataclass

from diffcolor.base_model import BaseModel, load_base_model, resolve_device
from diffcolor.config import MINI
from diffcolor.identity import ModelIdentity
from diffcolor.judge import Judge, load_judge


@dataclass(frozen=True)
class Models:
    """The base model that is adapted to each scan, and the CLIP judge that rates how well a picture matches a text."""

    base: BaseModel
    judge: Judge

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(
            base_model=self.base.name,
            base_model_digest=self.base.digest,
            judge=self.judge.name,
            judge_digest=self.judge.digest,
        )


def load_models(base_model: str = MINI, judge: str = MINI, device: str = "cpu") -> Models:
    """Loads both models.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        BaseModelError: one of them cannot be loaded.
    """
    resolved = resolve_device(device)
    return Models(load_base_model(base_model, resolved), load_judge(judge, resolved))
