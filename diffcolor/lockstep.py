"""K images train together, each with its own random draws, its own optimizer steps, and its own end of a stage."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcolor.base_model import BaseModel
from diffcolor.checkpoint import Checkpoint
from diffcolor.config import FitConfig
from diffcolor.diffusion import draw_noise, to_device
from diffcolor.errors import NonFiniteLossError
from diffcolor.lora import LoRA
from diffcolor.precision import LOSS_SCALE
from diffcolor.scan import ScanBatch
from diffcolor.training_state import TrainingState

_MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's state of a parameter
_GOLDEN = 0.6180339887498949
_CHECK_EVERY = 10  # steps between checks of the losses: each check waits for the GPU


@dataclass(frozen=True)
class Progress:
    """The state of K images between two steps of a stage; step 0 is its beginning.

    Attributes:
        steps: the budget of the stage.
        losses: of the last step, by name; each is (K,), detached, still on the device. NaN: an image that has settled.
        checkpoint: makes the checkpoint of the image with the given index, None if that image has failed. To be called
            before the next step.
    """

    stage: str
    step: int
    steps: int
    losses: dict[str, Tensor]
    checkpoint: Callable[[int], Checkpoint | None]


class Lockstep:
    """One training stage of K images. An image that has settled, or whose loss is not finite, is trained no further.

    Args:
        stage: one of `config.STAGES`.
        state: the images' state so far; where it was resumed in this stage, training continues from there.
    """

    def __init__(self, stage: str, base: BaseModel, batch: ScanBatch, state: TrainingState, config: FitConfig) -> None:
        self.stage, self.base, self.state, self.config = stage, base, state, config
        self.generators = batch.random_streams(stage)
        self.budget = config.steps(stage)
        share = config.primary.strength if config.timesteps == "sampling" else 1.0
        self.timesteps = max(1, round(share * base.scheduler.config.num_train_timesteps))
        self.live = torch.tensor([image not in state.failures for image in range(len(batch))])
        self._images = torch.arange(len(batch))  # those that make the present step
        self.drawn = torch.zeros(0, dtype=torch.long)  # the timesteps of the present step, on the CPU
        self.trained: dict[str, Tensor] = {}
        self.history: list[Tensor] = []
        self._resumed = state.resumed_in(stage)
        if self._resumed is None:
            self.offsets = torch.stack([torch.rand((), generator=generator) for generator in self.generators])
            return
        saved = self._resumed.tensors
        for generator, position in zip(self.generators, saved["generator"], strict=True):
            generator.set_state(position.clone())  # torch crashes on a view into a larger tensor
        self.offsets = saved["offset"]
        self.live &= saved["live"]
        self.history = list(saved["history"].to(base.device).unbind(1))

    @property
    def is_new(self) -> bool:
        """Whether the stage has made no step yet."""
        return not self.history

    def train(self, parameters: Mapping[str, Tensor]) -> None:
        """Creates the optimizer (Adam) of tensors with a leading image axis; on resuming, restores its moments."""
        self.trained = {name: tensor.requires_grad_(True) for name, tensor in parameters.items()}
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=self.config.learning_rate(self.stage))
        if self._resumed and self.history:
            for name, tensor in self.trained.items():
                moments = {key: self._saved_moment(key, name).to(tensor.device) for key in _MOMENTS}
                self.optimizer.state[tensor] = {"step": torch.tensor(float(len(self.history))), **moments}

    def steps(self) -> Iterator[Tensor | slice]:
        """The remaining steps, until the budget is spent or no image trains any more: for each the index of the images
        that still train, by which all that the step computes is cut. Settled images cost nothing."""
        while len(self.history) < self.budget and bool(self.live.any()):
            self._images = self.live.nonzero().flatten()
            yield slice(None) if len(self._images) == len(self.live) else to_device(self._images, self.base.device)
        self._fail_non_finite()
        for tensor in self.trained.values():
            tensor.requires_grad_(False)

    def draw(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps (n,) and noise like `latents` for the next step of the n images that train.

        Departs from the paper: t is not drawn independently at each step but follows a golden-ratio sequence from a
        random offset, which is just as uniform and covers all noise levels within a small budget.
        """
        step = len(self.history)
        timesteps = ((self.offsets + step * _GOLDEN) % 1 * self.timesteps).long().clamp_max(self.timesteps - 1)
        images = self._images.tolist()
        self.drawn = timesteps[images]
        noise = draw_noise([self.generators[image] for image in images], latents.shape[1:], latents.device)
        return to_device(self.drawn, latents.device), noise

    def chosen(self, probabilities: Tensor) -> Tensor:
        """Indices, on the device, of those of the n images for which a draw of their own falls below (n,)."""
        draws = [torch.rand((), generator=self.generators[image]) for image in self._images.tolist()]
        return to_device((torch.stack(draws) < probabilities).nonzero().flatten(), self.base.device)

    def update(self, losses: Tensor) -> None:
        """Makes one optimizer step of every image that trains on its own loss; `losses` is (n,)."""
        self.optimizer.zero_grad()
        # The sum gives each image the gradient of its own loss alone; a mean would divide that gradient by K.
        scale = LOSS_SCALE.get(self.base.precision, 1.0)
        (losses.sum() * scale).backward()
        if scale != 1:
            self._unscale(scale)
        stopped = [] if bool(self.live.all()) else (~self.live).nonzero().flatten().tolist()
        kept = [[parameter.detach()[image].clone() for image in stopped] for parameter in self.trained.values()]
        self.optimizer.step()
        with torch.no_grad():
            for parameter, values in zip(self.trained.values(), kept, strict=True):
                for image, value in zip(stopped, values, strict=True):
                    parameter[image] = value
        self.history.append(self._of_all(losses, 0.0))
        if len(self.history) % _CHECK_EVERY == 0:
            self._fail_non_finite()
        if self.config.plateau_window and len(self.history) % self.config.plateau_window == 0:
            self._stop_settled()

    def _unscale(self, scale: float) -> None:
        """Gradients as they are without the scale. One that overflowed makes no step: zero, like GradScaler's."""
        for parameter in self.trained.values():
            assert parameter.grad is not None
            parameter.grad /= scale
            finite = torch.isfinite(parameter.grad).flatten(1).all(1).view(-1, *[1] * (parameter.dim() - 1))
            parameter.grad = torch.where(finite, parameter.grad, 0.0)

    def progress(self, **losses: Tensor) -> Progress:
        """The stage's progress, with the losses of the last step."""
        detached = {name: self._of_all(loss, torch.nan) for name, loss in losses.items()}
        return Progress(self.stage, len(self.history), self.budget, detached, self._checkpoint)

    def _of_all(self, losses: Tensor, otherwise: float) -> Tensor:
        """(K,), detached: the losses (n,) of the images that made the step, and a number for the others."""
        if len(losses) == len(self.live):
            return losses.detach()
        every = torch.full((len(self.live),), otherwise, device=losses.device)
        every[to_device(self._images, losses.device)] = losses.detach().float()
        return every

    def _checkpoint(self, image: int) -> Checkpoint | None:
        if image in self.state.failures:
            return None
        own = {name: tensor[image] for name, tensor in self.state.parts().items()}
        for name, tensor in self.trained.items():
            own |= {f"{key}/{name}": self.optimizer.state[tensor][key][image] for key in _MOMENTS if self.history}
        own |= {
            "generator": self.generators[image].get_state(),
            "offset": self.offsets[image],
            "live": self.live[image],
            "history": torch.stack([losses[image] for losses in self.history]) if self.history else torch.zeros(0),
        }
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in own.items()}
        for name in [name for name in copies if name.endswith("lora")]:  # in files, layer by layer
            layers = LoRA(copies.pop(name)[None], self.state.lora.shapes).named()
            copies |= {name.removesuffix("lora") + layer: tensor[0] for layer, tensor in layers.items()}
        return Checkpoint(stage=self.stage, step=len(self.history), tensors=copies)

    def _saved_moment(self, key: str, name: str) -> Tensor:
        """A moment of Adam as it was at the checkpoint; (K, ...)."""
        assert self._resumed is not None
        prefix, saved = f"{key}/", self._resumed.tensors
        if name != "lora":
            return saved[prefix + name]
        return LoRA.from_named(
            {name.removeprefix(prefix): saved[name] for name in saved if name.startswith(prefix)}
        ).values

    def _fail_non_finite(self) -> None:
        recent = self.history[-_CHECK_EVERY:]
        if not recent:
            return
        finite = torch.isfinite(torch.stack(recent)).cpu()
        for image in ((~finite.all(0)) & self.live).nonzero().flatten().tolist():
            step = len(self.history) - len(recent) + int((~finite[:, image]).nonzero()[0])
            self.state.failures[image] = NonFiniteLossError(self.stage, step, image)
            self.live[image] = False

    def _stop_settled(self) -> None:
        window = self.config.plateau_window
        if len(self.history) < 2 * window:
            return
        before = torch.stack(self.history[-2 * window : -window]).mean(0)
        now = torch.stack(self.history[-window:]).mean(0)
        self.live &= (now < (1 - self.config.plateau_improvement) * before).cpu()
