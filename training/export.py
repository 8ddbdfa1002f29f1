"""Writes the trained parts as a diffusers folder (mini/) and an open_clip folder (judge/), in float16."""

import json
import shutil
from pathlib import Path

from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from diffcolor.identity import embedded_folder
from training.conditioning import Conditioning, load_frozen, text_tower_difference, words_folder
from training.pictures import PictureSource
from training.runs import trained
from training.train_coarse import export_coarse
from training.train_judge import tokenize, write_judge
from training.train_unet import build_scheduler, build_unet


def load_unet(runs: Path) -> UNet2DConditionModel:
    """The averaged U-Net of `runs`, or the embedded one."""
    if weights := trained(runs, "unet"):
        unet = build_unet()
        unet.load_state_dict(weights)
    else:
        unet = UNet2DConditionModel.from_pretrained(embedded_folder("mini") / "unet")
    return unet.eval().requires_grad_(False)


def assemble(frozen: Conditioning, unet: UNet2DConditionModel) -> StableDiffusionPipeline:
    """The parts as a stock diffusers pipeline."""
    return StableDiffusionPipeline(
        vae=frozen.vae,
        text_encoder=frozen.text_encoder,
        tokenizer=frozen.tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(runs: Path, out: Path, source: PictureSource) -> None:
    """Writes `out`/mini, `out`/judge and `out`/coarse beside the old ones, then swaps them in file by file.

    Args:
        runs: folder of the trainings; an embedded part of mini or judge is written again where it has none.
        out: the folder that holds, or will hold, the three.
        source: pictures for the statistics of the VAE's latents where they are not measured yet.

    Raises:
        ValueError: the two text towers disagree.
    """
    frozen = load_frozen(runs, source)
    ids = tokenize(frozen.tokenizer, ["a red apple on a wooden table", "a grayscale photograph"], padding="max_length")
    difference = text_tower_difference(frozen.judge, frozen.text_encoder, ids)
    if difference > 1e-4:
        raise ValueError(f"text towers differ by {difference}")
    staging = out / ".export"
    shutil.rmtree(staging, ignore_errors=True)
    pipeline: StableDiffusionPipeline = assemble(frozen, load_unet(runs))
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.half()
    pipeline.save_pretrained(str(staging / "mini"), safe_serialization=True)
    for file in (staging / "mini").glob("*/config.json"):  # where a part was loaded from is nobody's business
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings.pop("_name_or_path", None)
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    config_file = staging / "mini" / "text_encoder" / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["dtype"] = "float32"  # or transformers would load it in float16 while diffusers loads the rest in float32
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(words_folder(runs) / name, staging / "mini" / "tokenizer" / name)
    write_judge(staging / "judge", frozen.judge.state_dict(), len(frozen.tokenizer))
    for path in sorted((staging / "mini" / "tokenizer").iterdir()):
        shutil.copyfile(path, staging / "judge" / path.name)
    export_coarse(runs, staging)
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        target = out / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(0o644)
        path.replace(target)
    shutil.rmtree(staging)
    print(f"exported to {out}; text towers differ by {difference:.1e}")
