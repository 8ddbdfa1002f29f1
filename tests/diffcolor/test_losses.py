import math

import pytest
import torch

from diffcolor import color_prior
from diffcolor.config import FitConfig
from diffcolor.losses import contrastive_loss, denoising_loss


def test_contrastive_loss_by_hand():
    # cos to positive 1, to the two negatives 0 and 0.6; tau 0.5: exp(2) / (exp(2) + exp(0) + exp(1.2)), over log 3.
    image = torch.tensor([[1.0, 0.0]])
    negatives = torch.tensor([[[0.0, 1.0], [0.6, 0.8]]])
    expected = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(1.2))) / math.log(3)
    assert contrastive_loss(image, image, negatives, 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_of_a_blind_judge_is_one():
    same = torch.tensor([[0.6, 0.8]])
    assert contrastive_loss(same, same, same.repeat(1, 4, 1), 0.07).item() == pytest.approx(1)


def test_padding_rows_do_not_count():
    image, positive = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.6]])
    one = torch.tensor([[[0.0, 1.0]]])
    padded = torch.cat([one, torch.zeros(1, 3, 2)], 1)
    assert torch.allclose(contrastive_loss(image, positive, one, 0.1), contrastive_loss(image, positive, padded, 0.1))


def test_how_hard_the_contrastive_loss_pushes():
    """Where the judge sees no difference yet, its gradient along the cosines is 1 / (tau log(1 + N)) in all: half of it
    off each of two negatives. The authors' (tau 0.01, no logarithm) is 100; ours at their tau 91."""
    for tau, expected in ((0.01, 1 / (0.01 * math.log(3))), (0.05, 1 / (0.05 * math.log(3)))):
        cosines = torch.full((3,), 0.2, requires_grad=True)
        image, texts = torch.eye(3)[:1] * 0 + cosines, torch.eye(3)  # cosine i is the picture's with text i
        contrastive_loss(image, texts[:1], texts[None, 1:], tau).sum().backward()
        assert cosines.grad.tolist() == pytest.approx([-expected * 2 / 3, expected / 3, expected / 3], rel=1e-4)


def test_tau_is_the_judges_own_unless_it_is_given(judge, base, monkeypatch):
    assert judge.temperature == pytest.approx(float(torch.exp(-judge.model.logit_scale)))
    seen = []
    monkeypatch.setattr(color_prior, "contrastive_loss", lambda *given: seen.append(given[-1]) or torch.zeros(1))
    picture = (torch.zeros(1, 4, 8, 8), torch.full((1, 1, 32, 32), 0.5), None, None)
    for tau in (None, 0.2):
        color_prior.contrast(base, judge, FitConfig(temperature=tau), *picture)
    assert seen == [judge.temperature, 0.2]


def test_contrastive_loss_refuses_other_feature_sizes():
    with pytest.raises(ValueError, match="differ"):
        contrastive_loss(torch.ones(1, 2), torch.ones(1, 3), torch.ones(1, 1, 2), 0.1)


def test_denoising_loss_is_per_image():
    output = torch.stack([torch.zeros(2, 2), torch.full((2, 2), 3.0)])
    assert denoising_loss(output, torch.ones(2, 2, 2)).tolist() == [1, 4]
