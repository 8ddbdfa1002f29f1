"""Writes the trained parts as a diffusers folder (mini/) and an open_clip folder (judge/), in float16."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from open_clip.model import CLIP
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from training.conditioning import Conditioning
from training.pictures import PictureSource
from training.runs import check_frozen, vae_digest
from training.tokenizer import CONTEXT_LENGTH, load_tokenizer
from training.train_judge import build_judge, tokenize, write_judge
from training.train_unet import build_scheduler, build_unet
from training.train_vae import build_vae, standardize_latents, training_batch


def convert_text_tower(judge: CLIP) -> CLIPTextModel:
    """The judge's text tower as a transformers model with the same hidden states."""
    vocabulary, width = judge.token_embedding.weight.shape
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=len(judge.transformer.resblocks),
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_act="gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        projection_dim=judge.text_projection.shape[1],
    )
    model = CLIPTextModel(config).eval()
    model.load_state_dict(rename_text_weights(judge.state_dict(), set(model.state_dict())), strict=False)
    return model


def rename_text_weights(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """open_clip's names to those of transformers; raises KeyError where a wanted weight has no source."""
    prefix = "text_model." if any(name.startswith("text_model.") for name in wanted) else ""
    renamed = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
        "final_layer_norm.weight": state["ln_final.weight"],
        "final_layer_norm.bias": state["ln_final.bias"],
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
             "attn.out_proj": "self_attn.out_proj"}  # fmt: skip
    for name, value in state.items():
        if not name.startswith("transformer.resblocks."):
            continue
        layer, part = name.removeprefix("transformer.resblocks.").split(".", 1)
        stem, kind = part.rsplit(".", 1)
        if stem in parts:
            renamed[f"encoder.layers.{layer}.{parts[stem]}.{kind}"] = value
        else:  # attn.in_proj_weight, attn.in_proj_bias: query, key and value in one
            for target, third in zip("qkv", value.chunk(3), strict=True):
                renamed[f"encoder.layers.{layer}.self_attn.{target}_proj.{kind.removeprefix('in_proj_')}"] = third
    missing = {name.removeprefix(prefix) for name in wanted} - set(renamed) - {"embeddings.position_ids"}
    if missing:
        raise KeyError(f"no source for {sorted(missing)}")
    return {prefix + name: value for name, value in renamed.items()}


@torch.no_grad()
def text_tower_difference(judge: CLIP, text_encoder: CLIPTextModel, ids: Tensor) -> float:
    """Greatest difference between the two towers' hidden states for ids (B, 48)."""
    hidden = judge.token_embedding(ids) + judge.positional_embedding
    hidden = judge.ln_final(judge.transformer(hidden, attn_mask=judge.attn_mask))
    return (hidden - text_encoder(ids).last_hidden_state).abs().max().item()


@torch.no_grad()
def load_frozen(runs: Path, source: PictureSource) -> tuple[Conditioning, CLIP]:
    """The trained VAE, tokenizer, judge and text encoder, rounded to float16; untrained ones where a run is missing.

    The VAE's latents are standardized; their statistics, of 256 training pictures, are in `runs`/latents-VAE.json.
    """
    tokenizer = load_tokenizer(runs / "tokenizer")
    vae, judge = build_vae().eval(), build_judge(len(tokenizer)).eval()
    for model, name in ((vae, "vae"), (judge, "judge")):
        if (runs / name / f"{name}.pt").exists():
            model.load_state_dict(torch.load(runs / name / f"{name}.pt"))
        model.requires_grad_(False)
    statistics = runs / f"latents-{vae_digest(runs)}.json"
    if not statistics.exists():
        batches = [training_batch(source, 16, (128, 128), gray_share=0.25) for _ in range(16)]
        latents = torch.cat([vae.encode(batch).latent_dist.mean for batch in batches]).transpose(0, 1).flatten(1)
        figures = {"mean": latents.mean(1).tolist(), "std": latents.std(1).tolist()}
        statistics.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    figures = json.loads(statistics.read_text(encoding="utf-8"))
    standardize_latents(vae, torch.tensor(figures["mean"]), torch.tensor(figures["std"]))
    for model in (vae, judge):
        model.half().float()
    text_encoder = convert_text_tower(judge).requires_grad_(False)
    return Conditioning(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer), judge


def load_unet(runs: Path) -> UNet2DConditionModel:
    """The averaged U-Net of the last checkpoint, or an untrained one."""
    unet = build_unet().eval().requires_grad_(False)
    checkpoint = runs / "unet" / "unet.pt"
    if checkpoint.exists():
        weights = torch.load(checkpoint, map_location="cpu")
        check_frozen(runs, weights)
        unet.load_state_dict(weights["average"])
    return unet


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
    """Writes `out`/mini and `out`/judge beside the old ones, then swaps them in file by file.

    Args:
        runs: folder of the trainings.
        out: the folder that holds, or will hold, mini/ and judge/.
        source: pictures for the statistics of the VAE's latents where they are not measured yet.

    Raises:
        ValueError: the two text towers disagree.
    """
    frozen, judge = load_frozen(runs, source)
    ids = tokenize(frozen.tokenizer, ["a red apple on a wooden table", "a grayscale photograph"], padding="max_length")
    difference = text_tower_difference(judge, frozen.text_encoder, ids)
    if difference > 1e-4:
        raise ValueError(f"text towers differ by {difference}")
    staging = out / ".export"
    shutil.rmtree(staging, ignore_errors=True)
    pipeline: StableDiffusionPipeline = assemble(frozen, load_unet(runs))
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.half()
    pipeline.save_pretrained(str(staging / "mini"), safe_serialization=True)
    config_file = staging / "mini" / "text_encoder" / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["dtype"] = "float32"  # or transformers would load it in float16 while diffusers loads the rest in float32
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(runs / "tokenizer" / name, staging / "mini" / "tokenizer" / name)
    write_judge(staging / "judge", judge.state_dict(), len(frozen.tokenizer))
    for path in sorted((staging / "mini" / "tokenizer").iterdir()):
        shutil.copyfile(path, staging / "judge" / path.name)
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        target = out / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(0o644)
        path.replace(target)
    shutil.rmtree(staging)
    print(f"exported to {out}; text towers differ by {difference:.1e}")
