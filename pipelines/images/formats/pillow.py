"""JPEG, WebP and BMP, which Pillow reads and writes, and 8-bit PNG's pixels."""

import io
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL import __version__ as pillow_version

from pipelines.images.errors import InputImageError
from pipelines.images.formats.table import ACCEPTED
from pipelines.images.metadata import Metadata, from_exif, sane_dpi
from pipelines.images.picture_format import PictureFormat, whole_picture
from pipelines.images.raster import (
    Block,
    Limits,
    Raster,
    bitonal,
    transparent,
    truncated,
    undecodable,
    without_alpha,
    wrong_depth,
)

_CHANNELS = {"L": 1, "RGB": 3, "P": 3, "LA": 1, "RGBA": 3}
_PHOTOSHOP_IPTC = 0x0404
_SEGMENT = 65_000  # bytes that fit into a JPEG's segment
_OTHER_CONTENT = {
    b"%PDF": "a PDF (export its pages first)",
    b"PK\x03\x04": "a ZIP archive",
    b"<!DO": "an HTML page",
    b"<htm": "an HTML page",
    b"<?xm": "an XML file",
    b"{": "JSON text",
    b"GIF8": "a GIF",
    b"P1": "a PBM",
    b"P2": "a PGM",
    b"P3": "a PPM",
    b"P4": "a PBM",
    b"P5": "a PGM",
    b"P6": "a PPM",
    b"P7": "a PAM",
    b"8BPS": "a Photoshop file",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\x0a\x05": "a PCX",
}
_BRANDS = {b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF", b"avif": "an AVIF"}  # of an ISO media file
# Start-of-frame markers of JPEGs that Pillow cannot read.
_JPEG_LS, _FRAMES = 0xF7, frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _open_by_pillow(file: BinaryIO, formats: tuple[str, ...]) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked instead, before any pixel is decoded
    file.seek(0)
    return Image.open(file, formats=formats)


def pillow_blocks(file: BinaryIO, formats: tuple[str, ...]) -> Iterator[Block]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open_by_pillow(file, formats)
            image.load()
            if image.mode == "P":
                image = image.convert("RGB")  # a palette of grays has equal channels then
    except (OSError, ValueError, SyntaxError) as error:
        raise truncated(error) from error
    yield 0, 0, np.asarray(image)


def open_by_pillow(file: BinaryIO, buffer: memoryview, _page: int | None, limits: Limits) -> Raster:
    head = bytes(buffer[:512])
    try:
        image = _open_by_pillow(file, ("JPEG", "WEBP", "BMP"))
    except UnidentifiedImageError as error:
        if head.startswith(b"\xff\xd8\xff") and (bits := _jpeg_bits(buffer)) not in (None, 8):
            raise wrong_depth(f"a JPEG of {bits} bit") from error
        known = next((name for magic, name in _OTHER_CONTENT.items() if head.startswith(magic)), None)
        if head[4:8] == b"ftyp":
            known = _BRANDS.get(head[8:12], "a video, or an image in its container")
        if head.startswith(b"\xff\xd8\xff"):
            known = "a JPEG-LS or lossless JPEG, or a damaged one"
        is_text = all(byte >= 32 or byte in b"\r\n\t" for byte in head)
        content = known or ("text" if is_text else "of no image type that is read")
        raise InputImageError("not_image", f"the content is {content}; accepted are {ACCEPTED}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise undecodable(error) from error
    limits.check(*image.size)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a JPEG with a preview behind it
        raise InputImageError("page_required", f"the file has {frames} frames; give each as a file of its own")
    if image.mode == "1":
        raise bitonal()
    if image.mode in ("La", "RGBa", "PA") or (image.mode == "P" and "transparency" in image.info):
        raise transparent()
    if image.mode not in _CHANNELS:
        raise InputImageError("color_model", f"colour model {image.mode}; convert to 8 or 16 bit gray or RGB")
    assert image.format is not None  # of an opened file
    kind = "jpeg" if image.format == "MPO" else image.format.lower()
    photoshop, has_alpha = image.info.get("photoshop"), image.mode in ("LA", "RGBA")

    def blocks() -> Iterator[Block]:
        stored = pillow_blocks(file, (kind.upper(),))
        return without_alpha(stored, 8) if has_alpha else stored

    return Raster(
        kind=kind,
        height=image.height,
        width=image.width,
        channels=_CHANNELS[image.mode],
        dtype=np.dtype(np.uint8),
        blocks=blocks,
        metadata=from_exif(
            image.info.get("exif", b""),
            Metadata(
                dpi=sane_dpi(*image.info["dpi"]) if len(image.info.get("dpi", ())) == 2 else None,
                icc=image.info.get("icc_profile"),
                xmp=image.info.get("xmp"),
                iptc=photoshop.get(_PHOTOSHOP_IPTC) if isinstance(photoshop, dict) else None,
                dropped=("comment",) if image.info.get("comment") else (),
            ),
        ),
        photometric="RGB" if _CHANNELS[image.mode] == 3 else "MinIsBlack",
        compression=kind,
        decoder=f"Pillow {pillow_version}",
    )


def _jpeg_bits(buffer: memoryview) -> int | None:
    """The precision that a JPEG's frame header gives; None where there is none."""
    at = 2
    while at + 5 <= len(buffer) and buffer[at] == 0xFF:
        marker, size = buffer[at + 1], int.from_bytes(buffer[at + 2 : at + 4], "big")
        if marker in _FRAMES or marker == _JPEG_LS:
            return buffer[at + 4]
        at += 2 + size
    return None


def write_webp(file: BinaryIO, strips: Iterable[NDArray], form: PictureFormat) -> None:
    Image.fromarray(whole_picture(strips, form)).save(
        file, "WEBP", lossless=True, method=4, icc_profile=form.icc, exif=form.metadata.exif, xmp=form.xmp or b""
    )


def jpeg(pixels: NDArray[np.uint8], form: PictureFormat, quality: int) -> bytes:
    """A JPEG of (H, W, 3) or (H, W), 4:4:4, with the same metadata."""
    options: dict[str, Any] = {"exif": form.metadata.exif} if form.metadata.exif else {}
    if form.metadata.dpi:
        options["dpi"] = tuple(round(value) for value in form.metadata.dpi)
    if form.xmp:
        options["xmp"] = form.xmp
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, "JPEG", quality=quality, subsampling=0, optimize=True, icc_profile=form.icc, **options
    )
    return buffer.getvalue()


def fits_jpeg(form: PictureFormat) -> bool:
    """Whether a JPEG's segments can hold the metadata."""
    return len(form.xmp or b"") < _SEGMENT and len(form.metadata.exif) < _SEGMENT
