"""What each of K images owns while they train together: its random draws, its optimizer step, the end of its stage."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.checkpoint import Checkpoint
from diffcolor.diffusion import draw_noise
from diffcolor.errors import NonFiniteLossError

_MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam remembers of a parameter
_GOLDEN = 0.6180339887498949
_CHECK_EVERY = 10  # steps between looks at the losses: each look waits for the GPU


@dataclass(frozen=True)
class Progress:
    """K images between two steps of a stage; step 0 is its beginning.

    Attributes:
        losses: of the step just done; each is (K,), detached, still on the device.
        checkpoint: given an image's index, all that it needs to go on from here; None for one that has failed.
            Valid until the next step is asked for.
    """

    stage: str
    step: int
    steps: int
    losses: dict[str, Tensor]
    checkpoint: Callable[[int], Checkpoint | None]


class Lockstep:
    """One stage of K images. An image that has settled, or whose loss is not finite, stands still from then on.

    Args:
        generators: one per image, the only source of its randomness.
        failures: shared by the stages of a fit: image index to its error.
        budget: steps of this stage.
        timestep_share: t is drawn from [0, timestep_share * number of timesteps).
        frozen: what later stages need and this one does not train, each (K, ...): goes into the checkpoints.
        resumed: where this stage goes on from, each tensor with the image axis in front; None starts it.
    """

    def __init__(
        self,
        stage: str,
        base: BaseModel,
        generators: Sequence[torch.Generator],
        failures: dict[int, NonFiniteLossError],
        *,
        budget: int,
        timestep_share: float = 1.0,
        plateau_window: int,
        plateau_improvement: float,
        frozen: Mapping[str, Tensor],
        resumed: Checkpoint | None = None,
    ) -> None:
        self.stage, self.base, self.generators, self.failures = stage, base, generators, failures
        self.budget, self.window, self.improvement = budget, plateau_window, plateau_improvement
        self.timesteps = max(1, round(timestep_share * base.scheduler.config.num_train_timesteps))
        self.frozen, self.resumed = frozen, resumed
        self.live = torch.tensor([image not in failures for image in range(len(generators))])
        self.history: list[Tensor] = []
        if resumed is None:
            self.offsets = torch.stack([torch.rand((), generator=generator) for generator in generators])
            return
        for generator, state in zip(generators, resumed.tensors["generator"], strict=True):
            generator.set_state(state.clone())  # torch crashes on a view into a larger tensor
        self.offsets = resumed.tensors["offset"]
        self.live &= resumed.tensors["live"]
        self.history = list(resumed.tensors["history"].to(base.device).unbind(1))

    def train(self, parameters: Mapping[str, Tensor], learning_rate: float) -> None:
        """Makes the optimizer (Adam) of tensors with a leading image axis, or gives it back the moments it had."""
        self.trained = {name: tensor.requires_grad_(True) for name, tensor in parameters.items()}
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=learning_rate)
        if self.history:
            for name, tensor in self.trained.items():
                moments = {key: self.resumed.tensors[f"{key}/{name}"].to(tensor.device) for key in _MOMENTS}
                self.optimizer.state[tensor] = {"step": torch.tensor(float(len(self.history))), **moments}

    def steps(self) -> Iterator[int]:
        """The steps that are left, until the budget is spent or no image trains any more."""
        while len(self.history) < self.budget and bool(self.live.any()):
            yield len(self.history)
        self._fail_non_finite()
        for tensor in self.trained.values():
            tensor.requires_grad_(False)

    def draw(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps (K,) and noise like `latents` for the next step.

        Departs from the paper: t is not drawn independently at each step but follows a golden-ratio sequence from a
        random offset. It is as uniform, and short budgets see every noise level.
        """
        step = len(self.history)
        timesteps = ((self.offsets + step * _GOLDEN) % 1 * self.timesteps).long().clamp_max(self.timesteps - 1)
        return timesteps.to(latents.device), draw_noise(self.generators, latents.shape[1:], latents.device)

    def update(self, losses: Tensor) -> None:
        """Steps every live image on its own loss (K,)."""
        self.optimizer.zero_grad()
        # The sum gives each image the gradient of its own loss alone; a mean would divide it by its neighbours.
        losses.sum().backward()
        parameters = list(self.trained.values())
        still = (~self.live).nonzero().flatten().to(losses.device)
        kept = [parameter.detach()[still] for parameter in parameters] if len(still) else []
        self.optimizer.step()
        with torch.no_grad():
            for parameter, values in zip(parameters, kept, strict=False):
                parameter[still] = values
        self.history.append(losses.detach())
        if len(self.history) % _CHECK_EVERY == 0:
            self._fail_non_finite()
        if self.window and len(self.history) % self.window == 0:
            self._stop_settled()

    def progress(self, **losses: Tensor) -> Progress:
        """Where the stage stands."""
        detached = {name: loss.detach() for name, loss in losses.items()}
        return Progress(self.stage, len(self.history), self.budget, detached, self._checkpoint)

    def _checkpoint(self, image: int) -> Checkpoint | None:
        if image in self.failures:
            return None
        own = {name: tensor[image] for name, tensor in {**self.frozen, **self.trained}.items()}
        for name, tensor in self.trained.items():
            own |= {f"{key}/{name}": self.optimizer.state[tensor][key][image] for key in _MOMENTS if self.history}
        own |= {
            "generator": self.generators[image].get_state(),
            "offset": self.offsets[image],
            "live": self.live[image],
            "history": torch.stack([losses[image] for losses in self.history]) if self.history else torch.zeros(0),
        }
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in own.items()}
        return Checkpoint(stage=self.stage, step=len(self.history), tensors=copies)

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
