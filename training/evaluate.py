"""Measures the VAE and the judge on held-out pictures. What the U-Net is worth, `benchmarks/ablation.py` measures."""

from dataclasses import replace

import cv2
import numpy as np
import torch

from training.colors import COLOR_NAMES, paint
from training.conditioning import Conditioning
from training.pictures import PictureSource
from training.train_judge import draw_judge_batch, encode_short_text, evaluate_judge, normalize, tokenize
from training.train_vae import evaluate_vae, training_batch

OBJECTS = 208


@torch.no_grad()
def color_word_accuracy(frozen: Conditioning, source: PictureSource, generator: np.random.Generator) -> float:
    """How often the judge puts the right colour word above the 12 others, on held-out stamps recoloured on gray."""
    right = 0
    for number in range(OBJECTS):
        stamp = source.stamps[generator.integers(len(source.stamps))]
        name = COLOR_NAMES[number % len(COLOR_NAMES)]
        object_rgb = paint(stamp.rgba[..., :3].astype(np.float32) / 255, name, generator)
        alpha = stamp.rgba[..., 3:].astype(np.float32) / 255
        scene = cv2.resize(object_rgb * alpha + 0.5 * (1 - alpha), (64, 64), interpolation=cv2.INTER_AREA)
        picture = normalize(np.ascontiguousarray(scene.transpose(2, 0, 1), dtype=np.float32)[None])
        texts = [f"a photo of a {word} {stamp.nouns[0]}" for word in COLOR_NAMES]
        text_features = encode_short_text(frozen.judge, tokenize(frozen.tokenizer, texts))
        scores = frozen.judge.encode_image(picture, normalize=True) @ text_features.T
        right += COLOR_NAMES[scores.argmax().item()] == name
    return right / OBJECTS


def evaluate(held_out: PictureSource, frozen: Conditioning) -> dict[str, dict[str, float]]:
    """Figures of the VAE at 128 x 128, on photographs and on scenes, and of the judge."""
    figures, generator = {}, np.random.default_rng(1)
    for what, share in (("photographs", 0.0), ("scenes", 1.0)):
        source = replace(held_out, scenes=share, recolored=0.0, mounted=0.0)
        figures[f"vae, {what}"] = evaluate_vae(
            frozen.vae, training_batch(source, 48, (128, 128), generator, gray_share=0)
        )
    batch = draw_judge_batch(held_out, 256, generator, spoilt=False)
    figures["judge, 256 pictures"] = evaluate_judge(frozen.judge, frozen.tokenizer, batch)
    figures["judge, objects"] = {"color_word": color_word_accuracy(frozen, held_out, generator)}
    return figures
