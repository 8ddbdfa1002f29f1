"""Measures the base model as it is used: from noised gray latents, with the scan's luma put back at each step."""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor

from .captions import caption_photograph
from .colors import COLOR_NAMES, paint, to_lab
from .pictures import PictureSource, gray_version
from .train_judge import draw_judge_batch, encode_short_text, evaluate_judge, normalize, tokenize
from .train_unet import Conditioning, build_scheduler
from .train_vae import evaluate_vae


def put_luma_back(pictures: Tensor, luma: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] with luma (B, 1, H, W); chroma is reduced where it leaves the gamut."""
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    offset = pictures - (pictures * weights).sum(1, keepdim=True)
    room = torch.where(offset > 0, 1 - luma, luma) / offset.abs().clamp(min=1e-5)
    return luma + offset * room.amin(1, keepdim=True).clamp(max=1)


@torch.no_grad()
def colorize(
    frozen: Conditioning,
    unet: UNet2DConditionModel,
    grays: np.ndarray,
    prompts: list[str],
    *,
    steps: int = 20,
    guidance_scale: float = 3.0,
    strength: float = 0.8,
    seed: int = 0,
) -> np.ndarray:
    """Luma-consistent DDIM sampling from the noised gray latents.

    Args:
        frozen: VAE, text encoder and tokenizer.
        unet: the U-Net.
        grays: (B, 3, H, W) in [0, 1], gray.
        prompts: B texts.
        steps: DDIM steps over the whole schedule; `strength` of them are done.
        guidance_scale: of classifier-free guidance.
        strength: where in the schedule sampling starts.
        seed: of the start noise.

    Returns:
        (B, 3, H, W) in [0, 1] with the luma of `grays`.
    """
    scheduler, luma = build_scheduler(), torch.from_numpy(grays[:, :1])
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps[steps - round(steps * strength) :]
    latents = frozen.encode(grays)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    noisy = scheduler.add_noise(latents, noise, timesteps[:1].expand(len(grays)))
    embeds = frozen.embed([""] * len(prompts) + list(prompts))
    result = torch.from_numpy(grays)
    for index, timestep in enumerate(timesteps):
        alpha = scheduler.alphas_cumprod[timestep]
        following = timesteps[index + 1] if index + 1 < len(timesteps) else None
        next_alpha = scheduler.alphas_cumprod[following] if following is not None else torch.tensor(1.0)
        without, with_text = unet(torch.cat([noisy, noisy]), timestep, embeds).sample.chunk(2)
        velocity = without + guidance_scale * (with_text - without)
        original = alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity
        decoded = frozen.vae.decode(original / frozen.vae.config.scaling_factor).sample / 2 + 0.5
        result = put_luma_back(decoded.clamp(0, 1), luma)
        original = frozen.encode(result.numpy())
        noise = (noisy - alpha.sqrt() * original) / (1 - alpha).sqrt()
        noisy = next_alpha.sqrt() * original + (1 - next_alpha).sqrt() * noise
    return result.numpy()


def colorfulness(picture: np.ndarray) -> float:
    """Hasler and Suesstrunk's measure of a picture (3, H, W) in [0, 1]."""
    red, green, blue = picture * 255
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))


def chroma_figures(results: np.ndarray, truths: np.ndarray) -> dict[str, float]:
    """Mean a*b* error over that of gray, the share closer than gray, colourfulness of results and truths."""
    errors, grays = [], []
    for result, truth in zip(results, truths, strict=True):
        truth_ab, result_ab = (to_lab(picture.transpose(1, 2, 0))[..., 1:] for picture in (truth, result))
        errors.append(np.hypot(*np.moveaxis(result_ab - truth_ab, -1, 0)).mean())
        grays.append(np.hypot(*np.moveaxis(truth_ab, -1, 0)).mean())
    return {
        "ab_error_over_gray": float(np.mean(errors) / np.mean(grays)),
        "closer_than_gray": float(np.mean(np.less(errors, grays))),
        "colorfulness": float(np.mean([colorfulness(result) for result in results])),
        "colorfulness_truth": float(np.mean([colorfulness(truth) for truth in truths])),
    }


def held_out_photographs(source: PictureSource, count: int) -> tuple[np.ndarray, list[str]]:
    """Whole landscape photographs of different titles, (count, 3, 64, 96) in [0, 1], and their titles."""
    by_title = {photograph.title: photograph for photograph in source.photographs}
    wide = [each for each in by_title.values() if each.pixels.shape[1] > each.pixels.shape[0]][:count]
    pictures = [cv2.resize(each.pixels, (96, 64), interpolation=cv2.INTER_AREA) for each in wide]
    stacked = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255
    return np.ascontiguousarray(stacked), [each.title.split(". ")[0] for each in wide]


@torch.no_grad()
def color_word_accuracy(judge: CLIP, source: PictureSource, frozen: Conditioning, count: int = 96) -> float:
    """How often the judge puts the right colour word above the 12 others, on held-out stamps recoloured on gray."""
    right = 0
    for _ in range(count):
        stamp = source.stamps[source.generator.integers(len(source.stamps))]
        name = str(source.generator.choice(COLOR_NAMES))
        object_rgb = paint(stamp.rgba[..., :3].astype(np.float32) / 255, name, source.generator)
        alpha = stamp.rgba[..., 3:].astype(np.float32) / 255
        scene = cv2.resize(object_rgb * alpha + 0.5 * (1 - alpha), (64, 64), interpolation=cv2.INTER_AREA)
        picture = normalize(np.ascontiguousarray(scene.transpose(2, 0, 1), dtype=np.float32)[None])
        texts = [f"a photo of a {word} {stamp.nouns[0]}" for word in COLOR_NAMES]
        text_features = encode_short_text(judge, tokenize(frozen.tokenizer, texts))
        scores = judge.encode_image(picture, normalize=True) @ text_features.T
        right += COLOR_NAMES[scores.argmax().item()] == name
    return right / count


def contact_sheet(path: Path, columns: list[np.ndarray], zoom: int = 2) -> None:
    """Writes pictures (B, 3, H, W) as a sheet: one row per picture, three rows side by side."""
    rows = [np.concatenate([column[i].transpose(1, 2, 0) for column in columns], 1) for i in range(len(columns[0]))]
    rows += [np.ones_like(rows[0])] * (-len(rows) % 3)
    third = len(rows) // 3
    blocks = [np.concatenate(rows[k * third : (k + 1) * third], 0) for k in range(3)]
    sheet = Image.fromarray((np.concatenate(blocks, 1).clip(0, 1) * 255).round().astype(np.uint8))
    sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.LANCZOS).save(path)


def evaluate(
    held_out: PictureSource, frozen: Conditioning, judge: CLIP, unet: UNet2DConditionModel, runs: Path
) -> dict[str, dict[str, float]]:
    """Measures every part on held-out pictures and writes two contact sheets to `runs`."""
    photographs, titles = held_out_photographs(held_out, 24)
    generator = np.random.default_rng(0)
    colored = [
        caption_photograph(title, picture.transpose(1, 2, 0), generator)
        for title, picture in zip(titles, photographs, strict=True)
    ]
    drawn = [held_out.draw_scene((80, 80)) for _ in range(24)]
    scene_captions = [caption for _, caption in drawn]
    scenes = np.ascontiguousarray(np.stack([scene for scene, _ in drawn]).transpose(0, 3, 1, 2), dtype=np.float32)
    by_title = colorize(frozen, unet, gray_version(photographs), titles)
    by_color = colorize(frozen, unet, gray_version(photographs), colored)
    by_scene = colorize(frozen, unet, gray_version(scenes), scene_captions)
    contact_sheet(runs / "photographs.png", [gray_version(photographs), photographs, by_title, by_color])
    contact_sheet(runs / "scenes.png", [gray_version(scenes), scenes, by_scene])
    (runs / "captions.txt").write_text("\n".join([*titles, "", *colored, "", *scene_captions]) + "\n", encoding="utf-8")
    judged = draw_judge_batch(held_out, 64, spoilt=False)
    return {
        "photographs, title": chroma_figures(by_title, photographs),
        "photographs, title and measured colours": chroma_figures(by_color, photographs),
        "scenes": chroma_figures(by_scene, scenes),
        "vae, photographs": evaluate_vae(frozen.vae, torch.from_numpy(photographs) * 2 - 1),
        "judge": evaluate_judge(judge, frozen.tokenizer, judged)
        | {"color_word": color_word_accuracy(judge, held_out, frozen)},
    }
