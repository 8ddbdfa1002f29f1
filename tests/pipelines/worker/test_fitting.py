"""Training K rows together, without a store: checkpoints, stops and time limits."""

import pytest
import torch

from diffcolor.errors import NonFiniteLossError
from pipelines.worker.failures import ImageTimeoutError
from pipelines.worker.fitting import Stopped, StopRequest, Trained, Trainer
from pipelines.worker.rows import FitRequest
from tests.conftest import TINY
from tests.diffcolor.test_colorize import same, scan


class Kept:
    """Checkpoints in memory; the furthest of each fit counts."""

    def __init__(self) -> None:
        self.states: dict = {}
        self.points: list[tuple[str, int]] = []

    def save(self, states) -> bool:
        self.states |= dict(states)
        self.points += [(state.stage, state.step) for _, state in states[:1]]
        return True

    def wait(self) -> None:
        pass


def trainer(models, kept, **changes) -> Trainer:
    return Trainer(**{"models": models, "config": TINY.fit, "checkpoints": kept, "stop": StopRequest(), **changes})


def requests(count: int = 2, kept: Kept | None = None) -> list[FitRequest]:
    states = kept.states if kept else {}
    return [FitRequest(fit_key=f"key{k}", scan=scan(k), checkpoint=states.get(f"key{k}")) for k in range(count)]


def test_each_row_gets_a_fit_its_steps_and_its_curves(models):
    seen = []
    outcomes = trainer(models, Kept(), report=seen.append).train(requests())
    assert all(isinstance(outcome, Trained) for outcome in outcomes)
    training = outcomes[0].training
    assert (training.steps, training.resumed_at) == (9, None)
    assert [(point["stage"], point["step"]) for point in training.losses] == [
        *(("color_prior", step) for step in range(1, 5)),
        *(("embedding", step) for step in range(1, 3)),
        *(("in_context", step) for step in range(1, 4)),
    ]
    assert training.losses != outcomes[1].training.losses
    assert len(seen) == 9 + 2, "each step, and the boundaries between the stages"


def test_steps_are_checkpointed_as_often_as_asked_and_a_short_training_has_none(models):
    kept, often = Kept(), Kept()
    trainer(models, kept).train(requests())
    trainer(models, often, checkpoint_seconds=0.0).train(requests())
    assert kept.points == []
    assert len(often.points) == 11


def test_a_stop_without_time_left_checkpoints_and_what_is_resumed_gives_the_same(models):
    whole = trainer(models, Kept()).train(requests())
    kept, stop = Kept(), StopRequest()
    stop.ask(0.0)
    with pytest.raises(Stopped):
        trainer(models, kept, stop=stop).train(requests())
    assert kept.points == [("color_prior", 1)]
    resumed = trainer(models, Kept()).train(requests(kept=kept))
    for again, first in zip(resumed, whole, strict=True):
        assert (again.training.resumed_at, again.training.steps) == ("color_prior/1", 8)
        assert same(again.fitted.primary, first.fitted.primary)


def test_a_stop_that_leaves_time_is_no_stop(models):
    stop = StopRequest()
    stop.ask(600.0)
    assert all(isinstance(outcome, Trained) for outcome in trainer(models, Kept(), stop=stop).train(requests()))


def test_too_much_time_is_the_outcome_of_every_row(models):
    outcomes = trainer(models, Kept(), timeout_seconds=0.0).train(requests())
    assert [type(outcome) for outcome in outcomes] == [ImageTimeoutError] * 2
    assert "color_prior at step 1" in str(outcomes[0])


def test_a_loss_that_is_not_finite_is_its_rows_outcome_alone(models):
    broken = FitRequest(fit_key="x", scan=scan(0, gray=torch.full((1, 32, 32), torch.nan)))
    bad, good = trainer(models, Kept()).train([broken, requests()[1]])
    assert isinstance(bad, NonFiniteLossError)
    assert isinstance(good, Trained)
