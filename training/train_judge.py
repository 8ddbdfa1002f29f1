"""Trains the judge: a small CLIP whose text tower also conditions the U-Net."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from training.pictures import PictureSource, stacked
from training.prompts import GRAY, contradict, contradictions, spoil
from training.runs import Budget, Run
from training.tokenizer import CONTEXT_LENGTH

BATCH_SIZE = 96
IMAGE_SIZE = 64
PIXEL_MEAN, PIXEL_STD = (0.45, 0.44, 0.42), (0.27, 0.26, 0.26)


def judge_config(vocabulary: int) -> dict:
    """The contents of open_clip_config.json."""
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": IMAGE_SIZE, "layers": 4, "width": 192, "head_width": 48, "patch_size": 8},
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": vocabulary,
                "width": 192,
                "heads": 4,
                "layers": 3,
                "hf_tokenizer_name": "mini",
            },
        },
        "preprocess_cfg": {
            "mean": list(PIXEL_MEAN),
            "std": list(PIXEL_STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def build_judge(vocabulary: int) -> CLIP:
    """The untrained judge."""
    config = judge_config(vocabulary)["model_cfg"]
    text = {name: value for name, value in config["text_cfg"].items() if name != "hf_tokenizer_name"}
    return CLIP(embed_dim=config["embed_dim"], vision_cfg=config["vision_cfg"], text_cfg=text)


def normalize(pictures: np.ndarray | Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] to what the judge's image tower takes."""
    pictures = torch.as_tensor(pictures)
    return (pictures - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]


def tokenize(tokenizer: CLIPTokenizer, captions: list[str], padding: str | bool = True) -> Tensor:
    """Captions to ids (B, L); L is the longest's length, or 48 with `padding="max_length"`."""
    encoded = tokenizer(captions, padding=padding, truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt")
    return encoded.input_ids


def draw_judge_batch(
    source: PictureSource, count: int, generator: np.random.Generator, spoilt: bool = True
) -> tuple[Tensor, list[str]]:
    """Normalized pictures (B, 3, 64, 64), some of them spoilt, and their captions."""
    drawn = list(source.draw_named((IMAGE_SIZE, IMAGE_SIZE), count, generator))
    if spoilt:
        drawn = [spoil(picture, caption, generator) for picture, caption in drawn]
    return normalize(stacked([picture for picture, _ in drawn])), [caption for _, caption in drawn]


def contrastive_loss(image_features: Tensor, text_features: Tensor, wrong_features: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE both ways, the wrong captions nobody's.

    Pictures of one caption are not told apart: their text features are the same, and nothing is gained by it.

    Args:
        image_features, text_features: (B, D), unit norm.
        wrong_features: (M, D), unit norm, captions that contradict some of the pictures; M may be 0.
        scale: of the cosines.
    """
    logits = scale * image_features @ text_features.T
    with_wrong = torch.cat([logits, scale * image_features @ wrong_features.T], 1)
    own = torch.arange(len(logits))
    return (functional.cross_entropy(with_wrong, own) + functional.cross_entropy(logits.T, own)) / 2


def encode_short_text(judge: CLIP, ids: Tensor) -> Tensor:
    """`judge.encode_text(ids, normalize=True)` for ids (B, L), L <= 48; padding changes nothing in a causal tower."""
    length = ids.shape[1]
    hidden = judge.token_embedding(ids) + judge.positional_embedding[:length]
    hidden = judge.ln_final(judge.transformer(hidden, attn_mask=judge.attn_mask[:length, :length]))
    pooled = hidden[torch.arange(len(ids)), ids.argmax(-1)] @ judge.text_projection
    return functional.normalize(pooled, dim=-1)


@torch.no_grad()
def evaluate_judge(judge: CLIP, tokenizer: CLIPTokenizer, batch: tuple[Tensor, list[str]]) -> dict[str, float]:
    """64-way retrieval (duplicates count), how often colour and gray versions side with the right caption, and how
    often a caption beats itself with a colour word wrong.
    """
    pictures, captions = batch
    gray_text = encode_short_text(judge, tokenize(tokenizer, list(GRAY[:1])))
    texts = encode_short_text(judge, tokenize(tokenizer, captions))
    images = judge.encode_image(pictures, normalize=True)
    std, mean = torch.tensor(PIXEL_STD)[:, None, None], torch.tensor(PIXEL_MEAN)[:, None, None]
    luma = ((pictures * std + mean) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    grays = judge.encode_image(normalize(luma.expand(-1, 3, -1, -1)), normalize=True)
    best = (images @ texts.T).argmax(1).tolist()
    generator = np.random.default_rng(0)
    wrong = [contradict(caption, generator) for caption in captions]
    named = [i for i, text in enumerate(wrong) if text]
    wrong_texts = encode_short_text(judge, tokenize(tokenizer, [text for text in wrong if text]))
    right = (images[named] * texts[named]).sum(1) > (images[named] * wrong_texts).sum(1)
    return {
        "color_words_right": right.float().mean().item(),
        "top1": sum(captions[i] == captions[k] for i, k in enumerate(best)) / len(best),
        "color_right": ((images * texts).sum(1) > (images @ gray_text.T)[:, 0]).float().mean().item(),
        "gray_right": ((grays * texts).sum(1) < (grays @ gray_text.T)[:, 0]).float().mean().item(),
    }


def train_judge(options: Namespace, source: PictureSource, held_out: PictureSource, tokenizer: CLIPTokenizer) -> None:
    """Goes on from the checkpoint in RUNS/judge, if there is one; the captions keep to `source`."""
    judge = build_judge(len(tokenizer))
    run = Run(options.runs / "judge", judge, {"": 1e-3}, memory=0.99)
    generator = np.random.default_rng([options.seed, run.step])
    checked = draw_judge_batch(held_out, 64, np.random.default_rng(1), spoilt=False)
    budget = Budget(minutes=options.minutes, decay_steps=options.decay_steps)
    for _ in run.steps(budget, lambda: evaluate_judge(run.average, tokenizer, checked)):
        pictures, captions = draw_judge_batch(source, BATCH_SIZE, generator)
        wrong = contradictions(captions, generator)
        with torch.autocast("cpu", torch.bfloat16):
            images = judge.encode_image(pictures)
            texts = encode_short_text(judge, tokenize(tokenizer, captions + wrong))
        images, texts = (functional.normalize(features.float(), dim=-1) for features in (images, texts))
        run.learn(contrastive_loss(images, texts[:BATCH_SIZE], texts[BATCH_SIZE:], judge.logit_scale.exp()))
        with torch.no_grad():
            judge.logit_scale.clamp_(0, 4.6052)


def write_judge(folder: Path, state: dict[str, Tensor], vocabulary: int) -> None:
    """Writes open_clip_config.json and the float16 weights; the tokenizer's files are added by the caller."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(judge_config(vocabulary), indent=2) + "\n")
    halves = {name: value.half().contiguous() for name, value in state.items() if value.is_floating_point()}
    save_file(halves, str(folder / "open_clip_model.safetensors"))
