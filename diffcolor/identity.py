"""What identifies a pair of models. Quick to import: the driver of a job needs it, and no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Names, and sha256 (hex) of the weights, of a base model and a judge as they were loaded."""

    base_model: str
    base_model_digest: str
    judge: str
    judge_digest: str
