"""Trains the VAE: 8x down, 8 latent channels, chroma weighted above luma."""

import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from training.pictures import PictureSource, gray_version
from training.runs import Clock, log, set_learning_rate, update_average

SMALL, LARGE = (16, (64, 64)), (4, (128, 128))  # batch size and shape of most steps, and of the last


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


def training_batch(source: PictureSource, count: int, shape: tuple[int, int], gray_share: float = 0.15) -> Tensor:
    """(count, 3, H, W) in [-1, 1]; the first `gray_share` of it turned gray."""
    pictures, _ = source.draw_batch(count, shape)
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


def train_vae(source: PictureSource, held_out: PictureSource, out: Path, minutes: float, resume: bool) -> None:
    """Trains for some minutes; the averaged weights are in `out`/vae.pt every 5 minutes and at the end.

    Args:
        source: training pictures.
        held_out: pictures for the log's figures.
        out: folder of log and weights.
        minutes: budget.
        resume: start from the averaged weights of `out`/vae.pt.
    """
    out.mkdir(parents=True, exist_ok=True)
    vae, average = build_vae().to(memory_format=torch.channels_last), build_vae().eval().requires_grad_(False)
    if resume:
        vae.load_state_dict(torch.load(out / "vae.pt"))
    average.load_state_dict(vae.state_dict())
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    check = training_batch(held_out, 32, (128, 128), gray_share=0)
    clock, saved, step = Clock(minutes=minutes), time.monotonic(), 0
    for step in clock.steps():
        set_learning_rate(optimizer, 1.5e-3, clock.share(), step)
        pictures = training_batch(source, *(SMALL if clock.share() < 0.6 else LARGE))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        per_latent = posterior.kl().float().mean() / posterior.mean[0].numel()
        loss = reconstruction_loss(decoded, pictures) + 3e-4 * per_latent
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        update_average(average, vae, step, 0.998)
        if step % 200 == 0:
            log(out, step=step, share=clock.share(), loss=loss.item(), **evaluate_vae(average, check))
        if time.monotonic() - saved > 300:
            torch.save(average.state_dict(), out / "vae.pt")
            saved = time.monotonic()
    torch.save(average.state_dict(), out / "vae.pt")
    log(out, step=step, share=1, **evaluate_vae(average, check))
