"""Trains the coarse colorizer: gray and a caption to a*b*, by a regression that counts vivid places more."""

import copy
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import CLIPTextConfig, CLIPTokenizer

from diffcolor.base_model import embedded_folder, resolve_device
from diffcolor.coarse import CoarseConfig, CoarseNet, save_coarse, tokenize
from training.colors import luma, to_lab
from training.pictures import vary
from training.runs import log, update_average
from training.scanning import age, mount
from training.scenes import compose_scene
from training.shoots import PHOTOGRAPHS, Captioned, read_pack
from training.stamps import Stamp, load_stamps, split_stamps
from training.wording import colored_label, describe, recolor_named

BATCH_SIZE = 24
RATES = {"decoder": 5e-4, "text": 4e-4, "encoder": 1e-4}
WARMUP = 200
SHAPES = ((128, 128), (128, 160), (160, 128), (128, 192), (160, 160))
SHARES = {
    "kodachrome": 0.42,
    "various": 0.2,
    "small": 0.11,
    "clothing": 0.07,
    "flowers": 0.08,
    "grocery": 0.05,
    "portraits": 0.07,
}
SCENES = 0.14  # of the pictures
RECOLORED = 0.8  # of the photographs whose caption names colours
MOUNTED = 0.08
TEXT_SETTINGS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "projection_dim", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
CHECK_EVERY = 3  # of the validation part's photographs


def crop(pixels: NDArray[np.uint8], shape: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float32]:
    """A random part of a photograph at a size: 70 to 100 % of the largest that fits, flipped half the time."""
    height, width = pixels.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * generator.uniform(0.7, 1.0)
    part_h, part_w = min(height, round(shape[0] * scale)), min(width, round(shape[1] * scale))
    top, left = int(generator.integers(0, height - part_h + 1)), int(generator.integers(0, width - part_w + 1))
    part = pixels[top : top + part_h, left : left + part_w]
    part = cv2.resize(part, shape[::-1], interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC)
    return np.ascontiguousarray(part[:, ::-1] if generator.random() < 0.5 else part, dtype=np.float32) / 255


@dataclass(frozen=True, kw_only=True)
class Source(IterableDataset):
    """Draws training batches without end, in a process beside the training."""

    photographs: dict[str, list[Captioned]]
    stamps: list[Stamp]
    seed: list[int]

    def __iter__(self) -> Iterator[tuple[Tensor, list[str], Tensor, Tensor]]:
        worker = get_worker_info()
        generator = np.random.default_rng([*self.seed, worker.id if worker else 0])
        while True:
            yield self.batch(generator)

    def draw(
        self, shape: tuple[int, int], generator: np.random.Generator
    ) -> tuple[NDArray[np.float32], str, NDArray[np.float32]]:
        """A picture (H, W, 3), its caption, and how much more than usual each place counts (H, W)."""
        extra = np.zeros(shape, np.float32)
        names = [name for name in SHARES if name in self.photographs]
        shares = np.array([SHARES[name] for name in names])
        name = str(generator.choice(names, p=shares / shares.sum()))
        one = self.photographs[name][generator.integers(len(self.photographs[name]))]
        picture = vary(crop(one.pixels, shape, generator), generator)
        if generator.random() < SCENES:
            picture, caption = compose_scene(self.stamps, shape, picture, generator)
            caption = caption if generator.random() > 0.15 else ""
        else:
            named = one.caption or colored_label(one.title, picture)
            changed = recolor_named(named, picture, generator) if generator.random() < RECOLORED else None
            if changed:
                caption, picture, mask = changed
                extra += mask
            else:
                title = named if not one.caption and generator.random() < 0.6 else one.title
                caption = describe(title, one.caption, picture, generator)
        if generator.random() < MOUNTED:
            picture, outside = mount(picture, generator)
            extra = np.where(outside, np.float32(0.7), 0)
        return picture, caption, extra

    def batch(self, generator: np.random.Generator, size: int = BATCH_SIZE) -> tuple[Tensor, list[str], Tensor, Tensor]:
        """Grays (B, 1, H, W), captions, a*b* (B, 2, H/4, W/4), extra weights (B, 1, H/4, W/4)."""
        shape = SHAPES[generator.integers(len(SHAPES))]
        pictures, captions, extras = zip(*(self.draw(shape, generator) for _ in range(size)), strict=True)
        grays = torch.from_numpy(np.stack([age(luma(picture), generator) for picture in pictures]))[:, None]
        ab = torch.from_numpy(np.stack([to_lab(picture)[..., 1:].astype(np.float32) for picture in pictures]))
        extra = torch.from_numpy(np.stack(extras))[:, None]
        return grays, list(captions), F.avg_pool2d(ab.permute(0, 3, 1, 2), 4), F.avg_pool2d(extra, 4)


def color_loss(predicted: Tensor, truth: Tensor, extra: Tensor) -> Tensor:
    """Charbonnier on a*b*, weighted with the truth's chroma: without weights a wash of brown wins."""
    weights = 0.3 + (truth.norm(dim=1, keepdim=True) / 20).clamp_max(2.5) + extra
    return (weights * ((predicted - truth).square().sum(1, keepdim=True) + 1).sqrt()).mean()


def start(pretrained: Path | None = None) -> CoarseNet:
    """The network with an ImageNet encoder (EfficientNet-Lite0), if given, and an untrained text tower."""
    text = CLIPTextConfig.from_pretrained(embedded_folder("mini") / "text_encoder")
    net = CoarseNet(CoarseConfig(text={name: getattr(text, name) for name in TEXT_SETTINGS}))
    if pretrained:
        import timm

        whole = timm.create_model(net.config.encoder, pretrained=False)
        values = torch.load(pretrained, weights_only=True).values()  # the same layers in the same order
        named = dict(zip(whole.state_dict(), values, strict=True))
        wanted = net.encoder.state_dict()
        net.encoder.load_state_dict({name: named[name] for name in wanted})
    return net


def groups(net: CoarseNet) -> list[dict[str, Any]]:
    """The optimizer's groups; the encoder's first two levels stay as ImageNet made them."""
    frozen = [net.encoder.conv_stem, net.encoder.bn1, *list(net.encoder.blocks)[:2]]
    for module in frozen:
        module.requires_grad_(False)
    parts: dict[str, list[nn.Parameter]] = {name: [] for name in RATES}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            part = name.split(".")[0]
            parts[part if part in RATES else "decoder"].append(parameter)
    return [{"params": parameters, "lr": RATES[name], "peak": RATES[name]} for name, parameters in parts.items()]


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


def train_coarse(options: Namespace) -> None:
    """Goes on from the checkpoint in RUNS/coarse, if there is one; writes one every 7 minutes and at the end.

    Args:
        options: of `python -m training coarse`. `minutes`: trains so long at the full rates, unless `decay_steps` is
            given: then so many steps while the rates fall to zero, the end of the training.
    """
    device, out = torch.device(resolve_device(options.device)), options.runs / "coarse"
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(embedded_folder("mini") / "tokenizer")
    net = start(options.encoder).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(net).eval()
    optimizer = torch.optim.AdamW(groups(net), betas=(0.9, 0.98), weight_decay=0.02)
    step, path = 0, out / "coarse.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location=device)
        net.load_state_dict(saved["net"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    stamps = split_stamps(load_stamps(options.stamps))[0]
    source = Source(photographs=read_pack(options.pack, "train"), stamps=stamps, seed=[options.seed, step])
    held_out, decay_steps = read_pack(options.pack, "validation"), options.decay_steps
    checked = [one for name in PHOTOGRAPHS for one in held_out.get(name, [])][::CHECK_EVERY]
    first, began, told, losses = step, time.monotonic(), time.monotonic(), []

    def save() -> None:
        state = {
            "net": net.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
        figures = validate(average, tokenizer, checked, "") | validate(average, tokenizer, checked, "title")
        figures |= validate(average, tokenizer, checked, "caption")
        log(
            out,
            step=step,
            loss=float(np.mean(losses[-100:] or [0])),
            minutes=(time.monotonic() - began) / 60,
            **figures,
        )

    for grays, captions, truth, extra in DataLoader(
        source, batch_size=None, num_workers=options.workers, prefetch_factor=4 if options.workers else None
    ):
        if step - first >= decay_steps if decay_steps else time.monotonic() - began > 60 * options.minutes:
            break
        ids, padding = tokenize(tokenizer, captions)
        share = (1 - (step - first) / decay_steps) if decay_steps else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, (step + 1) / WARMUP) * share
        net.train()
        net.encoder.eval()  # its batch statistics stay ImageNet's
        grays = grays.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):  # on a CPU it is slower
            predicted = net(grays, ids.to(device), padding.to(device))
        loss = color_loss(predicted.float(), truth.to(device), extra.to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 3.0)
        optimizer.step()
        step += 1
        update_average(average, net, step, 0.998)
        losses.append(loss.item())
        if time.monotonic() - told > 420:
            save()
            told = time.monotonic()
    save()


def export_coarse(runs: Path, out: Path) -> None:
    """Writes the averaged weights of the last checkpoint to `out`/coarse."""
    net = start()
    net.load_state_dict(torch.load(runs / "coarse" / "coarse.pt", weights_only=True, map_location="cpu")["average"])
    save_coarse(out / "coarse", net)
