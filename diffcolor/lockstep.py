"""What each of K images owns while they train together: its random draws, its optimizer step, the end of its stage."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.diffusion import draw_noise
from diffcolor.errors import NonFiniteLossError

_GOLDEN = 0.6180339887498949
_CHECK_EVERY = 10  # steps between looks at the losses: each look waits for the GPU


@dataclass(frozen=True)
class Progress:
    """One training step of K images. `losses[name]` is (K,), detached, still on the device."""

    stage: str
    step: int
    steps: int
    losses: dict[str, Tensor]


class Lockstep:
    """One stage of K images. An image that has settled, or whose loss is not finite, stands still from then on.

    Args:
        generators: one per image, the only source of its randomness.
        failures: shared by the stages of a fit: image index to its error.
    """

    def __init__(
        self,
        stage: str,
        base: BaseModel,
        generators: Sequence[torch.Generator],
        failures: dict[int, NonFiniteLossError],
        plateau_window: int,
        plateau_improvement: float,
    ) -> None:
        self.stage, self.base, self.generators, self.failures = stage, base, generators, failures
        self.window, self.improvement = plateau_window, plateau_improvement
        self.offsets = torch.stack([torch.rand((), generator=generator) for generator in generators])
        self.live = torch.tensor([image not in failures for image in range(len(generators))])
        self.history: list[Tensor] = []

    def draw(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps (K,) and noise like `latents` for the next step.

        Departs from the paper: t is not drawn independently at each step but follows a golden-ratio sequence from a
        random offset. It is as uniform, and short budgets see every noise level.
        """
        step, count = len(self.history), self.base.scheduler.config.num_train_timesteps
        timesteps = ((self.offsets + step * _GOLDEN) % 1 * count).long().clamp_max(count - 1)
        return timesteps.to(latents.device), draw_noise(self.generators, latents.shape[1:], latents.device)

    def update(self, optimizer: torch.optim.Optimizer, losses: Tensor) -> bool:
        """Steps every live image on its own loss (K,). Returns whether any image still trains."""
        optimizer.zero_grad()
        # The sum gives each image the gradient of its own loss alone; a mean would divide it by its neighbours.
        losses.sum().backward()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        still = (~self.live).nonzero().flatten().to(losses.device)
        kept = [parameter.detach()[still] for parameter in parameters] if len(still) else []
        optimizer.step()
        with torch.no_grad():
            for parameter, values in zip(parameters, kept, strict=False):
                parameter[still] = values
        self.history.append(losses.detach())
        if len(self.history) % _CHECK_EVERY == 0:
            self._fail_non_finite()
        if self.window and len(self.history) % self.window == 0:
            self._stop_settled()
        return bool(self.live.any())

    def finish(self) -> None:
        """Looks at the losses a last time."""
        self._fail_non_finite()

    def _fail_non_finite(self) -> None:
        recent = self.history[-_CHECK_EVERY:]
        if not recent:
            return
        finite = torch.isfinite(torch.stack(recent)).cpu()
        for image in ((~finite.all(0)) & self.live).nonzero().flatten().tolist():
            step = len(self.history) - len(recent) + int((~finite[:, image]).nonzero()[0])
            self.failures[image] = NonFiniteLossError(self.stage, step, image)
            self.live[image] = False

    def _stop_settled(self) -> None:
        if len(self.history) < 2 * self.window:
            return
        before = torch.stack(self.history[-2 * self.window : -self.window]).mean(0)
        now = torch.stack(self.history[-self.window :]).mean(0)
        self.live &= (now < (1 - self.improvement) * before).cpu()
