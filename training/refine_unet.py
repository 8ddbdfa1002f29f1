"""Trains the embedded U-Net on, so that it starts from coarse colours: the third version of the base model.

VAE and text tower stay those of the embedded model. Of each picture the pool holds three encodings: true colours, gray,
and the colours that the coarse colorizer gives it for its caption. Noisy latents are made of any of these, and the
target is always the true colours (see `train_unet.spoil_color` for why).
"""

import copy
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from diffcolor.base_model import embedded_folder, load_base_model, resolve_device
from diffcolor.coarse import load_coarse, paint_lab
from diffcolor.diffusion import encode
from diffcolor.prompts import embed_prompts
from training.colors import luma, to_lab
from training.runs import log, update_average
from training.scanning import age
from training.shoots import read_pack
from training.stamps import load_stamps, split_stamps
from training.train_coarse import Source
from training.train_unet import BATCH_SIZE, COLOR_WEIGHT, Pool, color_axes, velocity_towards

PEAK_RATE = 2e-4
SHAPES = {(128, 128): 0.5, (96, 160): 0.3, (160, 96): 0.2}  # of the pictures, with their shares
STARTS = (0.75, 0.15, 0.1)  # shares of noisy latents made of coarse colours, of gray and of the true colours
AT_ONCE = 8


@dataclass(kw_only=True)
class StartPool(Pool):
    """A pool with the latents of coarse colours."""

    starts: Tensor


def encode_starts(options: Namespace, shape: tuple[int, int], count: int) -> StartPool:
    """Draws and encodes `count` pictures of (H, W) `shape`."""
    base, coarse = load_base_model(), load_coarse()
    stamps = split_stamps(load_stamps(options.stamps))[0]
    source = Source(photographs=read_pack(options.pack, "train"), stamps=stamps, seed=[options.seed])
    generator = np.random.default_rng([options.seed, *shape])
    parts: dict[str, list[Tensor]] = {"latents": [], "grays": [], "starts": []}
    captions: list[str] = []
    for _ in range(0, count, AT_ONCE):
        pictures, said, _ = zip(*(source.draw(shape, generator) for _ in range(AT_ONCE)), strict=True)
        gray = torch.from_numpy(np.stack([age(luma(picture), generator) for picture in pictures]))[:, None]
        ab = torch.from_numpy(np.stack([to_lab(picture)[..., 1:].astype(np.float32) for picture in pictures]))
        known = {
            "latents": paint_lab(gray, ab.permute(0, 3, 1, 2)),
            "grays": gray.expand(-1, 3, -1, -1),
            "starts": coarse.colorize(gray, said),
        }
        with torch.no_grad():
            for name, rgb in known.items():
                parts[name].append(encode(base, rgb).half())
        captions += said
    return StartPool(captions=captions, **{name: torch.cat(some) for name, some in parts.items()})


def write_pools(options: Namespace) -> None:
    """Writes RUNS/starts/SHAPE-SEED.pt for each shape; `options.pictures` altogether."""
    folder = options.runs / "starts"
    folder.mkdir(parents=True, exist_ok=True)
    for shape, share in SHAPES.items():
        pool = encode_starts(options, shape, AT_ONCE * round(options.pictures * share / AT_ONCE))
        path = folder / f"{shape[0]}x{shape[1]}-{options.seed}.pt"
        torch.save(vars(pool), path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)


def draw(pool: StartPool, generator: np.random.Generator) -> tuple[Tensor, Tensor, list[str]]:
    """The latents wanted, those that are noised, and the captions."""
    chosen = generator.integers(0, len(pool.captions), BATCH_SIZE)
    latents = pool.latents[chosen].float()
    kinds = torch.from_numpy(generator.choice(3, BATCH_SIZE, p=STARTS))[:, None, None, None]
    starts, grays = pool.starts[chosen].float(), pool.grays[chosen].float()
    noised = torch.where(kinds == 0, starts, torch.where(kinds == 1, grays, latents))
    return latents, noised, ["" if generator.random() < 0.1 else pool.captions[i] for i in chosen]


def draw_timesteps(generator: np.random.Generator) -> Tensor:
    """Mostly those that sampling from coarse colours passes."""
    early = generator.integers(20, 250, BATCH_SIZE)
    return torch.from_numpy(
        np.where(generator.random(BATCH_SIZE) < 0.75, early, generator.integers(20, 1000, BATCH_SIZE))
    )


def refine_unet(options: Namespace) -> None:
    """Goes on from the checkpoint in RUNS/refined, else from the embedded U-Net; options as of `train_coarse`."""
    device, out = torch.device(resolve_device(options.device)), options.runs / "refined"
    out.mkdir(parents=True, exist_ok=True)
    base = load_base_model(device=device)
    unet = UNet2DConditionModel.from_pretrained(embedded_folder("mini") / "unet", torch_dtype=torch.float32)
    unet = unet.to(device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(unet).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    step, path = 0, out / "unet.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location=device)
        unet.load_state_dict(saved["unet"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    pools = [StartPool(**torch.load(file)) for file in sorted((options.runs / "starts").glob("*.pt"))]
    shares = np.array([len(pool.captions) for pool in pools], float)
    alphas, axes = base.alphas_cumprod, color_axes(pools).to(device)
    generator = np.random.default_rng([options.seed, step])
    torch.manual_seed(int(generator.integers(2**63)))
    first, began, told, losses = step, time.monotonic(), time.monotonic(), []

    def save() -> None:
        state = {"unet": unet.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"step": step}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
        log(out, step=step, loss=float(np.mean(losses[-200:] or [0])), minutes=(time.monotonic() - began) / 60)

    while (
        step - first < options.decay_steps if options.decay_steps else time.monotonic() - began < 60 * options.minutes
    ):
        latents, noised, captions = draw(pools[generator.choice(len(pools), p=shares / shares.sum())], generator)
        timesteps = draw_timesteps(generator)
        noisy, velocity = velocity_towards(latents, noised, alphas[timesteps])
        share = 1 - (step - first) / options.decay_steps if options.decay_steps else 1.0
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, (step - first + 1) / 100) * share
        noisy = noisy.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            predicted = unet(noisy, timesteps.to(device), embed_prompts(base, captions)).sample.float()
        weights = (1 - alphas[timesteps])[:, None, None, None].clamp(min=0.05).to(device)
        error = (predicted - velocity.to(device)) * weights.sqrt()
        along = torch.einsum("bchw,ck->bkhw", error, axes)
        loss = (error.square().sum(1) + (COLOR_WEIGHT - 1) * along.square().sum(1)).mean() / error.shape[1]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        step += 1
        update_average(average, unet, step, 0.998)
        losses.append(loss.item())
        if time.monotonic() - told > 300:
            save()
            told = time.monotonic()
    save()


def export_unet(runs: Path, out: Path) -> None:
    """Writes the averaged weights of the last checkpoint to `out`/mini/unet, in float16."""
    unet = UNet2DConditionModel.from_pretrained(embedded_folder("mini") / "unet")
    unet.load_state_dict(torch.load(runs / "refined" / "unet.pt", weights_only=True, map_location="cpu")["average"])
    unet.half().save_pretrained(out / "mini" / "unet")
