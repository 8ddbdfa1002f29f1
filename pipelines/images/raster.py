"""Files to pixels, some rows or tiles at a time. What a file is, is decided by its content, never by its name."""

import logging
import math
import mmap
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL import __version__ as pillow_version

from pipelines.images import ifd
from pipelines.images.errors import InputImageError
from pipelines.images.formats import jp2, png
from pipelines.images.metadata import Metadata, from_exif, read_tags, sane_dpi

Block = tuple[int, int, NDArray]
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its findings become our errors
_PHOTOSHOP_IPTC = 0x0404
_SIGNATURES = {
    b"%PDF": "a PDF (export its pages first)",
    b"PK\x03\x04": "a ZIP archive",
    b"<!DO": "an HTML page",
    b"<htm": "an HTML page",
    b"<?xm": "an XML file",
    b"{": "JSON text",
    b"GIF8": "a GIF",
}
ACCEPTED = "PNG, JPEG, TIFF, JPEG 2000, WebP and BMP"
_TIFF_PHOTOMETRIC = {0: "MinIsWhite", 1: "MinIsBlack", 2: "RGB", 6: "YCbCr"}
_CHANNELS = {"L": 1, "RGB": 3}


@dataclass(frozen=True, kw_only=True)
class Raster:
    """An opened image. `blocks()` yields (y, x, pixels): pixels (h, w) or (h, w, 3), all blocks together the image.

    Attributes:
        kind: "tiff", "png", "jp2", "jpeg", "webp" or "bmp".
        channels: 1 or 3.
        dtype: uint8 or uint16.
        pages: of the file.
        photometric, compression: as the file has them, in words.
        decoder: library and version that reads the pixels.
    """

    kind: str
    height: int
    width: int
    channels: int
    dtype: np.dtype
    blocks: Callable[[], Iterator[Block]]
    metadata: Metadata
    photometric: str
    compression: str
    decoder: str
    pages: int = 1


def open_raster(file: BinaryIO, max_pixels: int, page: int | None = None, min_side: int = 1) -> Raster:
    """Opens an image by its header: nothing is decoded before its size is known to be bearable.

    Args:
        file: seekable; a real file is mapped, not read.
        page: of a TIFF, from 0. A file of several pages needs it.

    Raises:
        InputImageError: with the kinds of docs/errors.md.
    """
    buffer = _mapped(file)
    head = bytes(buffer[:16])
    if not head:
        raise InputImageError("empty", "the file has 0 bytes; copy it again from its source")
    limits = _Limits(max_pixels, min_side)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(file, buffer, page, limits)
    if page:
        raise InputImageError("page_range", f"page {page} of a file that has 1 page (pages count from 0)")
    if head.startswith(png.SIGNATURE):
        return _png(file, buffer, limits)
    if head.startswith((jp2.SIGNATURE, jp2.CODESTREAM)):
        return _jp2(buffer, limits)
    return _by_pillow(file, buffer, limits)


@dataclass(frozen=True)
class _Limits:
    max_pixels: int
    min_side: int

    def check(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            size, limit = width * height / 1e6, self.max_pixels / 1e6
            raise InputImageError(
                "too_large", f"{width} x {height} = {size:.0f} MP, limit {limit:.0f} MP (--max-pixels)"
            )
        if min(width, height) < self.min_side:
            message = f"{width} x {height} pixels; both sides need at least {self.min_side}"
            raise InputImageError("too_small", message)


def _mapped(file: BinaryIO):
    """The file's bytes without reading them."""
    try:
        descriptor = file.fileno()
    except (OSError, AttributeError):
        file.seek(0)
        return memoryview(file.read())
    file.flush()
    size = os.fstat(descriptor).st_size
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")


def _truncated(error: object) -> InputImageError:
    return InputImageError("truncated", f"the pixels cannot be decoded to the end ({error}); copy it again")


def _undecodable(error: object) -> InputImageError:
    return InputImageError("undecodable", f"the header is damaged ({error}); copy the file again")


def _depth(bits: object) -> InputImageError:
    return InputImageError("depth", f"{bits} per sample; convert to 8 or 16 bit unsigned gray")


_BITONAL = ("bitonal", "pure black and white cannot carry colour; scan in gray")
_ALPHA = ("alpha", "the image has transparency; flatten it to gray")


# TIFF ----------------------------------------------------------------------------------------------------------------


def _tiff(file: BinaryIO, buffer: memoryview, number: int | None, limits: _Limits) -> Raster:
    file.seek(0)
    try:
        tiff = tifffile.TiffFile(file)
        # Thumbnails and masks are pages of the file, but none of the document.
        pages = [page for page in tiff.pages if not page.subfiletype & 0b101]
    except Exception as error:  # tifffile raises what its parts raise
        raise _undecodable(error) from error
    if not pages:
        raise _undecodable("no page in it")
    if number is None and len(pages) > 1:
        raise InputImageError("page_required", f"the file has {len(pages)} pages; set `page` (from 0) in the manifest")
    if not 0 <= (number or 0) < len(pages):
        raise InputImageError("page_range", f"page {number} of a file that has {len(pages)} (pages count from 0)")
    page = pages[number or 0]
    limits.check(page.imagewidth, page.imagelength)
    _refuse_tiff(page, len(buffer))
    metadata = read_tags(buffer, page.offset, ifd.layout_of(bytes(buffer[:4])))
    photometric = _TIFF_PHOTOMETRIC[int(page.photometric)]
    return Raster(
        kind="tiff",
        height=page.imagelength,
        width=page.imagewidth,
        channels=page.samplesperpixel,
        dtype=np.dtype(f"u{page.bitspersample // 8}"),
        blocks=lambda: _tiff_blocks(page, inverted=photometric == "MinIsWhite"),
        metadata=metadata,
        photometric=photometric,
        compression=_name_of(page.compression),
        decoder=f"tifffile {tifffile.__version__}, imagecodecs {imagecodecs.__version__}",
        pages=len(pages),
    )


def _name_of(value: object) -> str:
    return getattr(value, "name", str(value)).lower()


def _refuse_tiff(page: tifffile.TiffPage, file_size: int) -> None:
    photometric = int(page.photometric)
    if page.bitspersample == 1:
        raise InputImageError(*_BITONAL, skipped=True)
    if page.extrasamples:
        raise InputImageError(*_ALPHA)
    stored_ycbcr = photometric == 6 and page.compression != 7  # only JPEG's decoder makes RGB of it
    if photometric not in _TIFF_PHOTOMETRIC or page.samplesperpixel not in (1, 3) or stored_ycbcr:
        name = _name_of(page.photometric)
        raise InputImageError("color_model", f"colour model {name}; convert to 8 or 16 bit gray or RGB")
    if page.sampleformat != 1 or page.bitspersample not in (8, 16):
        form = {1: "unsigned", 2: "signed", 3: "float"}.get(int(page.sampleformat), "unknown")
        raise _depth(f"{page.bitspersample} bit {form}")
    if page.imagedepth != 1:
        raise InputImageError("color_model", "a volume; give each plane as a page of its own")
    if page.compression == 6:
        raise InputImageError("compression", "old-style JPEG in TIFF; save it again with Deflate or LZW")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    kind, expected = "tile" if page.is_tiled else "strip", math.prod(page.chunked)
    if len(segments) < expected:
        raise _truncated(f"{len(segments)} {kind}s of {expected}")
    for segment, (offset, size) in enumerate(segments):
        if not offset or not size or offset + size > file_size:
            raise _truncated(f"{kind} {segment + 1} of {len(segments)} is not in the file")


def _tiff_blocks(page: tifffile.TiffPage, inverted: bool) -> Iterator[Block]:
    try:
        if page.planarconfig == 2 and page.samplesperpixel > 1:  # one plane behind the other
            whole = np.moveaxis(page.asarray(maxworkers=1), 0, -1)
            yield 0, 0, whole
            return
        full = np.iinfo(page.dtype).max
        for block, index, shape in page.segments(maxworkers=1, buffersize=8 << 20):
            y, x = index[-3], index[-2]
            height, width = min(shape[-3], page.imagelength - y), min(shape[-2], page.imagewidth - x)
            pixels = block.reshape(block.shape[-3:])[:height, :width]
            if pixels.dtype != page.dtype or pixels.shape[-1] != page.samplesperpixel:
                raise InputImageError(
                    "compression", f"the codec gives {pixels.dtype} x {pixels.shape[-1]}, not what the tags say"
                )
            pixels = pixels[..., 0] if page.samplesperpixel == 1 else pixels
            yield y, x, full - pixels if inverted else pixels
    except InputImageError:
        raise
    except Exception as error:  # imagecodecs has an exception per codec
        raise _truncated(error) from error


# PNG, JPEG 2000, and what Pillow reads -------------------------------------------------------------------------------


def _png(file: BinaryIO, buffer: memoryview, limits: _Limits) -> Raster:
    try:
        header = png.read_header(buffer)
        limits.check(header.width, header.height)
        parts = png.read_metadata(buffer)
    except (struct.error, ValueError) as error:
        raise _undecodable(error) from error
    if header.bits == 1 and header.color_type == 0:
        raise InputImageError(*_BITONAL, skipped=True)
    if header.color_type in (4, 6) or parts.pop("transparent"):
        raise InputImageError(*_ALPHA)
    if header.color_type == 3:
        raise InputImageError("color_model", "colour model palette; convert to 8 or 16 bit gray or RGB")
    if header.bits not in (8, 16):
        raise _depth(f"{header.bits} bit unsigned")
    exif = parts.pop("exif")
    wide = header.bits == 16  # which Pillow would read as 8 bit, or clip
    channels = 3 if header.color_type == 2 else 1

    def blocks() -> Iterator[Block]:
        if not wide:
            yield from _pillow_blocks(file, ("PNG",))
            return
        try:
            pixels = imagecodecs.png_decode(buffer)
        except Exception as error:
            raise _truncated(error) from error
        yield 0, 0, pixels

    return Raster(
        kind="png",
        height=header.height,
        width=header.width,
        channels=channels,
        dtype=np.dtype(f"u{header.bits // 8}"),
        blocks=blocks,
        metadata=from_exif(exif, **parts),
        photometric="RGB" if channels == 3 else "MinIsBlack",
        compression="deflate",
        decoder=f"imagecodecs {imagecodecs.__version__}" if wide else f"Pillow {pillow_version}",
    )


def _jp2(buffer: memoryview, limits: _Limits) -> Raster:
    try:
        header = jp2.read_header(buffer)
    except (struct.error, ValueError, IndexError) as error:
        raise _undecodable(error) from error
    limits.check(header.width, header.height)
    if header.components not in (1, 3) or header.palette:
        if header.components in (2, 4) and header.color_space != jp2.CMYK:
            raise InputImageError(*_ALPHA)
        message = f"{header.components} components{' and a palette' if header.palette else ''}"
        raise InputImageError("color_model", f"{message}; convert to 8 or 16 bit gray or RGB")
    if header.color_space == jp2.SYCC:
        raise InputImageError("color_model", "colour model YCC; convert to 8 or 16 bit gray or RGB")
    if header.bits not in (8, 16) or header.signed:
        raise _depth(f"{header.bits} bit {'signed' if header.signed else 'unsigned'}")

    def blocks() -> Iterator[Block]:
        try:
            # Of a whole file the codec would convert the samples by its ICC profile; we keep what is stored.
            pixels = imagecodecs.jpeg2k_decode(buffer[header.stream :])
        except Exception as error:
            raise _truncated(error) from error
        if pixels.shape[:2] != (header.height, header.width):
            raise _truncated(f"the codestream holds {pixels.shape[1]} x {pixels.shape[0]} pixels")
        yield 0, 0, pixels

    return Raster(
        kind="jp2",
        height=header.height,
        width=header.width,
        channels=header.components,
        dtype=np.dtype(f"u{header.bits // 8}"),
        blocks=blocks,
        metadata=from_exif(header.exif, dpi=header.dpi, icc=header.icc, xmp=header.xmp, iptc=header.iptc),
        photometric="RGB" if header.components == 3 else "MinIsBlack",
        compression="jpeg2000",
        decoder=f"imagecodecs {imagecodecs.__version__}",
    )


def _open_by_pillow(file: BinaryIO, formats: tuple[str, ...]) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # our own limit counts, by the header, before any pixel is decoded
    file.seek(0)
    return Image.open(file, formats=formats)


def _pillow_blocks(file: BinaryIO, formats: tuple[str, ...]) -> Iterator[Block]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open_by_pillow(file, formats)
            image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise _truncated(error) from error
    yield 0, 0, np.asarray(image)


def _by_pillow(file: BinaryIO, buffer: memoryview, limits: _Limits) -> Raster:
    head = bytes(buffer[:512])
    try:
        image = _open_by_pillow(file, ("JPEG", "WEBP", "BMP"))
    except UnidentifiedImageError as error:
        kind = next((name for magic, name in _SIGNATURES.items() if head.startswith(magic)), None)
        is_text = all(byte >= 32 or byte in b"\r\n\t" for byte in head)
        looks = kind or ("text" if is_text else "of no image type that is read")
        raise InputImageError("not_image", f"the content is {looks}; accepted are {ACCEPTED}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise _undecodable(error) from error
    limits.check(*image.size)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a JPEG with a preview behind it
        raise InputImageError("page_required", f"the file has {image.n_frames} frames; give each as a file of its own")
    if image.mode == "1":
        raise InputImageError(*_BITONAL, skipped=True)
    if image.mode in ("LA", "RGBA", "La", "RGBa", "PA"):
        raise InputImageError(*_ALPHA)
    if image.mode not in _CHANNELS:
        raise InputImageError("color_model", f"colour model {image.mode}; convert to 8 or 16 bit gray or RGB")
    kind = "jpeg" if image.format == "MPO" else image.format.lower()
    photoshop = image.info.get("photoshop")
    return Raster(
        kind=kind,
        height=image.height,
        width=image.width,
        channels=_CHANNELS[image.mode],
        dtype=np.dtype(np.uint8),
        blocks=lambda: _pillow_blocks(file, (kind.upper(),)),
        metadata=from_exif(
            image.info.get("exif", b""),
            dpi=sane_dpi(*image.info["dpi"]) if len(image.info.get("dpi", ())) == 2 else None,
            icc=image.info.get("icc_profile"),
            xmp=image.info.get("xmp"),
            iptc=photoshop.get(_PHOTOSHOP_IPTC) if isinstance(photoshop, dict) else None,
            dropped=("comment",) if image.info.get("comment") else (),
        ),
        photometric="RGB" if image.mode == "RGB" else "MinIsBlack",
        compression=kind,
        decoder=f"Pillow {pillow_version}",
    )
