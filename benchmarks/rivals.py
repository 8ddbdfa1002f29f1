"""The same steps by us and as they are made elsewhere, as ratios in one run.

python -m benchmarks.rivals [--base-model mini] [--device auto] [-k 1 4 8] [--embedding 8] [--model 16]

Imagic (arXiv 2210.09276), which the paper's stage 2 is, as the community's loops make it: one image at a time, an
optimizer for the embedding, then one for the whole U-Net, and a look at the loss after every step. The same with the
adapters of peft instead of the whole U-Net. And ours: stage 2 of K images in lockstep. All make the same numbers of
steps, of the same size, at the precision at which the base model is loaded (the whole U-Net is trained in float32).
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcolor.base_model import BaseModel, load_base_model, resolve_device
from diffcolor.conditioning import Conditioning
from diffcolor.config import ANTI_COLOR_PROMPTS, FitConfig, SampleConfig
from diffcolor.diffusion import add_noise, encode
from diffcolor.in_context import fine_tune, optimize_embedding
from diffcolor.lora import target_layers
from diffcolor.prompts import embed_prompts
from diffcolor.scan import Scan, ScanBatch
from diffcolor.training_state import TrainingState

PROMPT = "a photo of a barn by a road"
RANK = 8


def reconstruction_step(base: BaseModel, unet: torch.nn.Module, x_0: Tensor, embeds: Tensor) -> Tensor:
    """The loss of one step of Imagic, on one image."""
    noise = torch.randn_like(x_0)
    timesteps = torch.randint(base.scheduler.config.num_train_timesteps, (len(x_0),), device=x_0.device)
    x_t, dtype = add_noise(base, x_0, noise, timesteps), next(unet.parameters()).dtype
    predicted = unet(x_t.to(dtype), timesteps, encoder_hidden_states=embeds.to(dtype)).sample
    return F.mse_loss(predicted.float(), noise)


def _train(parameters: list[Tensor], rate: float, steps: int, loss_of: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        loss.item()  # for the progress bar, as everywhere


def imagic(
    base: BaseModel, picture: Tensor, embeds: Tensor, embedding_steps: int, model_steps: int, *, adapters: bool
) -> None:
    """Trains on one picture (1, 3, H, W) from embeddings (1, T, D); with `adapters` those of peft, otherwise the whole
    U-Net."""
    from peft import LoraConfig

    unet = copy.deepcopy(base.unet)
    if adapters:
        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(target_layers(unet))))
    else:
        unet.float()
    with torch.no_grad():
        x_0 = encode(base, picture)
    embeds = embeds.clone().requires_grad_(True)
    _train([embeds], 1e-3, embedding_steps, lambda: reconstruction_step(base, unet, x_0, embeds))
    embeds = embeds.detach()
    trained = [p for name, p in unet.named_parameters() if "lora" in name] if adapters else list(unet.parameters())
    for parameter in trained:
        parameter.requires_grad_(True)
    _train(trained, 1e-6, model_steps, lambda: reconstruction_step(base, unet, x_0, embeds))


def ours(base: BaseModel, pictures: Tensor, embeds: Tensor, embedding_steps: int, model_steps: int) -> None:
    """Stage 2 of K pictures (K, 3, H, W) from embeddings (K, T, D), in lockstep."""
    config = FitConfig(
        embedding_steps=embedding_steps, in_context_steps=model_steps, lora_rank=RANK, primary=SampleConfig()
    )
    scans = tuple(
        Scan(
            gray=picture.mean(0, keepdim=True), context_prompt=PROMPT, anti_color_prompts=ANTI_COLOR_PROMPTS, seed=seed
        )
        for seed, picture in enumerate(pictures)
    )
    batch = ScanBatch(scans=scans, gray=pictures.mean(1, keepdim=True), starts=pictures, latents=torch.empty(0))
    state = replace(
        TrainingState.fresh(base, batch, config), primary=pictures, optimized=Conditioning({"embeds": embeds.clone()})
    )
    for stage in (optimize_embedding, fine_tune):
        steps = stage(base, batch, state, config)
        while True:
            try:
                next(steps)
            except StopIteration as stopped:
                state = stopped.value
                break


def seconds(device: torch.device, work: Callable[[], None]) -> float:
    """How long it takes, the GPU's work included."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(
    base: BaseModel, ks: list[int], embedding_steps: int, model_steps: int, repeats: int = 3
) -> dict[str, float]:
    """Seconds per image, the best of some runs of each, taken in turns so that a busy machine is so for all."""
    side = round(base.training_area**0.5)
    pictures = torch.rand(max(ks), 3, side, side, generator=torch.Generator().manual_seed(0)).to(base.device)
    embeds = embed_prompts(base, [PROMPT] * max(ks))["embeds"]
    steps = embedding_steps, model_steps
    works: dict[str, tuple[int, Callable[[], None]]] = {
        "Imagic, whole U-Net": (1, lambda: imagic(base, pictures[:1], embeds[:1], *steps, adapters=False)),
        "Imagic, adapters of peft": (1, lambda: imagic(base, pictures[:1], embeds[:1], *steps, adapters=True)),
    }
    for k in ks:
        works[f"ours, K = {k}"] = (k, lambda k=k: ours(base, pictures[:k], embeds[:k], *steps))  # type: ignore[misc]
    imagic(base, pictures[:1], embeds[:1], 1, 1, adapters=True)
    ours(base, pictures[:1], embeds[:1], 1, 1)
    rounds = [{name: seconds(base.device, work) / k for name, (k, work) in works.items()} for _ in range(repeats)]
    return {name: min(one[name] for one in rounds) for name in works}


def table(found: dict[str, float]) -> str:
    """Lines of a table; ratios to the first."""
    first = next(iter(found.values()))
    lines = ["| | seconds an image | times the first's rate |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {each:.3f} | {first / each:.2f} |" for name, each in found.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", default="mini")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-k", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--embedding", type=int, default=8)
    parser.add_argument("--model", type=int, default=16)
    given = parser.parse_args()
    base = load_base_model(given.base_model, resolve_device(given.device))
    print(f"{base.name} on {base.device}, {given.embedding} steps of the embedding and {given.model} of the model")
    print(table(compare(base, given.k, given.embedding, given.model)))


if __name__ == "__main__":
    main()
