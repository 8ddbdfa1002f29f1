"""Training that was interrupted ends where undisturbed training ends."""

from dataclasses import replace

import pytest
import torch

from diffcolor.checkpoint import Checkpoint, from_bytes, to_bytes
from diffcolor.colorize import fit
from diffcolor.errors import CheckpointError
from tests.conftest import TINY
from tests.diffcolor.test_colorize import fitted, same, scan

# Long enough that the plateau's memory and the check for finite losses matter.
CONFIG = replace(TINY.fit, color_prior_steps=12, embedding_steps=3, in_context_steps=3, plateau_window=5)


def checkpoints(models, scans, config=CONFIG) -> list[list[Checkpoint]]:
    """At every point between two steps, what each image would be resumed from, through bytes."""
    points = []
    for progress in fit(models, scans, config):
        saved = [progress.checkpoint(image) for image in range(len(scans))]
        points.append([from_bytes(to_bytes(one, "key"), "key") for one in saved])
    return points


def resume(models, scans, points, config=CONFIG):
    fitting = fit(models, scans, config, points)
    count = sum(progress.step > 0 for progress in fitting)
    return fitting.outcomes, count


def test_an_image_goes_on_from_any_step_bit_for_bit(models):
    (whole,) = fitted(models, [scan(0)], CONFIG)
    points = checkpoints(models, [scan(0)])
    assert [(one.stage, one.step) for (one,) in points][-4:] == [("in_context", step) for step in range(4)]
    redone = []
    for point in points:
        ((again,), count) = resume(models, [scan(0)], point)
        redone.append(count)
        assert torch.equal(again.primary, whole.primary)
        assert torch.equal(again.optimized["embeds"], whole.optimized["embeds"])
        for name, tensor in whole.lora.named().items():
            assert torch.equal(again.lora.named()[name], tensor)
    assert redone == sorted(redone, reverse=True)
    assert redone[-1] == 0


def test_an_image_goes_on_alone_or_with_others(models):
    scans = [scan(0), scan(1)]
    together = fitted(models, scans, CONFIG)
    for point in checkpoints(models, scans)[::4]:
        both, _ = resume(models, scans, point)
        for k in range(2):
            ((alone,), _) = resume(models, [scans[k]], [point[k]])
            for one in (alone, both[k]):
                assert same(one.primary, together[k].primary)
                assert same(one.optimized["embeds"], together[k].optimized["embeds"])


def test_a_failed_image_leaves_no_checkpoint(models):
    broken = scan(0, gray=torch.full((1, 32, 32), torch.nan))
    last = None
    for progress in fit(models, [broken, scan(1)], CONFIG):
        last = (progress.checkpoint(0), progress.checkpoint(1))
    assert last[0] is None
    assert last[1].stage == "in_context"


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: b"", lambda c: c[:40] + b"X" + c[41:], lambda c: b"ab" * 99]
)
def test_damage_and_strangers_are_refused(damage):
    content = to_bytes(Checkpoint("embedding", 3, {"a": torch.ones(2)}), "key")
    with pytest.raises(CheckpointError):
        from_bytes(damage(content), "key")
    with pytest.raises(CheckpointError, match="another fit"):
        from_bytes(content, "other")
