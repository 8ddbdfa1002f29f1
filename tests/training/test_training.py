"""The scripts that made the embedded model: the laws of their parts, and all of them, end to end, for seconds."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffcolor.base_model import load_base_model
from diffcolor.judge import load_judge
from training.__main__ import main
from training.colors import COLOR_OF_WORD
from training.pool import Pool
from training.prompts import contradict, contradictions
from training.runs import Budget, Run
from training.stamps import is_held_out, load_stamps, split_stamps
from training.train_judge import contrastive_loss
from training.train_unet import build_scheduler, color_axes, draw_starts, velocity_batch
from training.train_vae import standardize_latents


def colors_of(caption: str) -> list[str]:
    return [COLOR_OF_WORD[word] for word in caption.replace(",", "").split() if word in COLOR_OF_WORD]


@given(
    st.lists(st.sampled_from([*COLOR_OF_WORD, "barn", "sky", "a", "by"]), min_size=1, max_size=8), st.integers(0, 999)
)
def test_a_contradiction_changes_colour_words_alone(words, seed):
    caption = " ".join(words)
    wrong = contradict(caption, np.random.default_rng(seed))
    if not colors_of(caption):
        assert wrong is None
        return
    assert colors_of(wrong) != colors_of(caption)
    kept = [word for word in words if word not in COLOR_OF_WORD]
    assert [word for word in wrong.split() if word not in COLOR_OF_WORD] == kept


@pytest.mark.parametrize("caption", ["brown and beige tones", "red, blue flags", "a red, green and blue flag"])
def test_exchanging_what_is_only_enumerated_is_no_contradiction(caption):
    for seed in range(40):
        wrong = contradict(caption, np.random.default_rng(seed))
        assert sorted(colors_of(wrong)) != sorted(colors_of(caption))
    exchanged = {contradict("a red barn under a blue sky", np.random.default_rng(seed)) for seed in range(40)}
    assert "a blue barn under a red sky" in exchanged


def test_a_contradiction_that_is_right_for_another_picture_is_left_out():
    captions = [*[f"a {color} barn" for color in dict.fromkeys(COLOR_OF_WORD.values())][:8], "a barn"]
    found = [text for seed in range(20) for text in contradictions(captions, np.random.default_rng(seed))]
    assert found
    assert not set(found) & set(captions)


def test_wrong_captions_repel_their_pictures():
    features = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    scale = torch.tensor(10.0)
    near, far = features.clone(), -features
    none = contrastive_loss(features, features, features[:0], scale)
    assert contrastive_loss(features, features, near, scale) > none + 0.1
    assert contrastive_loss(features, features, far, scale) < none + 0.1


def test_pictures_of_one_caption_are_no_negatives_of_each_other():
    near = torch.nn.functional.normalize(torch.tensor([[1.0, 0.5, 0, 0], [1.0, -0.5, 0, 0]]), dim=-1)

    def pull(texts: torch.Tensor) -> float:
        """How strongly the loss moves the first two pictures."""
        images = torch.cat([near, torch.eye(4)[2:]]).requires_grad_()
        contrastive_loss(images, texts, texts[:0], torch.tensor(50.0)).backward()
        return float(images.grad[:2].abs().max())

    assert pull(torch.eye(4)[[0, 0, 2, 3]]) < 1e-4
    assert pull(torch.eye(4)) > 0.1


def test_standardized_latents_are_standard_and_decode_to_the_same():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=5, norm_num_groups=4,
    ).eval()  # fmt: skip
    pictures = torch.rand(6, 3, 16, 16)
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist
        decoded = vae.decode(before.mean).sample
        channels = before.mean.transpose(0, 1).flatten(1)
        standardize_latents(vae, channels.mean(1), channels.std(1))
        after = vae.encode(pictures).latent_dist
        standard = after.mean.transpose(0, 1).flatten(1)
        torch.testing.assert_close(standard.mean(1), torch.zeros(5), atol=1e-4, rtol=0)
        torch.testing.assert_close(standard.std(1), torch.ones(5), atol=1e-4, rtol=0)
        torch.testing.assert_close(vae.decode(after.mean).sample, decoded, atol=1e-4, rtol=0)
        # The posterior is scaled with its mean: a draw decodes to what it did.
        torch.testing.assert_close(after.std * channels.std(1)[:, None, None], before.std, atol=1e-4, rtol=1e-3)
    assert vae.config.scaling_factor == 1


def pool_of(latents: torch.Tensor) -> Pool:
    return Pool(
        latents=latents.half(),
        grays=torch.zeros_like(latents).half(),
        starts=torch.full_like(latents, 9.0).half(),
        captions=[str(k) for k in range(len(latents))],
    )


def test_noisy_latents_are_made_of_starts_of_gray_of_the_truth_and_on_the_way_to_it():
    pool = pool_of(torch.ones(900, 4, 6, 6))
    starts = draw_starts(pool, np.arange(900), np.random.default_rng(0))[:, 0, 0, 0]
    assert ((starts >= 0) & (starts <= 9)).all()
    for value, share in ((9.0, 0.36), (0.0, 0.12), (1.0, 0.2)):
        assert abs((starts == value).float().mean() - share) < 0.05
    assert ((starts > 1) & (starts < 9)).float().mean() > 0.15, "coarse colours, partly corrected"


def test_the_velocity_leads_to_the_true_colors_also_from_wrong_ones():
    torch.manual_seed(0)
    latents = torch.randn(64, 4, 6, 6)
    alphas = build_scheduler().alphas_cumprod
    noisy, timesteps, captions, velocity = velocity_batch(pool_of(latents), alphas, np.random.default_rng(0))
    alpha, sigma = (a[timesteps].sqrt()[:, None, None, None] for a in (alphas, 1 - alphas))
    original = alpha * noisy - sigma * velocity
    assert sum(caption != "" for caption in captions) > len(captions) / 2
    for caption, found in zip(captions, original, strict=True):
        if caption:  # dropped in a tenth
            assert torch.allclose(found, latents[int(caption)], atol=2e-2)


def test_the_axes_of_color_are_those_in_which_gray_differs():
    rng = torch.Generator().manual_seed(0)
    grays = torch.randn(20, 6, 4, 4, generator=rng)
    color = torch.linalg.qr(torch.randn(6, 2, generator=rng)).Q
    latents = grays + torch.einsum("nkhw,ck->nchw", torch.randn(20, 2, 4, 4, generator=rng), color)
    axes = color_axes([Pool(latents=latents, grays=grays, starts=grays, captions=[""] * 20)])
    assert torch.allclose(axes @ axes.T, color @ color.T, atol=1e-4)


def test_the_schedule_ends_in_pure_noise():
    assert build_scheduler().alphas_cumprod[-1] < 1e-6


def _names(prefix: str, one_in: int, held_out: int, others: int) -> list[str]:
    """Names of which a known number is held out."""
    candidates = [f"{prefix} {chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26)]
    out = [name for name in candidates if is_held_out(name, one_in)][:held_out]
    return out + [name for name in candidates if not is_held_out(name, one_in)][:others]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A packed file of a few synthetic photographs, and cut-outs as the package has them."""
    folder, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    rows = []
    for number in range(14):
        coarse = Image.fromarray(rng.integers(60, 230, (5, 7, 3), np.uint8))
        file = io.BytesIO()
        coarse.resize((190, 140), Image.Resampling.BICUBIC).save(file, "JPEG")
        part = "train" if number < 11 else "validation"
        kind = ("kodachrome", "various", "clothing")[number % 3]
        row = {"id": str(number), "set": kind, "title": "a barn", "caption": "a red barn", "image": file.getvalue()}
        rows.append(row | {"shoot": str(number), "part": part})
    pq.write_table(pa.Table.from_pylist(rows), folder / "pack.parquet")
    stamps = folder / "stamps" / "household"
    stamps.mkdir(parents=True)
    for number, caption in enumerate(_names("Cup", 5, 2, 8)):
        pixels = np.zeros((60, 50, 4), np.uint8)
        pixels[10:50, 10:40] = [*rng.integers(0, 256, 3), 255]
        Image.fromarray(pixels).save(stamps / f"{number}.png")
        (stamps / f"{number}.txt").write_text(f"{caption}.\n", encoding="utf-8")
    return folder


def test_held_out_objects_share_no_noun_with_the_others(sources):
    train, held_out = split_stamps(load_stamps(sources / "stamps"))
    assert held_out
    assert not {one.nouns[0] for one in train} & {one.nouns[0] for one in held_out}
    assert not any(is_held_out(one.caption, 5) for one in train)


@pytest.fixture
def train(sources, tmp_path, monkeypatch):
    for module in ("train_unet", "train_coarse", "train_judge"):
        monkeypatch.setattr(f"training.{module}.BATCH_SIZE", 4)
    monkeypatch.setattr("training.train_vae.SMALL", (2, (64, 64)))

    def run(command: str, *options: str) -> Path:
        places = ["--pack", sources / "pack.parquet", "--stamps", sources / "stamps", "--runs", tmp_path / "r"]
        arguments = [command, *places, "--decay-steps", 2, "--threads", 1, "--workers", 0, *options]
        main([str(one) for one in arguments])
        return tmp_path / "r" / command / f"{command}.pt"

    return run


def test_the_models_are_trained_one_after_the_other_and_exported(sources, train, tmp_path):
    places = ["--pack", sources / "pack.parquet", "--stamps", sources / "stamps", "--runs", tmp_path / "r"]
    arguments = [str(one) for one in [sys.executable, "-m", "training", "tokenizer", *places, "--threads", "1"]]
    subprocess.run(arguments, check=True)  # in a process of its own, as it is called
    train("vae")
    train("judge")
    train("pool", "--pictures", "48")
    train("unet")
    train("export", "--out", str(tmp_path / "out"))
    base, judge = load_base_model(str(tmp_path / "out" / "mini")), load_judge(str(tmp_path / "out" / "judge"))
    assert base.training_area == 128 * 128
    assert judge.text_features(["a red cup"]).shape == (1, 128)
    assert StableDiffusionPipeline.from_pretrained(tmp_path / "out" / "mini")


def test_what_was_not_trained_is_the_embedded_model(train, tmp_path):
    train("export", "--out", str(tmp_path / "out"))
    ours = load_base_model(str(tmp_path / "out" / "mini"))
    assert ours.weights_digest == load_base_model().weights_digest
    assert load_judge(str(tmp_path / "out" / "judge")).digest == load_judge().digest
    assert not (tmp_path / "out" / "coarse").exists()


def test_a_training_is_resumed_and_its_end_is_not_begun_anew(train):
    def state(path):
        return torch.load(path, weights_only=True)

    rate = [state(train("coarse", "--minutes", "0.001", "--decay-steps", "0"))["step"]]
    path = train("coarse", "--decay-steps", "2")
    first = state(path)
    assert first["step"] == rate[0] + 2
    again = state(train("coarse", "--decay-steps", "2"))
    assert again["step"] == first["step"], "it had ended"
    assert all(torch.equal(first["average"][name], again["average"][name]) for name in first["average"])
    assert state(train("coarse", "--minutes", "0.001", "--decay-steps", "0"))["decay_began"] < 0, "another end may come"
    first = state(train("coarse", "--decay-steps", "2"))
    assert first["step"] > again["step"] + 1
    longer = state(train("coarse", "--decay-steps", "3"))
    assert longer["step"] == first["step"] + 1
    assert {group["lr"] for group in longer["optimizer"]["param_groups"]} != {0.0}


def test_an_interrupted_training_is_saved_whole(tmp_path):
    """The rates, the average and the moments of a resumed run are those of one that was never interrupted."""

    def run(folder: Path, *budgets: Budget) -> Run:
        for budget in budgets:
            torch.manual_seed(0)
            run = Run(folder / "line", torch.nn.Linear(3, 1), {"": 1e-2}, warmup=4)
            for step in run.steps(budget, dict):
                generator = torch.Generator().manual_seed(step)
                pictures = torch.randn(8, 3, generator=generator)
                run.learn((run.net(pictures) - pictures.sum(1, keepdim=True)).square().mean())
                if step == budget.minutes:
                    run.save()
                    break  # the process dies
        return run

    whole = run(tmp_path / "whole", Budget(minutes=-1, decay_steps=9))
    broken = run(tmp_path / "broken", Budget(minutes=4, decay_steps=9), Budget(minutes=-1, decay_steps=9))
    assert whole.step == broken.step == 9
    for ours, theirs in zip(whole.average.parameters(), broken.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
