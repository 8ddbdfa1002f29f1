"""From colours at working size to a stored picture at the scan's own size, its luminance checked."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from diffcolor.colorize import Colored
from diffcolor.errors import LumaMismatchError
from diffcolor.luminance import chroma_planes, mismatches
from diffcolor.measures import colorfulness
from diffcolor.upsample import colorize_scan
from pipelines.identity import sha256
from pipelines.imagefile import GrayImage, encode_png
from pipelines.names import image_key
from pipelines.results import Output
from pipelines.store import Store


def compose(image: GrayImage, rgb: torch.Tensor, prompt: str) -> tuple[bytes, NDArray[np.uint8]]:
    """A working picture's colours, (3, h, w) in [0, 1], on the native scan: as PNG, and as pixels (H, W, 3).

    Raises:
        LumaMismatchError: the result does not hold the scan's gray values; it is never stored.
    """
    pixels = colorize_scan(image.gray, chroma_planes(rgb))
    if wrong := mismatches(image.gray, pixels):
        raise LumaMismatchError(wrong)
    return encode_png(pixels, image, prompt), pixels


def store_output(
    store: Store, image: GrayImage, row_id: str, number: int, prompt: str, ladder: Sequence[Colored], source: str
) -> Output:
    """Stores the ladder's favourite at native size; `ladder` is one prompt's candidates, best first."""
    best = ladder[0]
    content, pixels = compose(image, best.rgb, prompt)
    key = image_key(row_id, number, prompt, content)
    store.write(key, content)
    return Output(
        prompt=prompt,
        image=key,
        sha256=sha256(content),
        eta=best.eta,
        colorfulness=colorfulness(pixels),
        clip_margin=best.clip_margin,
        candidates=tuple(
            {"eta": one.eta, "clip_margin": one.clip_margin, "colorfulness": colorfulness(_to_pixels(one.rgb))}
            for one in ladder
        ),
        source=source,
    )


def _to_pixels(rgb: torch.Tensor) -> NDArray[np.uint8]:
    return (rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
