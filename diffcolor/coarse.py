"""The coarse colorizer: a plain network that predicts a*b* from gray and a caption. Nothing is diffused or fine-tuned.

Sampling may start from its colours instead of from gray (`SampleConfig.start`), whatever the base model is, and it
colours alone where no base model is wanted (docs/decisions/0013).
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcolor.geometry import working_size
from diffcolor.identity import embedded_folder, weights_digest
from diffcolor.lab import with_ab
from diffcolor.precision import freeze
from diffcolor.words import TOKENIZING, Vocabulary, embedded_vocabulary

AB_SCALE = 30.0  # units of a*b* for an output of 1
SIZE_MULTIPLE = 32  # the encoder's coarsest stride
LOOKS = (1, 2)  # a scan is seen at these multiples of the training's area, and mirrored
UNTOLD_GAIN = 0.9  # of chroma, where the caption is empty: it knows less
CHROMA_CELLS = 16  # along a picture's longer side, within which chroma is taken together
DROPPED = 0.15  # of the features' channels, while it is trained
DROPPED_LOOKS = 6  # with dropped features, to see how sure it is


@dataclass(frozen=True, kw_only=True)
class CoarseConfig:
    """The shape of the network.

    Attributes:
        encoder: a network of timm with features at strides 4, 8, 16 and 32.
        widths: channels of the decoder at these strides.
        text: the configuration of the text tower, a CLIPTextModel of transformers.
        area: pixels of the pictures that it was trained on.
    """

    encoder: str = "tf_efficientnet_lite0"
    widths: tuple[int, int, int, int] = (64, 128, 192, 256)
    text: dict[str, Any]
    area: int = 160 * 160

    @staticmethod
    def read(folder: Path) -> "CoarseConfig":
        """From a folder's `config.json`."""
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return CoarseConfig(**{**settings, "widths": tuple(settings["widths"])})


class _Residual(nn.Module):
    """x + conv(conv(x)), pre-activated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Reading(nn.Module):
    """Lets every place of a picture read the caption; at the two coarsest levels the places see each other, too."""

    def __init__(self, width: int, text_width: int, *, sees_itself: bool) -> None:
        super().__init__()
        heads = width // 32
        self.norm = nn.LayerNorm(width) if sees_itself else None
        self.itself = nn.MultiheadAttention(width, heads, batch_first=True) if sees_itself else None
        self.text_norm = nn.LayerNorm(width)
        self.text = nn.MultiheadAttention(width, heads, kdim=text_width, vdim=text_width, batch_first=True)
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, text: Tensor, padding: Tensor) -> Tensor:
        shape = x.shape
        places = x.flatten(2).transpose(1, 2)
        if self.norm is not None and self.itself is not None:
            normed = self.norm(places)
            places = places + self.itself(normed, normed, normed, need_weights=False)[0]
        normed = self.text_norm(places)
        places = places + self.text(normed, text, text, key_padding_mask=padding, need_weights=False)[0]
        places = places + self.mix(places)
        return places.transpose(1, 2).reshape(shape)


class CoarseNet(nn.Module):
    """Gray (B, 1, H, W) in [0, 1], sides multiples of 32, and tokens (B, T) to a*b* (B, 2, H/4, W/4)."""

    def __init__(self, config: CoarseConfig) -> None:
        super().__init__()
        import timm
        from transformers import CLIPTextConfig, CLIPTextModel

        self.config = config
        encoder: Any = timm.create_model(config.encoder, features_only=True, out_indices=(1, 2, 3, 4), pretrained=False)
        self.encoder = encoder
        channels, widths, text = encoder.feature_info.channels(), config.widths, config.text["hidden_size"]
        self.text: Any = CLIPTextModel(CLIPTextConfig(**config.text))
        self.drop = nn.Dropout2d(DROPPED)
        self.lateral = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(channels, widths, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(3))
        self.blocks = nn.ModuleList(_Residual(w) for w in widths)
        self.readings = nn.ModuleList(_Reading(w, text, sees_itself=level > 0) for level, w in enumerate(widths[1:]))
        last = nn.Conv2d(widths[0], 2, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)  # training begins at gray
        self.out = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU(), last)

    def forward(
        self, gray: Tensor, ids: Tensor, padding: Tensor, drop: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """`drop` is what is done to the encoder's features: in training dropout, otherwise nothing, if not given."""
        drop = drop or self.drop
        text = self.text(ids).last_hidden_state
        features = self.features(gray)
        x = None
        for level in (3, 2, 1, 0):
            own = self.lateral[level](drop(features[level]))
            if x is not None:
                own = own + F.interpolate(self.down[level](x), own.shape[-2:], mode="bilinear")
            x = self.blocks[level](own)
            if level:
                x = self.readings[level - 1](x, text, padding)
        return self.out(x) * AB_SCALE

    def features(self, gray: Tensor) -> list[Tensor]:
        """What the encoder sees of gray pictures (B, 1, H, W), at strides 4, 8, 16 and 32."""
        return self.encoder((gray * 2 - 1).expand(-1, 3, -1, -1))


@dataclass(frozen=True, kw_only=True)
class CoarseColorizer:
    """The trained network with its tokenizer.

    Attributes:
        digest: sha256 (hex) of its weights' digest and of how it looks and what it makes of that.
    """

    net: CoarseNet
    tokenizer: Any
    vocabulary: Vocabulary
    digest: str
    device: torch.device

    @torch.no_grad()
    def colorize(self, gray: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scans (K, 1, H, W) in [0, 1] and their K captions to pictures (K, 3, H, W) in [0, 1] with the scans' luma.

        An empty caption leaves the colours to what the picture shows.
        """
        ids, padding = (one.to(self.device) for one in self._read(prompts))
        ab = torch.stack(self._looks(gray, ids, padding)).mean(0)  # truer than any of them
        told = (~padding).sum(1) > 2  # more tokens than the caption's beginning and end
        return with_ab(gray, stretch_chroma(ab) * torch.where(told, 1.0, UNTOLD_GAIN)[:, None, None, None])

    @torch.no_grad()
    def spread(self, gray: Tensor, prompts: Sequence[str]) -> Tensor:
        """How far apart the colours are that it gives when it looks again, also with some of its features dropped
        (Gal and Ghahramani, Dropout as a Bayesian Approximation, 2016): where it is guessing.

        Args:
            gray, prompts: as for `colorize`.

        Returns:
            (K, 1, H, W), the root mean square distance from their mean, in units of a*b*.
        """
        ids, padding = (one.to(self.device) for one in self._read(prompts))
        generator = torch.Generator().manual_seed(0)  # the same picture always gets the same

        def drop(features: Tensor) -> Tensor:
            kept = torch.rand(features.shape[:2], generator=generator) >= DROPPED
            return features * (kept / (1 - DROPPED)).to(features.device)[..., None, None]

        looks = self._looks(gray, ids, padding)
        all_looks = torch.stack([*looks, *(self._look(gray, 1, ids, padding, drop=drop) for _ in range(DROPPED_LOOKS))])
        return (all_looks - all_looks.mean(0)).square().sum(2, keepdim=True).mean(0).sqrt()

    @torch.no_grad()
    def features(self, gray: Tensor) -> list[Tensor]:
        """`CoarseNet.features` of gray pictures (K, 1, H, W) in [0, 1], sides multiples of 32."""
        return self.net.features(gray)

    def _read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return tokenize(self.tokenizer, [self.vocabulary.read(prompt) for prompt in prompts])

    def _looks(self, gray: Tensor, ids: Tensor, padding: Tensor) -> list[Tensor]:
        """a*b* (K, 2, H, W) of several looks at the same scans."""
        return [self._look(gray, times, ids, padding, mirrored) for times in LOOKS for mirrored in (False, True)]

    def _look(
        self,
        gray: Tensor,
        times: int,
        ids: Tensor,
        padding: Tensor,
        mirrored: bool = False,
        drop: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        size = working_size(gray.shape[-2], gray.shape[-1], times * self.net.config.area, SIZE_MULTIPLE)
        seen = F.interpolate(gray, size, mode="bilinear", antialias=True, align_corners=False)
        ab = self.net(seen.flip(-1), ids, padding).flip(-1) if mirrored else self.net(seen, ids, padding, drop)
        return F.interpolate(ab, gray.shape[-2:], mode="bicubic", align_corners=False)


def stretch_chroma(ab: Tensor) -> Tensor:
    """Colours with the differences of chroma that a regression evens out: the vivid stays, the pale becomes paler.

    What a network is unsure of it predicts as a mean, in which no place is gray and none is vivid. Colours are
    multiplied by sqrt(c / r): c is the chroma around a place, r the picture's, weighted with its square, so that gray
    places such as a mount count for nothing. (With each pixel's own chroma as c, the figures are a little better, and
    stains stand out.)

    Args:
        ab: (K, 2, H, W).
    """
    chroma, (height, width) = ab.norm(dim=1, keepdim=True), ab.shape[-2:]
    cell = max(height, width) / CHROMA_CELLS
    around = F.adaptive_avg_pool2d(chroma, (max(1, round(height / cell)), max(1, round(width / cell))))
    around = F.interpolate(around, (height, width), mode="bicubic", align_corners=False).clamp(min=0)
    vivid = (chroma**3).mean((-2, -1), keepdim=True) / (chroma**2).mean((-2, -1), keepdim=True).clamp(min=1e-6)
    return ab * (around / vivid.clamp(min=1e-3)).sqrt()


def tokenize(tokenizer: Any, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids (B, T), as long as the longest caption, and padding (B, T), true where there is no token."""
    limit = tokenizer.model_max_length
    with TOKENIZING:
        encoded = tokenizer(list(captions), padding=True, truncation=True, max_length=limit, return_tensors="pt")
    return encoded.input_ids, encoded.attention_mask == 0


def load_coarse(device: str | torch.device = "cpu") -> CoarseColorizer:
    """Loads the embedded colorizer; its words are those of the embedded base model's tokenizer."""
    from safetensors.torch import load_file
    from transformers import CLIPTokenizer

    folder, device = embedded_folder("coarse"), torch.device(device)
    net = CoarseNet(CoarseConfig.read(folder))
    net.load_state_dict(load_file(folder / "model.safetensors"), strict=False)  # batch counters are not kept
    freeze(net, device)
    return CoarseColorizer(
        net=net,
        tokenizer=CLIPTokenizer.from_pretrained(embedded_folder("mini") / "tokenizer"),
        vocabulary=embedded_vocabulary(),
        digest=hashlib.sha256(f"{weights_digest(folder)[0]} {LOOKS} {UNTOLD_GAIN} {CHROMA_CELLS}".encode()).hexdigest(),
        device=device,
    )


def save_coarse(folder: Path, net: CoarseNet) -> None:
    """Writes `config.json` and `model.safetensors` (float16)."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(net.config), indent=2) + "\n", encoding="utf-8")
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in net.state_dict().items()
        if "num_batches_tracked" not in name
    }
    save_file(weights, folder / "model.safetensors")
