"""What the method costs at Stable Diffusion's shapes, counted without a GPU and without weights.

    python -m benchmarks.flops [--json] [--family sd15|sdxl ...]

The project's own functions run once on fake tensors (shapes without numbers), of Stable Diffusion 1.5 at 512x512 and
of Stable Diffusion XL at 1024x1024: floating point operations,
ATen kernels, bytes and the live memory of each kind of step are counted, and a preset's cost is put together from them.
The roofline is the time in which a chip could do it at best: every kernel takes the longer of its operations at the
chip's rate and its bytes at the memory's. Those are assumptions (an H100's round figures), not measurements.
"""

import argparse
import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import mean
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from diffcolor.base_model import BaseModel, StableDiffusion, StableDiffusionXL
from diffcolor.color_prior import contrast
from diffcolor.conditioning import Conditioning
from diffcolor.config import Config, FitConfig, Preset, SampleConfig, preset_for
from diffcolor.diffusion import (
    add_noise,
    decode,
    encode,
    guide,
    predict_original,
    training_target,
)
from diffcolor.judge import Judge
from diffcolor.lora import attached_lora, init_lora
from diffcolor.losses import denoising_loss
from diffcolor.luminance import replace_luma

TOKENS, RANK = 77, 8
PEAK = {torch.bfloat16: 790e12, torch.float32: 60e12}  # operations per second of matrix products
BANDWIDTH = 2.9e12  # bytes per second
_GIB = 2**30
_TAU = FitConfig(temperature=0.01)  # as the judge has it, whose number is not there
_NO_KERNEL = ("aten::detach", "aten::_unsafe_view", "aten::lift_fresh")


@dataclass
class Cost:
    """Of some kernels.

    Attributes:
        flops: floating point operations. kernels: ATen calls that are no views. seconds: by the roofline.
        peak: bytes, the most that lived at once.
    """

    flops: float = 0.0
    kernels: int = 0
    seconds: float = 0.0
    peak: int = 0


class _Counter(TorchDispatchMode):
    """Counts kernels, their roofline, and the storages that live."""

    def __init__(self, cost: Cost, weights: int) -> None:
        super().__init__()
        self.cost, self.live = cost, weights
        cost.peak = weights
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with FlopCounterMode(display=False) as counted:
            out = func(*args, **(kwargs or {}))
        name = func._schema.name
        if func.is_view or not name.startswith("aten::") or name in _NO_KERNEL:
            return out
        tensors = [one for one in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(one, Tensor)]
        made = [one for one in torch.utils._pytree.tree_leaves(out) if isinstance(one, Tensor)]
        flops = counted.get_total_flops()
        moved = sum(one.numel() * one.element_size() for one in tensors)
        peak = PEAK.get(made[0].dtype, PEAK[torch.float32]) if made else PEAK[torch.float32]
        self.cost.flops += flops
        self.cost.kernels += 1
        self.cost.seconds += max(flops / peak, moved / BANDWIDTH)
        for one in made:
            self._born(one.untyped_storage())
        return out

    def _born(self, storage: Any) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.live += size
        self.cost.peak = max(self.cost.peak, self.live)
        weakref.finalize(storage, self._died, size)

    def _died(self, size: int) -> None:
        self.live -= size


def _made(kind: Callable[..., torch.nn.Module], *arguments: Any, **settings: Any) -> torch.nn.Module:
    """A frozen model whose weights are made in bfloat16."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        return kind(*arguments, **settings).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False
    )


def sd15() -> StableDiffusion:
    """Stable Diffusion 1.5's shape in bfloat16, with a tiny decoder beside it."""
    unet = _made(UNet2DConditionModel, cross_attention_dim=768, sample_size=64, attention_head_dim=8)
    return StableDiffusion(unet=unet, **_parts("sd15"))


def sdxl() -> StableDiffusionXL:
    """Stable Diffusion XL's."""
    unet = _made(
        UNet2DConditionModel,
        cross_attention_dim=2048,
        sample_size=128,
        attention_head_dim=(5, 10, 20),
        block_out_channels=(320, 640, 1280),
        transformer_layers_per_block=(1, 2, 10),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1280 + 6 * 256,
    )
    return StableDiffusionXL(unet=unet, text_encoder_2=None, tokenizer_2=None, **_parts("sdxl"))


FAMILIES: dict[str, Callable[[], BaseModel]] = {"sd15": sd15, "sdxl": sdxl}


def conditioning(base: BaseModel, k: int, make: Callable[..., Tensor]) -> Conditioning:
    """What a U-Net reads, of numbers that do not matter."""
    tensors = {"embeds": make(k, TOKENS, base.unet.config.cross_attention_dim)}
    if isinstance(base, StableDiffusionXL):
        config = base.unet.config
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        tensors["pooled"] = make(k, pooled)
    return Conditioning(tensors)


def _parts(name: str) -> dict[str, Any]:
    """What both have: the VAE has one shape."""
    vae = _made(
        AutoencoderKL,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    scheduler = _scheduler()
    return {
        "vae": vae,
        "text_encoder": None,
        "tokenizer": None,
        "scheduler": scheduler,
        "name": name,
        "digest": "",
        "device": torch.device("cpu"),
        "precision": torch.bfloat16,
        "alphas_cumprod": scheduler.alphas_cumprod,
        "loss_decoder": _made(AutoencoderTiny),
    }


def vit_b_32() -> Judge:
    """CLIP ViT-B/32 in bfloat16."""
    clip = _made(open_clip.CLIP, **(open_clip.get_model_config("ViT-B-32") or {}))
    zero = torch.zeros(3, 1, 1)
    return Judge(
        model=clip,
        tokenize=SimpleNamespace(),
        image_size=(224, 224),
        mean=zero,
        std=zero + 1,
        name="ViT-B-32",
        digest="",
        device=torch.device("cpu"),
        precision=torch.bfloat16,
    )


def weights_bytes(*modules: Any) -> int:
    """Of all parameters."""
    return sum(one.numel() * one.element_size() for module in modules for one in module.parameters())


@contextmanager
def counted(weights: int) -> Iterator[Cost]:
    """Counts what runs inside."""
    cost = Cost()
    with _Counter(cost, weights):
        yield cost


class Shape:
    """Counts each kind of step of K images once.

    Attributes:
        tiny: with the tiny decoder in stage 1's loss.
    """

    def __init__(self, base: BaseModel, judge: Judge, k: int, tiny: bool) -> None:
        if not tiny:
            base = replace(base, loss_decoder=None)
        self.base, self.judge, self.k = base, judge, k
        self.lora = init_lora(base.unet, RANK, [torch.Generator() for _ in range(k)])
        latent = base.unet.config.sample_size
        self.side = latent * base.latent_factor
        self.latents = torch.empty(k, 4, latent, latent)
        self.timesteps = torch.full((k,), 500)
        self.e = conditioning(base, k, torch.empty)
        self.gray = torch.empty(k, 1, self.side, self.side)
        decoder = [base.loss_decoder] if tiny else []
        self.weights = weights_bytes(base.unet, base.vae, judge.model, *decoder)

    def step(self, compute: Callable[[], Tensor], *trained: Tensor) -> Cost:
        """A training step with Adam."""
        parameters = [tensor.requires_grad_(True) for tensor in trained]
        optimizer = torch.optim.Adam(parameters, lr=1e-4)
        with counted(self.weights + 3 * sum(one.numel() for one in parameters) * 4) as cost:
            compute().sum().backward()
            optimizer.step()
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        return cost

    def _predicted(self) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.empty_like(self.latents)
        x_t = add_noise(self.base, self.latents, noise, self.timesteps)
        with attached_lora(self.base.unet, self.lora):
            return x_t, noise, self.base.predict(x_t, self.timesteps, self.e)

    @cache  # noqa: B019 (it lives as long as the program)
    def stage_1(self, judged: bool) -> Cost:
        """One step of stage 1, with or without the contrastive term."""
        texts = torch.empty(self.k, 512), torch.empty(self.k, 5, 512)

        def loss() -> Tensor:
            x_t, noise, output = self._predicted()
            wanted = denoising_loss(output, training_target(self.base, self.latents, noise, self.timesteps))
            if judged:
                predicted = predict_original(self.base, x_t, output, self.timesteps)
                wanted = wanted + contrast(self.base, self.judge, _TAU, predicted, self.gray, *texts)
            return wanted

        return self.step(loss, self.lora.values)

    @cache  # noqa: B019 (it lives as long as the program)
    def stage_2(self, embedding: bool) -> Cost:
        """One step of stage 2: of e_opt, or of the adapters."""

        def loss() -> Tensor:
            _, noise, output = self._predicted()
            return denoising_loss(output, noise)

        return self.step(loss, *(self.e.tensors.values() if embedding else [self.lora.values]))

    def unet_forward(self) -> Cost:
        """The U-Net with adapters, once."""
        return self._count(lambda: self.base.predict(self.latents, self.timesteps, self.e))

    def _count(self, compute: Callable[[], Any]) -> Cost:
        with torch.no_grad(), attached_lora(self.base.unet, self.lora), counted(self.weights) as cost:
            compute()
        return cost

    def sampled(self, config: SampleConfig) -> list[tuple[Cost, float]]:
        """Sampling K pictures, with their encoding and decoding: costs, and how often each."""
        steps = max(1, round(config.num_inference_steps * config.strength))
        puts = -(-steps // config.luminance_every) if config.luminance_consistent else 0
        return [(self.guided(config.guidance_scale), steps), (self.decoded(), puts + 1), (self.encoded(), puts + 1)]

    @cache  # noqa: B019 (it lives as long as the program)
    def guided(self, guidance_scale: float) -> Cost:
        """The U-Net's part of a sampling step."""
        predict = partial(guide, self.base, self.latents, self.timesteps, self.e, self.e.of([0]))
        return self._count(partial(predict, guidance_scale))

    @cache  # noqa: B019 (it lives as long as the program)
    def decoded(self) -> Cost:
        """Latents to pictures with the scans' luminance."""
        return self._count(lambda: replace_luma(decode(self.base, self.latents), self.gray))

    @cache  # noqa: B019 (it lives as long as the program)
    def encoded(self) -> Cost:
        """Pictures to latents."""
        return self._count(lambda: encode(self.base, torch.empty(self.k, 3, self.side, self.side)))


def contrast_share(config: FitConfig, alphas: Sequence[float]) -> float:
    """The share of stage 1's steps that compute the contrastive term."""
    if config.contrastive_at == "all":
        return 1.0
    reach = config.primary.strength if config.timesteps == "sampling" else 1.0
    return mean(alphas[: max(1, round(reach * len(alphas)))])


def price(shape: Shape, config: Config, alphas: Sequence[float]) -> tuple[float, float]:
    """(FLOPs, roofline seconds) of one image with one prompt, at most: no stage ends early."""
    fit, share = config.fit, contrast_share(config.fit, alphas)
    parts = [
        (shape.stage_1(judged=True), fit.color_prior_steps * share),
        (shape.stage_1(judged=False), fit.color_prior_steps * (1 - share)),
        (shape.stage_2(embedding=True), fit.embedding_steps),
        (shape.stage_2(embedding=False), fit.in_context_steps),
        *shape.sampled(fit.primary),
        *((cost, times * len(config.etas)) for cost, times in shape.sampled(config.sample)),
    ]
    flops, seconds = (
        sum(getattr(cost, name) * times for cost, times in parts) / shape.k for name in ("flops", "seconds")
    )
    return flops, seconds


def figures(family: str) -> dict[str, Any]:
    """All that is printed of one of `FAMILIES`."""
    alphas = _scheduler().alphas_cumprod.tolist()  # of real numbers, before there are only fake ones
    with FakeTensorMode(allow_non_fake_inputs=True):
        base, judge = FAMILIES[family](), vit_b_32()
        shapes = {tiny: Shape(base, judge, 4, tiny) for tiny in (False, True)}
        found: dict[str, Any] = {}
        for preset in Preset:
            config = preset_for(preset, "any other")
            for tiny, suffix in ((False, ""), (True, "_tiny")):
                flops, seconds = price(shapes[tiny], config, alphas)
                found.setdefault(preset.value, {})[f"pflop{suffix}"] = round(flops / 1e15, 3)
                found[preset.value][f"roofline_s{suffix}"] = round(seconds, 2)
        found["unet_kernels"] = shapes[False].unet_forward().kernels
        for tiny, suffix in ((False, ""), (True, "_tiny")):
            found[f"stage1_peak_gib_k4{suffix}"] = round(shapes[tiny].stage_1(judged=True).peak / _GIB, 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    arguments = parser.parse_args()
    found = {family: figures(family) for family in arguments.family}
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for family, values in found.items():
        print(f"{family}, one prompt, K = 4, bfloat16; with a tiny decoder in the loss in brackets")
        for preset in Preset:
            one = values[preset.value]
            print(
                f"  {preset.value:9} {one['pflop']:7.3f} ({one['pflop_tiny']:.3f}) PFLOP"
                f"   roofline {one['roofline_s']:6.2f} ({one['roofline_s_tiny']:.2f}) s"
            )
        print(f"  kernels of a U-Net forward with adapters: {values['unet_kernels']}")
        peaks = values["stage1_peak_gib_k4"], values["stage1_peak_gib_k4_tiny"]
        print(f"  peak of a stage-1 step at K = 4: {peaks[0]} ({peaks[1]}) GiB")


if __name__ == "__main__":
    main()
