"""The training state of K images, which the stages of `fit` pass on and from which a killed job resumes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.checkpoint import Checkpoint, join
from diffcolor.conditioning import Conditioning
from diffcolor.config import STAGES, FitConfig
from diffcolor.errors import NonFiniteLossError
from diffcolor.lora import LoRA, init_lora
from diffcolor.scan import ScanBatch

OPTIMIZED = "optimized_"  # e_opt's tensors in checkpoints and artifacts: `optimized_embeds` and what else there is


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """K images in training; every tensor has a leading image axis.

    Attributes:
        lora: the adapters. Stage 1 and the second part of stage 2 train their tensors in place.
        primary: (K, 3, H, W) in [0, 1], the primary colours at the end of stage 1; None before.
        optimized: e_opt in its present state; None before stage 2.
        resumed: the joined checkpoints that this state was read from; stages before theirs are skipped.
        failures: errors of the images whose loss was not finite, by index; shared by all states of a fit.
    """

    lora: LoRA
    primary: Tensor | None = None
    optimized: Conditioning | None = None
    resumed: Checkpoint | None = None
    failures: dict[int, NonFiniteLossError] = field(default_factory=dict)

    @staticmethod
    def fresh(base: BaseModel, batch: ScanBatch, config: FitConfig) -> "TrainingState":
        """The state before the first step, with adapters that change nothing."""
        return TrainingState(lora=init_lora(base.unet, config.lora_rank, batch.random_streams("lora")))

    @staticmethod
    def resume(base: BaseModel, checkpoints: Sequence[Checkpoint]) -> "TrainingState":
        """The state of K checkpoints, all of one stage and step."""
        joined = join(checkpoints)
        on_device = {name: tensor.to(base.device) for name, tensor in joined.tensors.items()}
        return TrainingState(
            lora=LoRA.from_named(on_device),
            primary=on_device.get("primary"),
            optimized=Conditioning.from_named(on_device, OPTIMIZED) if f"{OPTIMIZED}embeds" in on_device else None,
            resumed=joined,
        )

    def is_past(self, stage: str) -> bool:
        """Whether training was resumed from a later stage than `stage`."""
        return self.resumed is not None and STAGES.index(self.resumed.stage) > STAGES.index(stage)

    def resumed_in(self, stage: str) -> Checkpoint | None:
        """The joined checkpoints if they were made in `stage`, else None."""
        return self.resumed if self.resumed is not None and self.resumed.stage == stage else None

    def parts(self) -> dict[str, Tensor]:
        """All tensors that there are; `lora` is that of its values."""
        e_opt = self.optimized.named(OPTIMIZED) if self.optimized else {}
        primary = {} if self.primary is None else {"primary": self.primary}
        return {"lora": self.lora.values, **primary, **e_opt}
