"""Gives the coarse colorizer a text tower that has read nothing but the training part.

Its first tower was that of a judge, and had seen titles of all parts. A new one learns to say of the training part's
captions what the first one says, and takes its place in the trained network.
"""

from argparse import Namespace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from diffcolor.coarse import tokenize
from diffcolor.identity import embedded_folder
from training.pictures import PictureSource
from training.runs import Budget, Run
from training.train_coarse import load_trained, start

BATCH_SIZE = 64
PEAK_RATE = 1e-3
SMALL = (32, 32)  # pictures are drawn for their captions alone
DRAWN = 60_000


def own_captions(source: PictureSource) -> list[str]:
    """The titles and captions of the photographs."""
    photographs = [one for group in source.photographs.values() for one in group]
    return [text for one in photographs for text in (one.title, one.caption) if text]


def captions_of(source: PictureSource, drawn: int, generator: np.random.Generator) -> list[str]:
    """Those of the photographs and of so many training pictures, each once: with repainted things, measured colours,
    scenes, denials and invented words."""
    found = own_captions(source)
    for _ in range(drawn):
        one = source.draw(SMALL, generator)
        found += [one.caption, *([one.twin.caption] if one.twin else [])]
    return list(dict.fromkeys(found))


def distance(tower: nn.Module, wanted: nn.Module, ids: Tensor, padding: Tensor) -> Tensor:
    """Mean squared distance of what both say of tokens (B, T), but for those that are `padding` (B, T)."""
    with torch.no_grad():
        target = wanted(ids).last_hidden_state
    words = ~padding[..., None]
    return ((tower(ids).last_hidden_state - target).square() * words).sum() / words.sum() / target.shape[-1]


def train_text(options: Namespace, source: PictureSource, held_out: PictureSource) -> None:
    """Imitates the tower of RUNS/coarse; goes on from the checkpoint in RUNS/text, if there is one.

    It begins with the tower of --tower, another training of the colorizer, or untrained.
    """
    tokenizer = CLIPTokenizer.from_pretrained(embedded_folder("mini") / "tokenizer")
    wanted = load_trained(options.runs / "coarse" / "coarse.pt").text.eval().requires_grad_(False)
    run = Run(options.runs / "text", (load_trained(options.tower) if options.tower else start()).text, {"": PEAK_RATE})
    said = captions_of(source, DRAWN, np.random.default_rng(options.seed))
    unread = tokenize(tokenizer, own_captions(held_out) or [""])
    generator = np.random.default_rng([options.seed, run.step])

    def check() -> dict[str, float]:
        with torch.no_grad():
            return {"unread": distance(run.average, wanted, *unread).item()}

    for _ in run.steps(Budget(minutes=options.minutes, decay_steps=options.decay_steps), check):
        chosen = [said[i] for i in generator.integers(0, len(said), BATCH_SIZE)]
        run.learn(distance(run.net, wanted, *tokenize(tokenizer, chosen)))
