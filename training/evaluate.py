"""Measures the VAE and the judge on held-out pictures. What the U-Net is worth, `benchmarks/ablation.py` measures."""

import cv2
import numpy as np
import torch
from open_clip.model import CLIP

from training.colors import COLOR_NAMES, paint
from training.conditioning import Conditioning
from training.pictures import PictureSource
from training.train_judge import draw_judge_batch, encode_short_text, evaluate_judge, normalize, tokenize
from training.train_vae import evaluate_vae, training_batch


@torch.no_grad()
def color_word_accuracy(judge: CLIP, source: PictureSource, frozen: Conditioning, count: int = 208) -> float:
    """How often the judge puts the right colour word above the 12 others, on held-out stamps recoloured on gray."""
    right = 0
    for number in range(count):
        stamp = source.stamps[source.generator.integers(len(source.stamps))]
        name = COLOR_NAMES[number % len(COLOR_NAMES)]
        object_rgb = paint(stamp.rgba[..., :3].astype(np.float32) / 255, name, source.generator)
        alpha = stamp.rgba[..., 3:].astype(np.float32) / 255
        scene = cv2.resize(object_rgb * alpha + 0.5 * (1 - alpha), (64, 64), interpolation=cv2.INTER_AREA)
        picture = normalize(np.ascontiguousarray(scene.transpose(2, 0, 1), dtype=np.float32)[None])
        texts = [f"a photo of a {word} {stamp.nouns[0]}" for word in COLOR_NAMES]
        text_features = encode_short_text(judge, tokenize(frozen.tokenizer, texts))
        scores = judge.encode_image(picture, normalize=True) @ text_features.T
        right += COLOR_NAMES[scores.argmax().item()] == name
    return right / count


def evaluate(held_out: PictureSource, frozen: Conditioning, judge: CLIP) -> dict[str, dict[str, float]]:
    """Figures of the VAE at 128 x 128, on photographs and on scenes, and of the judge."""
    figures = {}
    for what, share in (("photographs", 1.0), ("scenes", 0.0)):
        held_out.photograph_share, held_out.recolored_share = share, 0.0
        figures[f"vae, {what}"] = evaluate_vae(frozen.vae, training_batch(held_out, 48, (128, 128), gray_share=0))
    held_out.photograph_share = 0.5
    judged = evaluate_judge(judge, frozen.tokenizer, draw_judge_batch(held_out, 256, spoilt=False))
    figures["judge, 256 pictures"] = judged
    figures["judge, objects"] = {"color_word": color_word_accuracy(judge, held_out, frozen)}
    return figures
