"""Trains the VAE: 8x down, 8 latent channels, chroma weighted above luma."""

from argparse import Namespace

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from training.pictures import PictureSource, gray_version, stacked
from training.runs import Budget, Run

SMALL, LARGE = (16, (64, 64)), (4, (128, 128))  # batch size and shape; the large ones are for the end


def build_vae() -> AutoencoderKL:
    """The untrained VAE."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
        force_upcast=False,
    )


def luma_and_chroma(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) in [-1, 1] to luma (B, 1, H, W) and the two colour differences (B, 2, H, W)."""
    red, green, blue = pictures.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma[:, None], torch.stack([0.564 * (blue - luma), 0.713 * (red - luma)], 1)


def reconstruction_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    """L1 of luma and of its gradients, and, far above them, L1 and squares of chroma at full size and at an eighth.

    The product takes nothing but chroma from the decoder. Squares are there for the rare vivid colours: with L1 alone
    the red-green axis got lost, and green balls came back brown.
    """
    luma, chroma = luma_and_chroma(decoded)
    true_luma, true_chroma = luma_and_chroma(pictures)
    loss = functional.l1_loss(luma, true_luma)
    for axis in (2, 3):
        loss = loss + functional.l1_loss(luma.diff(dim=axis), true_luma.diff(dim=axis))
    coarse, true_coarse = (functional.avg_pool2d(planes, 8) for planes in (chroma, true_chroma))
    for ours, true in ((chroma, true_chroma), (coarse, true_coarse)):
        loss = loss + 5 * functional.l1_loss(ours, true) + 15 * functional.mse_loss(ours, true)
    return loss


def training_batch(
    source: PictureSource,
    count: int,
    shape: tuple[int, int],
    generator: np.random.Generator,
    gray_share: float = 0.15,
) -> Tensor:
    """(count, 3, H, W) in [-1, 1]; the first `gray_share` of it turned gray."""
    pictures = stacked([source.draw(shape, generator).picture for _ in range(count)])
    grays = round(count * gray_share)
    pictures[:grays] = gray_version(pictures[:grays])
    return (torch.from_numpy(pictures) * 2 - 1).to(memory_format=torch.channels_last)


@torch.no_grad()
def standardize_latents(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Gives every latent channel mean 0 and standard deviation 1, in place; what the VAE reconstructs stays the same.

    The affine map goes into the two 1 x 1 convolutions around the latents, so that one scaling factor, 1, serves all
    channels and none drowns in the diffusion's noise before the others.

    Args:
        vae: the VAE.
        mean, std: (C,), of its latents.
    """
    channels = len(mean)
    into, out_of = vae.quant_conv, vae.post_quant_conv
    into.weight[:channels] /= std[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / std
    into.bias[channels:] -= 2 * std.log()  # the posterior's log-variance
    out_of.bias += out_of.weight[..., 0, 0] @ mean
    out_of.weight *= std[:, None, None]
    vae.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def evaluate_vae(vae: AutoencoderKL, pictures: Tensor) -> dict[str, float]:
    """PSNR in RGB, luma and chroma (dB) of the mean reconstruction, the RMS error of each colour difference relative to
    its own size, and the latents' standard deviation.
    """
    latents = vae.encode(pictures).latent_dist.mean
    decoded = vae.decode(latents).sample.clamp(-1, 1)
    luma, chroma = luma_and_chroma(decoded)
    true_luma, true_chroma = luma_and_chroma(pictures)
    pairs = {"psnr": (decoded, pictures), "psnr_luma": (luma, true_luma), "psnr_chroma": (chroma, true_chroma)}
    figures = {name: float(10 * torch.log10(4 / functional.mse_loss(*pair))) for name, pair in pairs.items()}
    for axis, name in enumerate(("chroma_blue", "chroma_red")):  # 1 is what gray gets
        missed = functional.mse_loss(chroma[:, axis], true_chroma[:, axis])
        figures[name] = float((missed / true_chroma[:, axis].square().mean()).sqrt())
    return figures | {"latent_std": float(latents.std())}


def train_vae(options: Namespace, source: PictureSource, held_out: PictureSource) -> None:
    """Goes on from the checkpoint in RUNS/vae, if there is one."""
    vae = build_vae().to(memory_format=torch.channels_last)
    run = Run(options.runs / "vae", vae, {"": 1.5e-3})
    generator = np.random.default_rng([options.seed, run.step])
    checked = training_batch(held_out, 32, (128, 128), np.random.default_rng(1), gray_share=0)
    budget = Budget(minutes=options.minutes, decay_steps=options.decay_steps)
    for _ in run.steps(budget, lambda: evaluate_vae(run.average, checked)):
        pictures = training_batch(source, *(LARGE if options.decay_steps else SMALL), generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        per_latent = posterior.kl().float().mean() / posterior.mean[0].numel()
        run.learn(reconstruction_loss(decoded, pictures) + 3e-4 * per_latent)
