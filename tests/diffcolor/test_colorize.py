"""The method as a whole, on tiny random models through the real loading code."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from diffcolor.colorize import Colored, Fitted, fit, recolor
from diffcolor.conditioning import Conditioning
from diffcolor.config import PRESETS, Config, digest, preset_for
from diffcolor.errors import NonFiniteLossError
from diffcolor.luminance import soft_luma
from diffcolor.scan import Scan
from pipelines.values import from_values
from tests.conftest import TINY

CAPTIONS = ["a photo of a barn", "a cat", "a photo of an apple and the sky", "a house"]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """The stated tolerance of "as if alone": 2e-5 in the mean, 1e-3 at most (a quarter of an 8-bit code in pixels).

    Batched matrix products round differently in float32's last bits; Adam divides by the gradient's size, so that an
    element with almost no gradient can step on rounding alone, and the correspondence is a sharp softmax.
    """
    return bool((a - b).abs().mean() < 2e-5 and (a - b).abs().max() < 1e-3)


def scan(k: int, **changes) -> Scan:
    generator = torch.Generator().manual_seed(100 + k)
    gray = torch.nn.functional.interpolate(torch.rand(1, 1, 5, 5, generator=generator), (32, 32), mode="bilinear")[0]
    negatives = ("a grayscale photograph",) if k % 2 else ("a grayscale photograph", "a scratchy photo")
    facts = {"gray": gray, "context_prompt": CAPTIONS[k], "anti_color_prompts": negatives, "seed": k}
    return Scan(**{**facts, **changes})


def fitted(models, scans, config=TINY.fit):
    return fit(models, scans, config).outcomes


def weights(base):
    return {
        f"{part}.{name}": tensor.clone()
        for part in ("unet", "vae", "text_encoder")
        for name, tensor in getattr(base, part).state_dict().items()
    }


@pytest.fixture(scope="module")
def together(models):
    return fitted(models, [scan(k) for k in range(4)])


def test_four_in_lockstep_get_what_each_gets_alone(models, together):
    for k in range(4):
        (alone,) = fitted(models, [scan(k)])
        assert same(alone.primary, together[k].primary)
        assert same(alone.optimized["embeds"], together[k].optimized["embeds"])
        for name, tensor in alone.lora.up.items():
            assert same(tensor, together[k].lora.up[name])


def test_an_image_that_settles_early_gets_what_it_gets_alone(models):
    """Images settle at different steps; the stages after must not notice."""
    config = replace(TINY.fit, color_prior_steps=24, embedding_steps=8, plateau_window=4, plateau_improvement=0.01)
    scans = [scan(k) for k in range(4)]
    together = fitted(models, scans, config)
    lengths = set()
    for k, one in enumerate(scans):
        lengths.add(sum(progress.stage == "color_prior" for progress in fit(models, [one], config)))
        (alone,) = fitted(models, [one], config)
        assert same(alone.optimized["embeds"], together[k].optimized["embeds"])
        assert same(alone.primary, together[k].primary)
    assert len(lengths) > 1, "all settled at the same step: nothing was compared"


def test_base_weights_are_bit_identical_after_fit_and_recolor(models):
    before = weights(models.base)
    (one,) = fitted(models, [scan(0)])
    recolor(models, [(one, "a photo of a red barn")], TINY)
    after = weights(models.base)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def predicted(base):
    """What the U-Net says to some input, without adapters if it was given back."""
    generator = torch.Generator().manual_seed(3)
    x, embeds = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 16, 16, generator=generator)
    return base.predict(x, torch.tensor([10, 700]), Conditioning({"embeds": embeds}))


def test_abandoned_fit_leaves_the_unet_untouched(models):
    before = predicted(models.base)
    steps = iter(fit(models, [scan(0)], TINY.fit))
    next(steps)
    next(steps)
    steps.close()
    assert torch.equal(predicted(models.base), before)


def test_same_seed_gives_same_pixels_and_another_seed_others(models, together):
    (again,) = fitted(models, [scan(1)])
    (other,) = fitted(models, [scan(1, seed=9)])
    first = recolor(models, [(again, "a red cat")], TINY)[0][0]
    second = recolor(models, [(again, "a red cat")], TINY)[0][0]
    assert torch.equal(first.rgb, second.rgb)
    assert not torch.allclose(recolor(models, [(other, "a red cat")], TINY)[0][0].rgb, first.rgb, atol=1e-3)


def test_every_candidate_has_the_scans_luminance(models, together):
    ladder = recolor(models, [(together[0], "a photo of a red barn")], TINY)[0]
    assert sorted(one.eta for one in ladder) == sorted(TINY.etas)
    assert ladder[0].score >= ladder[1].score
    for one in ladder:
        assert torch.allclose(soft_luma(one.rgb[None])[0], together[0].scan.gray, atol=1e-4)


def test_stray_color_decides_between_candidates_that_the_judge_likes_alike():
    def candidate(margin, stray):
        return Colored(rgb=torch.zeros(3, 1, 1), eta=1.0, clip_margin=margin, stray_color=stray)

    assert candidate(0.20, 0.1).score > candidate(0.21, 0.5).score
    assert candidate(0.20, 0.1).score < candidate(0.30, 0.5).score


def test_candidates_do_not_depend_on_their_neighbours(models, together):
    requests = [(together[k], "a red house") for k in range(4)]
    for alone, batched in zip(requests, recolor(models, requests, TINY), strict=True):
        by_eta = {one.eta: one.rgb for one in recolor(models, [alone], TINY)[0]}
        for one in batched:
            assert same(one.rgb, by_eta[one.eta])


def test_training_moves_the_embedding_and_the_adapters(models, together):
    assert all(tensor.abs().max() > 0 for tensor in together[0].lora.up.values())
    (untrained,) = fitted(models, [scan(0)], replace(TINY.fit, embedding_steps=0))
    assert not torch.equal(untrained.optimized["embeds"], together[0].optimized["embeds"])


@pytest.mark.parametrize(("timesteps", "highest"), [("all", 999), ("sampling", 299)])
def test_training_sees_the_timesteps_it_is_to_see(models, timesteps, highest):
    seen, real = [], models.base.unet.forward

    def forward(x, t, *given, **more):
        seen.append(t)
        return real(x, t, *given, **more)

    config = replace(
        TINY.fit, color_prior_steps=30, timesteps=timesteps, primary=replace(TINY.fit.primary, strength=0.3)
    )
    models.base.unet.forward = forward
    try:
        for progress in fit(models, [scan(0)], config):
            if progress.stage != "color_prior":
                break  # sampling has its own
            assert len(seen) <= 30
    finally:
        models.base.unet.forward = real
    drawn = torch.cat(seen[:30])
    assert 0.8 * highest < drawn.max() <= highest
    assert drawn.min() < 0.2 * highest


def test_the_prior_alone_asks_for_no_change(models):
    """Without the contrastive loss, the untouched base is the optimum of stage 1 when it is held there; gray is not."""
    config = replace(TINY.fit, contrastive_weight=0.0, embedding_steps=0, in_context_steps=0)
    (held,) = fitted(models, [scan(0)], replace(config, denoising_target="prior"))
    (pulled,) = fitted(models, [scan(0)], replace(config, denoising_target="gray"))
    assert all(not tensor.any() for tensor in held.lora.up.values())
    assert all(tensor.any() for tensor in pulled.lora.up.values())


def test_a_non_finite_loss_fails_its_image_alone(models, together):
    broken = scan(0, gray=torch.full((1, 32, 32), torch.nan))
    bad, good = fitted(models, [broken, scan(1)], replace(TINY.fit, color_prior_steps=4))
    assert isinstance(bad, NonFiniteLossError)
    assert bad.stage == "color_prior"
    assert isinstance(good, Fitted)
    assert same(good.primary, together[1].primary)


def test_a_settled_image_stands_still_and_the_stage_ends_early(models):
    # Nothing is ever twice as good as before: every image settles after two windows.
    config = replace(TINY.fit, color_prior_steps=50, plateau_window=3, plateau_improvement=0.9)
    steps = [p for p in fit(models, [scan(0), scan(1)], config) if p.stage == "color_prior"]
    assert len(steps) == 6


def test_paper_preset_is_the_papers_and_never_stops_early():
    paper = PRESETS["paper"].fit
    assert (paper.color_prior_steps, paper.embedding_steps, paper.in_context_steps) == (1500, 500, 1000)
    assert paper.plateau_window == 0
    assert paper.contrastive_weight == 0.5


def test_what_was_tuned_on_the_embedded_model_holds_for_no_other():
    paper = PRESETS["paper"]
    for name, config in PRESETS.items():
        other = preset_for(name, "stable-diffusion-v1-5/stable-diffusion-v1-5")
        assert preset_for(name, "mini") == config
        assert config.preset == other.preset == name
        for sample in (other.sample, other.fit.primary):
            assert sample.guidance_scale == paper.sample.guidance_scale
            # From gray the paper's noise; coarse colours would drown in it.
            assert (sample.start, sample.strength) in (("gray", paper.sample.strength), ("coarse", 0.5))
        assert (other.fit.denoising_target, other.fit.timesteps) == ("gray", "all")
        assert other.fit.contrastive_weight == paper.fit.contrastive_weight


@pytest.mark.parametrize("config", [*PRESETS.values(), TINY], ids=lambda config: config.preset)
def test_a_configuration_comes_back_from_json(config):
    again = from_values(json.loads(json.dumps(asdict(config))), Config)
    assert again == config
    assert digest(again) == digest(config)


def test_a_drawn_contrast_has_the_expectation_of_the_weighted_one(models):
    """Over many steps: the same mean loss, computed in the share of steps that alpha_bar is in the mean."""
    looks, real = [], models.judge.model.encode_image

    def encode_image(pixels):
        looks.append(len(pixels))
        return real(pixels)

    def mean_contrast(**changes):
        looks.clear()
        config = replace(TINY.fit, color_prior_steps=400, color_prior_learning_rate=1e-9, **changes)
        losses = [
            progress.losses["contrastive"]
            for progress in fit(models, [scan(0), scan(1)], config)
            if progress.stage == "color_prior"
        ]
        return torch.stack(losses).mean(), sum(looks)

    models.judge.model.encode_image = encode_image
    try:
        weighted, all_looks = mean_contrast()
        drawn, few_looks = mean_contrast(contrastive_at="drawn")
    finally:
        del models.judge.model.encode_image
    share = float(models.base.alphas_cumprod.mean())
    assert all_looks == 800
    assert few_looks == pytest.approx(800 * share, rel=0.1)
    assert float(drawn) == pytest.approx(float(weighted), rel=0.15)


def test_a_settled_image_is_computed_no_more(models):
    """Of a batch whose images settle at different steps, only those that train go through the U-Net."""
    sizes, real = [], models.base.unet.forward

    def forward(x, *given, **more):
        sizes.append(len(x))
        return real(x, *given, **more)

    config = replace(TINY.fit, color_prior_steps=24, plateau_window=4, plateau_improvement=0.01)
    models.base.unet.forward = forward
    try:
        for progress in fit(models, [scan(k) for k in range(4)], config):
            if progress.stage != "color_prior":
                break
            seen = list(sizes)
            losses = progress.losses.get("denoising")
            if losses is not None:
                assert losses.shape == (4,)
                assert int(losses.isfinite().sum()) == sizes[-1]
    finally:
        models.base.unet.forward = real
    assert seen[0] == 4
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 4


def test_luminance_is_put_back_at_every_nth_step_and_at_the_last(models):
    (one,) = fitted(models, [scan(0)])
    decodes, real = [], models.base.vae.encode

    def encode(pixels):
        decodes.append(1)
        return real(pixels)

    def count(every):
        decodes.clear()
        sample = replace(TINY.sample, num_inference_steps=8, strength=1.0, luminance_every=every)
        picture = recolor(models, [(one, "a red barn")], replace(TINY, sample=sample, etas=(1.0,)))[0][0]
        assert torch.allclose(soft_luma(picture.rgb[None])[0], one.scan.gray, atol=1e-4)
        return len(decodes)

    models.base.vae.encode = encode
    try:
        assert count(1) - count(2) == 4
        assert count(1) - count(3) == 5
        assert count(1) - count(100) == 7
    finally:
        models.base.vae.encode = real
