"""Colour pictures and masks as arrays: truths, references, finished pictures."""

import io
import math
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pipelines.images.deadline import within_deadline
from pipelines.images.formats.codecs import open_raster
from pipelines.images.frame import turned_upright

MAX_PIXELS = 64_000_000  # larger pictures are not read: figures of colour gain nothing from them
MAX_COMPARED = 2_000_000  # pixels; larger pictures are averaged down, because the figures need some 300 bytes a pixel


@within_deadline
def read_rgb(file: BinaryIO) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) sRGB, upright.

    Raises:
        InputImageError: it cannot be read.
        ValueError: its ICC profile is damaged, or does not fit its kind of picture.
    """
    raster = open_raster(file, MAX_PIXELS)
    shape = (raster.height, raster.width) if raster.channels == 1 else (raster.height, raster.width, 3)
    pixels = np.empty(shape, raster.dtype)
    for y, x, block in raster.blocks():
        pixels[y : y + block.shape[0], x : x + block.shape[1]] = block.reshape(*block.shape[:2], *shape[2:])
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if raster.metadata.icc:
        pixels = _in_srgb(pixels, raster.metadata.icc)
    elif pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, -1)
    return np.ascontiguousarray(turned_upright(pixels, raster.metadata.orientation))


def _in_srgb(pixels: NDArray[np.uint8], icc: bytes) -> NDArray[np.uint8]:
    """Code values under a gray or RGB profile, (H, W) or (H, W, 3), as sRGB (H, W, 3)."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if pixels.ndim == 2 and profile.profile.xcolor_space.strip() == "RGB":
            pixels = np.repeat(pixels[..., None], 3, -1)
        converted = ImageCms.profileToProfile(
            Image.fromarray(pixels),
            profile,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(f"its ICC profile cannot be used ({error}); convert it to sRGB") from error
    return np.asarray(converted)


@within_deadline
def read_mask(file: BinaryIO) -> NDArray[np.bool_]:
    """(H, W), true where a picture is light.

    Raises:
        InputImageError, ValueError: it cannot be read.
    """
    return read_rgb(file)[..., 0] > 127


def at_most(pixels: NDArray, count: int = MAX_COMPARED) -> NDArray:
    """(H, W) bool or (H, W, 3) uint8 pixels, averaged down to about `count` where there are more."""
    height, width = pixels.shape[:2]
    smaller = math.sqrt(count / (height * width))
    if smaller >= 1:
        return pixels
    size = (max(1, round(width * smaller)), max(1, round(height * smaller)))
    if pixels.dtype == bool:
        return np.asarray(Image.fromarray(pixels.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 127
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
