"""How many images fit together, by a meter whose memory is made up."""

import pytest
import torch

from diffcolor.config import MOST_IMAGES
from diffcolor.memory import images_that_fit
from diffcolor.models import Models
from tests.conftest import TINY

GB = 10**9


class Meter:
    """Of a device on which a step takes `fixed` and `each` for an image. It does the work, and counts."""

    def __init__(self, fixed: float, each: float, limit: float) -> None:
        self.fixed, self.each, self.bytes = fixed, each, limit
        self.measured = 0

    def peak(self, work):
        work()
        self.measured += 1
        used = self.fixed + self.each * self.measured
        if used > self.bytes:
            raise torch.OutOfMemoryError("out of memory")
        return int(used * GB)

    def limit(self):
        return int(self.bytes * GB)


@pytest.mark.parametrize(
    ("fixed", "each", "limit", "k"),
    [
        (5.6, 6.85, 24, 2),  # Stable Diffusion 1.5 in float32, as it was counted: two on a card of 24 GB
        (3.0, 3.5, 24, 5),
        (3.0, 3.5, 80, MOST_IMAGES),
        (20.0, 6.0, 24, 1),  # a second one does not fit
        (25.0, 6.0, 24, 1),  # not even one, which its row then says
    ],
)
def test_as_many_as_a_line_through_two_points_says(models, fixed, each, limit, k):
    assert images_that_fit(models, (32, 32), TINY.fit, Meter(fixed, each, limit)) == k


def test_the_probe_leaves_no_trace(models):
    before = {name: value.clone() for name, value in models.base.unet.state_dict().items()}
    images_that_fit(models, (32, 48), TINY.fit, Meter(1, 1, 24))
    assert all(torch.equal(value, before[name]) for name, value in models.base.unet.state_dict().items())
    assert all(parameter.grad is None for parameter in models.base.unet.parameters())


def test_without_a_base_model_nothing_is_measured(models):
    meter = Meter(1, 1, 24)
    assert images_that_fit(Models(None, models.judge, models.coarse), (32, 32), TINY.fit, meter) == MOST_IMAGES
    assert meter.measured == 0
