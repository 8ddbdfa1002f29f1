"""The embedded mini model: complete, small, and it follows the text."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from diffcolor.colorize import Fitted, fit, recolor
from diffcolor.config import ANTI_COLOR_PROMPTS, PRESETS
from diffcolor.identity import embedded_folder
from diffcolor.lora import init_lora
from diffcolor.luminance import soft_luma
from diffcolor.models import load_models
from diffcolor.prompts import embed_prompts
from diffcolor.scan import Scan

DRAFT = PRESETS["draft"]


@pytest.fixture(scope="module")
def mini():
    return load_models()


def ball() -> torch.Tensor:
    """A shaded ball on a plain ground, (1, 128, 128) in [0, 1]."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    height = np.sqrt(np.clip(0.36 - x**2 - y**2, 0, None))
    shade = np.where(height > 0, 0.3 + 0.5 * np.clip(height / 0.6 - 0.2 * (x + y), 0, 1), 0.72 - 0.05 * y)
    return torch.tensor(shade, dtype=torch.float32)[None]


def scan(**changes) -> Scan:
    facts = {"context_prompt": "a photo of a ball", "anti_color_prompts": ANTI_COLOR_PROMPTS, "seed": 1}
    return Scan(gray=ball(), **{**facts, **changes})


def untrained(base, a_scan: Scan) -> Fitted:
    """The base model as it is: adapters that change nothing, the prompt's own embedding."""
    lora = init_lora(base.unet, 1, [torch.Generator().manual_seed(0)])
    e = embed_prompts(base, [a_scan.context_prompt])
    return Fitted(scan=a_scan, lora=lora, optimized=e, primary=None)


def ball_hue(rgb: torch.Tensor) -> float:
    """Hue in degrees of the ball's mean colour."""
    r, g, b = rgb[:, 48:80, 48:80].mean((1, 2)).tolist()
    return 360 * colorsys.rgb_to_hsv(r, g, b)[0]


def far(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


def test_all_parts_are_there_for_stock_diffusers():
    pipeline = StableDiffusionPipeline.from_pretrained(
        embedded_folder("mini"), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    image = pipeline("a red apple", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (128, 128, 3)


def test_the_word_decides_the_hue(mini):
    one = untrained(mini.base, scan())
    words = {"red": 0, "green": 120, "blue": 230}
    ladders = recolor(mini, [(one, f"a photo of a {word} ball") for word in words], replace(DRAFT, etas=(1.0,)))
    hues = {word: ball_hue(ladder[0].rgb) for word, ladder in zip(words, ladders, strict=True)}
    for word, hue in words.items():
        assert far(hues[word], hue) < 60, hues


def test_the_judge_tells_colour_from_gray_and_red_from_blue(mini):
    judge = mini.judge
    gray = ball()
    inside = (ball() < 0.66).float()

    def picture(r, g, b):
        tinted = gray * (1 - inside) + gray * inside * torch.tensor([r, g, b]).view(3, 1, 1) * 1.4
        return judge.image_features(tinted.clamp(0, 1)[None])

    red, blue, plain = picture(1, 0.2, 0.2), picture(0.2, 0.3, 1), judge.image_features(gray.expand(1, 3, -1, -1))
    of = {text: judge.text_features([text])[0] for text in ("a red ball", "a blue ball", "a grayscale photograph")}
    assert (red @ of["a red ball"]).item() > (red @ of["a blue ball"]).item()
    assert (blue @ of["a blue ball"]).item() > (blue @ of["a red ball"]).item()
    assert (plain @ of["a grayscale photograph"]).item() > (red @ of["a grayscale photograph"]).item()


def test_stage_one_moves_the_picture_away_from_the_anti_colour_prompts(mini):
    """The contrastive term, and nothing else, is what differs between the two runs."""
    quick = replace(DRAFT.fit, color_prior_steps=25, embedding_steps=0, in_context_steps=0, plateau_window=0)

    def late_loss(weight: float) -> float:
        config = replace(quick, contrastive_weight=weight, color_prior_learning_rate=1e-3)
        steps = [p for p in fit(mini, [scan()], config) if p.stage == "color_prior"]
        return sum(float(p.losses["contrastive"][0]) for p in steps[-12:])

    assert late_loss(1.0) < 0.95 * late_loss(0.0)


def test_colour_of_a_picture_is_within_the_scans_luminance(mini):
    (ladder,) = recolor(mini, [(untrained(mini.base, scan()), "a photo of a green ball")], DRAFT)
    assert torch.allclose(soft_luma(ladder[0].rgb[None])[0], ball(), atol=1e-4)


def test_no_file_says_where_it_was_made():
    """Configs of diffusers name the folder that a part was loaded from."""
    for file in embedded_folder("").rglob("*.json"):
        assert "_name_or_path" not in file.read_text(encoding="utf-8"), file
