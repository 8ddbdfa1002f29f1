"""The frozen models around the U-Net while it trains: what makes latents of pictures and embeddings of captions."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffcolor.identity import embedded_folder
from training.pictures import PictureSource
from training.runs import digest, trained
from training.tokenizer import CONTEXT_LENGTH, load_tokenizer
from training.train_judge import build_judge, tokenize
from training.train_vae import build_vae, standardize_latents, training_batch


@dataclass(kw_only=True)
class Conditioning:
    """The frozen models around the U-Net."""

    vae: AutoencoderKL
    judge: CLIP
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def encode(self, pictures: np.ndarray | Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to scaled latents (B, 8, H/8, W/8)."""
        posterior = self.vae.encode(torch.as_tensor(pictures) * 2 - 1).latent_dist
        return posterior.mean * self.vae.config.scaling_factor

    @torch.no_grad()
    def embed(self, captions: list[str]) -> Tensor:
        """Captions to (B, 48, 192)."""
        ids = tokenize(self.tokenizer, captions, padding="max_length").to(self.text_encoder.device)
        return self.text_encoder(ids).last_hidden_state


def words_folder(runs: Path) -> Path:
    """The vocabulary of `runs`, or the embedded one."""
    own = runs / "tokenizer"
    return own if own.exists() else embedded_folder("mini") / "tokenizer"


def find_tokenizer(runs: Path) -> CLIPTokenizer:
    """Of `words_folder`."""
    return load_tokenizer(words_folder(runs))


@torch.no_grad()
def load_frozen(runs: Path, source: PictureSource) -> Conditioning:
    """VAE, tokenizer, judge and text encoder, rounded to float16; the embedded one where `runs` has none.

    The latents of a VAE of `runs` are standardized; their statistics, of 256 training pictures, are in
    `runs`/latents-VAE.json.
    """
    tokenizer = find_tokenizer(runs)
    judge = build_judge(len(tokenizer)).eval()
    judge.load_state_dict(
        trained(runs, "judge") or load_file(embedded_folder("judge") / "open_clip_model.safetensors"), strict=False
    )
    if weights := trained(runs, "vae"):
        vae = build_vae().eval()
        vae.load_state_dict(weights)
        standardize_latents(vae, *_statistics(runs / f"latents-{digest(runs, 'vae')}.json", vae, source))
    else:
        vae = AutoencoderKL.from_pretrained(embedded_folder("mini") / "vae").float().eval()
    for model in (vae, judge):
        model.half().float().requires_grad_(False)
    text_encoder = convert_text_tower(judge).requires_grad_(False)
    return Conditioning(vae=vae, judge=judge, text_encoder=text_encoder, tokenizer=tokenizer)


def _statistics(file: Path, vae: AutoencoderKL, source: PictureSource) -> tuple[Tensor, Tensor]:
    if not file.exists():
        generator = np.random.default_rng(2)
        batches = [training_batch(source, 16, (128, 128), generator, gray_share=0.25) for _ in range(16)]
        latents = torch.cat([vae.encode(batch).latent_dist.mean for batch in batches]).transpose(0, 1).flatten(1)
        figures = {"mean": latents.mean(1).tolist(), "std": latents.std(1).tolist()}
        file.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    figures = json.loads(file.read_text(encoding="utf-8"))
    return torch.tensor(figures["mean"]), torch.tensor(figures["std"])


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
