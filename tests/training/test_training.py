"""The scripts that made the embedded model: the laws of their parts, and all of them, end to end, for seconds."""

import io
import subprocess
import sys
from types import SimpleNamespace

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
from training.photographs import load_photographs
from training.pool import Pool
from training.prompts import contradict, contradictions
from training.stamps import is_held_out, load_stamps, split_stamps
from training.train_judge import contrastive_loss
from training.train_unet import build_scheduler, color_axes, spoil_color, velocity_batch
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


def test_only_noisy_latents_are_spoilt_and_their_luminance_is_not():
    torch.manual_seed(0)
    latents, grays = torch.randn(900, 4, 6, 6), torch.zeros(900, 4, 6, 6)
    latents[:, :2], grays[:, :2] = 3.0, 3.0  # two channels of luminance, equal in both
    timesteps = torch.randint(0, 1000, (900,))
    spoilt = spoil_color(latents, grays, timesteps)
    changed = (spoilt != latents).flatten(1).any(1)
    assert not changed[timesteps < 50].any()
    assert 0.5 < changed[timesteps >= 50].float().mean() < 0.7
    assert (spoilt[:, :2] == 3).all()
    colorless = (spoilt == grays).flatten(1).all(1)
    assert 0.4 < colorless[changed].float().mean() < 0.6
    muted = torch.isclose(torch.cosine_similarity(spoilt[:, 2:].flatten(1), latents[:, 2:].flatten(1)), torch.ones(()))
    assert 0.15 < muted[changed].float().mean() < 0.35


def test_the_velocity_leads_to_the_true_colors_also_from_spoilt_ones():
    torch.manual_seed(0)
    latents = torch.randn(64, 4, 6, 6)
    pool = Pool(latents=latents.half(), grays=torch.zeros_like(latents).half(), captions=[str(k) for k in range(64)])
    told = []  # the captions come last: which pictures the batch holds
    frozen = SimpleNamespace(embed=lambda captions: told.extend(captions))
    alphas = build_scheduler().alphas_cumprod
    noisy, timesteps, _, velocity = velocity_batch(pool, frozen, alphas, np.random.default_rng(0))
    alpha, sigma = (a[timesteps].sqrt()[:, None, None, None] for a in (alphas, 1 - alphas))
    original = alpha * noisy - sigma * velocity
    for caption, found in zip(told, original, strict=True):
        if caption:  # dropped in a tenth
            assert torch.allclose(found, latents[int(caption)], atol=2e-3)


def test_the_axes_of_color_are_those_in_which_gray_differs():
    rng = torch.Generator().manual_seed(0)
    grays = torch.randn(20, 6, 4, 4, generator=rng)
    color = torch.linalg.qr(torch.randn(6, 2, generator=rng)).Q
    latents = grays + torch.einsum("nkhw,ck->nchw", torch.randn(20, 2, 4, 4, generator=rng), color)
    axes = color_axes([Pool(latents=latents, grays=grays, captions=[""] * 20)])
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
    """A few synthetic slides and cut-outs in the two formats that the scripts read."""
    folder, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    rows = []
    for number, title in enumerate(_names("barn", 20, 3, 12)):
        coarse = Image.fromarray(rng.integers(60, 230, (5, 7, 3), np.uint8))
        picture = coarse.resize((150, 110), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        picture.save(file, "JPEG")
        rows.append({"id": str(number), "year": 1941, "title": title, "image": file.getvalue()})
    pq.write_table(pa.Table.from_pylist(rows), folder / "slides.parquet")
    stamps = folder / "stamps" / "household"
    stamps.mkdir(parents=True)
    for number, caption in enumerate(_names("Cup", 5, 2, 8)):
        pixels = np.zeros((60, 50, 4), np.uint8)
        pixels[10:50, 10:40] = [*rng.integers(0, 256, 3), 255]
        Image.fromarray(pixels).save(stamps / f"{number}.png")
        (stamps / f"{number}.txt").write_text(f"{caption}.\n", encoding="utf-8")
    return folder


def test_the_validation_split_shares_no_title_and_no_noun(sources):
    train, held_out = load_photographs(sources / "slides.parquet")
    assert held_out
    assert not {one.title for one in train} & {one.title for one in held_out}
    train, held_out = split_stamps(load_stamps(sources / "stamps"))
    assert held_out
    assert not {one.nouns[0] for one in train} & {one.nouns[0] for one in held_out}
    assert not any(is_held_out(one.caption, 5) for one in train)


def test_a_model_is_trained_resumed_and_exported(sources, tmp_path):
    def train(command: str, *options: str) -> None:
        places = ["--photographs", sources / "slides.parquet", "--stamps", sources / "stamps", "--runs", tmp_path / "r"]
        arguments = [str(one) for one in [command, *places, "--minutes", "0.03", "--threads", "1", *options]]
        if command == "tokenizer":  # a process each would spend its time on importing torch
            subprocess.run([sys.executable, "-m", "training", *arguments], check=True)
        else:
            main(arguments)

    train("tokenizer")
    train("vae")
    train("judge")
    train("pool", "--pictures", "48")
    train("unet")
    before = torch.load(tmp_path / "r" / "unet" / "unet.pt")
    train("unet", "--resume")
    assert torch.load(tmp_path / "r" / "unet" / "unet.pt")["step"] > before["step"]
    train("export", "--out", str(tmp_path / "out"))
    base, judge = load_base_model(str(tmp_path / "out" / "mini")), load_judge(str(tmp_path / "out" / "judge"))
    assert base.training_area == 128 * 128
    assert judge.text_features(["a red cup"]).shape == (1, 128)
    assert StableDiffusionPipeline.from_pretrained(tmp_path / "out" / "mini")
