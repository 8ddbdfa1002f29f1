"""What the method takes on a GPU, in ten minutes: rates, memory and idle time of each kind of step, and others' loops.

python -m benchmarks.gpu [--base-model FOLDER] [--judge NAME] [--seconds 480] [-k 1 4 8 16] [-o result.json]

Without --base-model it makes Stable Diffusion 1.5's shape and CLIP ViT-B/32 with random weights, which cost the same as
trained ones. Every cell is measured for some seconds after three steps to warm up; one that runs out of memory says so.
Results are written after each cell, so that nothing is lost when the machine goes. On a CPU it runs, too, slowly.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import RANK, TOKENS, sd15, vit_b_32
from benchmarks.rivals import imagic, ours
from diffcolor.base_model import BaseModel, load_base_model, resolve_device
from diffcolor.color_prior import contrast
from diffcolor.conditioning import Conditioning
from diffcolor.config import FitConfig
from diffcolor.diffusion import add_noise, decode, decode_for_loss, encode, guide, predict_original
from diffcolor.judge import Judge, load_judge
from diffcolor.lora import attached_lora, init_lora
from diffcolor.losses import denoising_loss
from diffcolor.luminance import replace_luma
from diffcolor.precision import freeze

_WARM = 3
_GIB = 2**30


class Bench:
    """Steps of K images on one device.

    Args:
        share_of: says how many seconds there are for a cell.
    """

    def __init__(self, base: BaseModel, judge: Judge, share_of: Callable[[], float]) -> None:
        self.base, self.judge, self.share_of = base, judge, share_of
        self.device = base.device
        self.side = round(base.training_area**0.5) // base.size_multiple * base.size_multiple
        self.width = base.unet.config.cross_attention_dim

    def _inputs(self, k: int) -> tuple[Tensor, Tensor, Conditioning, Tensor]:
        """Latents, timesteps, embeddings, gray."""
        small = self.side // self.base.latent_factor
        channels = self.base.unet.config.in_channels
        latents = torch.randn(k, channels, small, small, device=self.device)
        timesteps = torch.full((k,), 500, device=self.device)
        embeds = torch.randn(k, TOKENS, self.width, device=self.device)
        return (
            latents,
            timesteps,
            Conditioning({"embeds": embeds}),
            torch.rand(k, 1, self.side, self.side, device=self.device),
        )

    def stage_1(self, k: int) -> Callable[[], None]:
        """A step with the contrastive term."""
        width = len(self.judge.image_features(torch.rand(1, 3, self.side, self.side, device=self.device))[0])
        positive, negatives = (
            torch.nn.functional.normalize(torch.randn(shape, device=self.device), dim=-1)
            for shape in ((k, width), (k, 5, width))
        )
        return self._step(
            k,
            lambda predicted, gray: contrast(self.base, self.judge, FitConfig(), predicted, gray, positive, negatives),
        )

    def stage_2(self, k: int) -> Callable[[], None]:
        """A step of the adapters, and of stage 1 without the contrastive term."""
        return self._step(k, None)

    def _step(self, k: int, judged: Callable[[Tensor, Tensor], Tensor] | None) -> Callable[[], None]:
        latents, timesteps, embeds, gray = self._inputs(k)
        lora = init_lora(self.base.unet, RANK, [torch.Generator() for _ in range(k)])
        values = lora.values.requires_grad_(True)
        optimizer = torch.optim.Adam([values], lr=1e-4)

        def step() -> None:
            optimizer.zero_grad()
            noise = torch.randn_like(latents)
            x_t = add_noise(self.base, latents, noise, timesteps)
            with attached_lora(self.base.unet, lora):
                output = self.base.predict(x_t, timesteps, embeds)
            loss = denoising_loss(output, noise)
            if judged:
                loss = loss + judged(predict_original(self.base, x_t, output, timesteps), gray)
            loss.sum().backward()
            optimizer.step()

        return step

    def embedding(self, k: int) -> Callable[[], None]:
        """A step of e_opt."""
        latents, timesteps, embeds, _ = self._inputs(k)
        embeds["embeds"].requires_grad_(True)
        lora = init_lora(self.base.unet, RANK, [torch.Generator() for _ in range(k)])
        optimizer = torch.optim.Adam([embeds["embeds"]], lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            noise = torch.randn_like(latents)
            with attached_lora(self.base.unet, lora):
                output = self.base.predict(add_noise(self.base, latents, noise, timesteps), timesteps, embeds)
            denoising_loss(output, noise).sum().backward()
            optimizer.step()

        return step

    def sampling(self, n: int, luminance: bool) -> Callable[[], None]:
        """A step of n pictures with guidance."""
        latents, timesteps, embeds, gray = self._inputs(n)
        lora = init_lora(self.base.unet, RANK, [torch.Generator() for _ in range(n)])

        @torch.no_grad()
        def step() -> None:
            with attached_lora(self.base.unet, lora):
                output = guide(self.base, latents, timesteps, embeds, embeds.of([0]), 3.0)
            if luminance:
                original = predict_original(self.base, latents, output, timesteps)
                encode(self.base, replace_luma(decode(self.base, original), gray))

        return step

    def part(self, name: str, k: int) -> Callable[[], None]:
        """Forward and backward of the VAE's decoder, of the loss's, or of the judge."""
        latents, _, _, _ = self._inputs(k)
        given = latents if name != "judge" else torch.rand(k, 3, self.side, self.side, device=self.device)
        given = given.requires_grad_(True)
        work = {
            "vae": lambda: decode(self.base, given),
            "loss decoder": lambda: decode_for_loss(self.base, given),
            "judge": lambda: self.judge.image_features(given),
        }[name]
        return lambda: work().sum().backward()

    # Measuring -------------------------------------------------------------------------------------------------------

    def measured(self, step: Callable[[], None], images: int) -> dict[str, float]:
        """Rates of a step; median over as many as fit into this cell's time."""
        for _ in range(_WARM):
            step()
        self._wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with FlopCounterMode(display=False) as counter:
            step()
        self._wait()
        times: list[float] = []
        ends = time.monotonic() + self.share_of()
        while len(times) < 3 or time.monotonic() < ends:
            started = time.perf_counter()
            step()
            self._wait()
            times.append(time.perf_counter() - started)
        median = statistics.median(times)
        found = {
            "ms": 1e3 * median,
            "ms_spread": 1e3 * (max(times) - min(times)),
            "images_per_s": images / median,
            "tflops": counter.get_total_flops() / median / 1e12,
        }
        if self.device.type == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated() / _GIB
            found |= self._idle(step)
        return {name: round(value, 3) for name, value in found.items()}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _idle(self, step: Callable[[], None]) -> dict[str, float]:
        """The share of the time in which the GPU runs no kernel, and kernels per step."""
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            started = time.perf_counter()
            for _ in range(3):
                step()
            self._wait()
            wall = time.perf_counter() - started
        kernels = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        busy = sum(event.device_time_total for event in kernels) / 1e6
        return {"idle": max(0.0, 1 - busy / wall), "kernels": len(kernels) / 3}


def machine(device: torch.device) -> dict[str, float]:
    """What the chip does with plain products and copies."""
    size = 8192 if device.type == "cuda" else 1024
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.randn(size, size, device=device, dtype=dtype)
        found[f"matmul_{str(dtype).removeprefix('torch.')}_tflops"] = (
            2 * size**3 / _seconds(device, lambda a=a: a @ a) / 1e12
        )  # type: ignore[misc]
    a = torch.empty(size * size, device=device)
    found["copy_gb_s"] = 2 * a.numel() * 4 / _seconds(device, a.clone) / 1e9
    small = torch.empty(1, device=device)
    found["launches_per_s"] = 100 / _seconds(device, lambda: [small.add_(1) for _ in range(100)])
    return {name: round(value, 1) for name, value in found.items()}


def _seconds(device: torch.device, work: Callable[[], Any]) -> float:
    for _ in range(3):
        work()
    times = []
    for _ in range(10):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def sameness(bench: Bench, k: int, steps: int = 20) -> dict[str, float]:
    """How far adapters of equal images are apart after some steps: twice the same run, and one image of it alone."""

    def trained(n: int) -> Tensor:
        torch.manual_seed(0)
        latents, timesteps, embeds, _ = bench._inputs(k)
        noises = torch.randn(steps, *latents.shape, device=bench.device)
        latents, timesteps, embeds = latents[:n], timesteps[:n], embeds.of(slice(n))
        lora = init_lora(bench.base.unet, RANK, [torch.Generator().manual_seed(image) for image in range(n)])
        values = lora.values.requires_grad_(True)
        optimizer = torch.optim.Adam([values], lr=1e-4)
        for noise in noises[:, :n]:
            optimizer.zero_grad()
            with attached_lora(bench.base.unet, lora):
                output = bench.base.predict(add_noise(bench.base, latents, noise, timesteps), timesteps, embeds)
            denoising_loss(output, noise).sum().backward()
            optimizer.step()
        return values.detach()[0]

    first, again, alone = trained(k), trained(k), trained(1)
    return {"again": float((first - again).abs().max()), "alone": float((first - alone).abs().max())}


def cells(bench: Bench, ks: list[int]) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Names of cells, and what measures them."""
    yield "machine", lambda: machine(bench.device)
    for kind in ("stage_1", "stage_2", "embedding"):
        for k in ks:
            yield f"{kind}, K = {k}", lambda kind=kind, k=k: bench.measured(getattr(bench, kind)(k), k)  # type: ignore[misc]
    if bench.base.loss_decoder is not None:
        full = Bench(replace(bench.base, loss_decoder=None), bench.judge, bench.share_of)
        for k in ks:
            yield f"stage_1 with the whole VAE, K = {k}", lambda k=k: full.measured(full.stage_1(k), k)  # type: ignore[misc]
    for name in ("vae", "loss decoder", "judge"):
        yield f"{name}, K = 4", lambda name=name: bench.measured(bench.part(name, 4), 4)  # type: ignore[misc]
    for n in (4, 8):
        for luminance in (True, False):
            label = f"sampling, N = {n}{', luminance' if luminance else ''}"
            yield label, lambda n=n, luminance=luminance: bench.measured(bench.sampling(n, luminance), n)  # type: ignore[misc]
    yield "sameness, K = 4", lambda: sameness(bench, 4)
    pictures = torch.rand(max(ks), 3, bench.side, bench.side, device=bench.device)
    embeds = torch.randn(max(ks), TOKENS, bench.width, device=bench.device)
    for adapters in (False, True):
        work = lambda adapters=adapters: imagic(bench.base, pictures[:1], embeds[:1], 8, 16, adapters=adapters)  # noqa: E731
        yield f"Imagic, {'adapters of peft' if adapters else 'whole U-Net'}", lambda work=work: _whole(bench, work, 1)  # type: ignore[misc]
    for k in ks:
        yield (
            f"stage 2 by us, K = {k}",
            lambda k=k: _whole(bench, lambda: ours(bench.base, pictures[:k], embeds[:k], 8, 16), k),
        )  # type: ignore[misc]


def _whole(bench: Bench, work: Callable[[], None], images: int) -> dict[str, float]:
    """24 steps of some images, once to warm up and once for the clock."""
    work()
    bench._wait()
    started = time.perf_counter()
    work()
    bench._wait()
    return {"s_per_image": round((time.perf_counter() - started) / images, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model")
    parser.add_argument("--judge", default="mini")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("-k", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("-o", type=Path, help="JSON")
    given = parser.parse_args()
    device = torch.device(resolve_device(given.device))
    if given.base_model:
        base, judge = load_base_model(given.base_model, device), load_judge(given.judge, device)
    else:
        base, judge = _at_random(device)
    todo: list[tuple[str, Callable[[], dict[str, float]]]] = []
    bench = Bench(base, judge, lambda: given.seconds / 3 / len(todo))  # the rest is for what is not measured
    todo += cells(bench, given.k)
    found: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "base": base.name,
        "side": bench.side,
        "precision": str(base.precision),
        "torch": torch.__version__,
    }
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n", flush=True)
    for name, measure in todo:
        try:
            found[name] = measure()
        except torch.OutOfMemoryError:
            found[name] = "out of memory"
        if device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"{name}: {found[name]}", flush=True)
        if given.o:
            given.o.write_text(json.dumps(found, indent=2))


def _at_random(device: torch.device) -> tuple[BaseModel, Judge]:
    """Stable Diffusion 1.5's shape on a device, with the tiny decoder in the loss."""
    with torch.device(device):
        base, judge = sd15(), vit_b_32()
    moved: dict[str, Any] = {
        part: freeze(getattr(base, part), device, base.precision) for part in ("unet", "vae", "loss_decoder")
    }
    moved |= {"device": device, "alphas_cumprod": base.alphas_cumprod.to(device)}
    mean, std = judge.mean.to(device), judge.std.to(device)
    model = freeze(judge.model, device, judge.precision)
    return replace(base, **moved), replace(judge, model=model, mean=mean, std=std, device=device)


if __name__ == "__main__":
    sys.exit(main())
