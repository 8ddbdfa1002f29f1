"""The coarse colorizer, as the start of sampling and alone."""

from dataclasses import replace

import pytest
import torch

from diffcolor.coarse import load_coarse, stretch_chroma
from diffcolor.colorize import fit, recolor
from diffcolor.config import NO_BASE, FitConfig, SampleConfig, digest, preset_for
from diffcolor.diffusion import encode
from diffcolor.luminance import soft_luma
from diffcolor.models import Models
from diffcolor.scan import Scan, ScanBatch
from tests.conftest import gray_picture

WORDS = ("a red barn", "", "a woman in a blue dress, green wall behind, brown table and white plates")


@pytest.fixture(scope="module")
def coarse():
    return load_coarse()


def grays(count: int, height: int = 96, width: int = 128) -> torch.Tensor:
    return torch.stack(
        [torch.from_numpy(gray_picture(seed, height, width))[None].float() / 255 for seed in range(count)]
    )


def scan(seed: int, caption: str = "a red barn") -> Scan:
    return Scan(gray=grays(seed + 1)[seed], context_prompt=caption, anti_color_prompts=("gray",), seed=seed)


def test_the_scans_luma_is_kept(coarse):
    gray = grays(3)
    rgb = coarse.colorize(gray, WORDS)
    assert rgb.min() >= -1e-5
    assert rgb.max() <= 1 + 1e-5
    assert (soft_luma(rgb) - gray).abs().max() < 1e-5
    assert (rgb - gray).abs().max() > 0.02, "it has colours"


def test_pictures_together_are_what_each_is_alone(coarse):
    """A short caption is padded beside a long one; the padding says nothing."""
    gray = grays(3)
    together = coarse.colorize(gray, WORDS)
    alone = torch.cat([coarse.colorize(gray[k : k + 1], [WORDS[k]]) for k in range(3)])
    assert (together - alone).abs().max() < 1e-4


def test_chroma_is_stretched_and_hue_is_kept():
    even = torch.tensor([12.0, -5.0])[None, :, None, None].expand(1, 2, 64, 96)
    assert torch.allclose(stretch_chroma(even), even, atol=1e-4), "nothing differs"
    ab = even.clone()
    ab[..., 48:] *= 4
    stretched = stretch_chroma(torch.cat([ab, even]))
    assert torch.allclose(stretched[1:], even, atol=1e-4), "each picture by itself"
    ratio = stretched[0] / ab[0]
    assert torch.allclose(ratio[0], ratio[1], atol=1e-5), "the hue is kept"
    assert ratio[0, 32, 8] < 0.6
    assert 0.9 < ratio[0, 32, 90] < 1.1
    assert (stretch_chroma(torch.zeros(1, 2, 5, 7)) == 0).all()
    mounted = torch.nn.functional.pad(ab, (32, 32, 32, 32))
    assert torch.allclose(stretch_chroma(mounted)[0, 0, 64, 120], stretched[0, 0, 32, 88], rtol=0.05)


def test_told_nothing_it_is_paler(coarse, monkeypatch):
    gray = grays(1)
    before = coarse.colorize(gray, [""])
    told = coarse.colorize(gray, ["a red barn"])
    monkeypatch.setattr("diffcolor.coarse.UNTOLD_GAIN", 0.45)
    ratio = (coarse.colorize(gray, [""]) - gray).abs().mean() / (before - gray).abs().mean()
    assert 0.4 < ratio < 0.6
    assert torch.equal(coarse.colorize(gray, ["a red barn"]), told)


def test_how_unsure_it_is_changes_nothing_and_is_always_the_same(coarse):
    gray, prompts = grays(1), ["a red barn"]
    before, state = coarse.colorize(gray, prompts), torch.random.get_rng_state()
    spread = coarse.spread(gray, prompts)
    assert spread.shape == gray.shape
    assert (spread.min() >= 0, bool(spread.mean() > 0.1)) == (True, True)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(coarse.spread(gray, prompts), spread)
    assert torch.equal(coarse.colorize(gray, prompts), before)


def test_sampling_starts_from_the_colours_of_the_prompt(models):
    scans, targets = [scan(0), scan(1)], ["a blue barn", "a green barn"]
    batch = ScanBatch.of(models, scans, SampleConfig(start="coarse"), targets)
    expected = models.coarse.colorize(torch.stack([one.gray for one in scans]), targets)
    assert torch.equal(batch.starts, expected)
    assert torch.equal(batch.latents, encode(models.base, expected))
    of_context = ScanBatch.of(models, scans, SampleConfig(start="coarse"))
    assert not torch.equal(of_context.latents, batch.latents)
    gray = ScanBatch.of(models, scans, SampleConfig())
    assert torch.equal(gray.starts, gray.gray.expand(-1, 3, -1, -1))


def test_another_start_is_another_fit_but_the_papers_digest_is_what_it_was():
    paper = FitConfig(temperature=0.05)  # the default of version 0.1.0
    assert digest(paper) != digest(replace(paper, primary=SampleConfig(start="coarse")))
    assert digest(paper) == "f8ff4dc42a25a05ee9c5acf269b4580d48f327721aba0759217bce0ec2de4686"


def test_without_a_base_model_the_coarse_colours_are_the_picture(models):
    alone = Models(None, models.judge, models.coarse)
    config = preset_for("balanced", NO_BASE)
    fitting = fit(alone, [scan(0), scan(1)], config.fit)
    assert list(fitting) == []
    first, second = fitting.outcomes
    expected = models.coarse.colorize(first.scan.gray[None], ["a red barn"])[0]
    torch.testing.assert_close(first.primary, expected, atol=1e-4, rtol=0)
    (ladder,) = recolor(alone, [(second, "a blue barn")], config)
    assert len(ladder) == 1
    assert torch.equal(ladder[0].rgb, models.coarse.colorize(second.scan.gray[None], ["a blue barn"])[0])


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="start is 'white'"):
        SampleConfig(start="white")
