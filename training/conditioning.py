"""The frozen models around the U-Net while it trains: what makes latents of pictures and embeddings of captions."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from training.train_judge import tokenize


@dataclass(kw_only=True)
class Conditioning:
    """The frozen models around the U-Net."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    @torch.no_grad()
    def encode(self, pictures: np.ndarray) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] to scaled latents (B, 8, H/8, W/8)."""
        posterior = self.vae.encode(torch.from_numpy(pictures) * 2 - 1).latent_dist
        return posterior.mean * self.vae.config.scaling_factor

    @torch.no_grad()
    def embed(self, captions: list[str]) -> Tensor:
        """Captions to (B, 48, 192)."""
        return self.text_encoder(tokenize(self.tokenizer, captions, padding="max_length")).last_hidden_state
