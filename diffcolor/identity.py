"""What identifies a set of models. Quick to import: the driver of a job needs it, and no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Names, and sha256 (hex) of the weights, of a base model, a judge and the coarse colorizer as they were loaded.

    Outputs of version 0.1.0 have no `coarse_digest`.
    """

    base_model: str
    base_model_digest: str
    judge: str
    judge_digest: str
    coarse_digest: str = ""
