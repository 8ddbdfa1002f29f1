"""Opening and writing files of every format in the table. A file's format is decided by its content, not its name."""

import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.images.deadline import within_deadline
from pipelines.images.errors import InputImageError
from pipelines.images.formats.jp2 import open_jp2, write_jp2
from pipelines.images.formats.pillow import open_by_pillow, write_webp
from pipelines.images.formats.png import open_png, write_picture
from pipelines.images.formats.table import FORMATS, OutputFormat, format_of_content
from pipelines.images.formats.tiff import open_tiff, write_tiff
from pipelines.images.picture_format import PictureFormat
from pipelines.images.raster import Limits, Raster, truncated, undecodable

Strips = Iterable[NDArray[np.unsignedinteger]]
MOST_PIXELS_OF_A_BYTE = 2000  # Deflate packs 1032 equal bytes into one; a picture is never so dull
# The codec holds the whole picture as 32-bit integers; WebP's sides end at 16383.
MAX_JP2_PIXELS, MAX_WEBP_SIDE = 40_000_000, 16383


@dataclass(frozen=True)
class Codec:
    """How one format is read, and written where it is an output format."""

    open: Callable[[BinaryIO, memoryview, int | None, Limits], Raster]
    write: Callable[[BinaryIO, Strips, PictureFormat], None] | None = None


CODECS = {
    "tiff": Codec(open_tiff, write_tiff),
    "png": Codec(open_png, write_picture),
    "jp2": Codec(open_jp2, write_jp2),
    "webp": Codec(open_by_pillow, write_webp),
    "jpeg": Codec(open_by_pillow),
    "bmp": Codec(open_by_pillow),
}


@within_deadline
def open_raster(file: BinaryIO, max_pixels: int, page: int | None = None, min_side: int = 1) -> Raster:
    """Opens an image by its header; its size is checked before anything is decoded.

    Args:
        file: seekable; a real file is mapped, not read.
        page: of a TIFF, from 0; required if the file has several pages.

    Raises:
        InputImageError: with the kinds of docs/errors.md.
    """
    buffer = _mapped(file)
    head = bytes(buffer[:16])
    if not head:
        raise InputImageError("empty", "the file has 0 bytes; copy it again from its source")
    kind = format_of_content(head)
    if page and (kind is None or kind.name != "tiff"):
        raise InputImageError("page_range", f"page {page} of a file that has 1 page (pages count from 0)")
    # Without a known signature, Pillow's reader refuses the content and reports what it may be.
    codec = CODECS[kind.name] if kind else Codec(open_by_pillow)
    try:
        raster = codec.open(file, buffer, page, Limits(max_pixels=max_pixels, min_side=min_side))
    except (InputImageError, MemoryError):
        raise
    except Exception as error:  # whatever a library raises of a header that lies
        raise undecodable(f"{type(error).__name__}: {error}") from error
    if raster.height * raster.width > MOST_PIXELS_OF_A_BYTE * len(buffer):
        claimed = f"{raster.width} x {raster.height} pixels in {len(buffer)} bytes"
        raise truncated(f"{claimed}, more than any codec packs into them")
    return raster


def _mapped(file: BinaryIO) -> memoryview:
    """The file's bytes without reading them."""
    try:
        descriptor = file.fileno()
    except (OSError, AttributeError):
        file.seek(0)
        return memoryview(file.read())
    file.flush()
    size = os.fstat(descriptor).st_size
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")


def format_for(wanted: str, source: str, height: int, width: int, dtype: np.dtype) -> tuple[str, str | None]:
    """The format of an output ("input": the scan's own), and the reason if it is not the wanted one."""
    chosen = FORMATS[source].output if wanted == OutputFormat.input else wanted
    if chosen == "jp2" and height * width > MAX_JP2_PIXELS:
        limit = MAX_JP2_PIXELS // 1_000_000
        return "tiff", f"written as TIFF: over {limit} MP the JPEG 2000 encoder needs too much memory"
    if chosen == "webp" and (dtype.itemsize > 1 or max(height, width) > MAX_WEBP_SIDE):
        return "tiff", "written as TIFF: WebP has 8 bits and sides of at most 16383 pixels"
    return chosen, None


def write(file: BinaryIO, strips: Strips, form: PictureFormat) -> None:
    """Writes (rows, width, 3) strips, top to bottom, to an empty file opened for reading and writing."""
    writer = CODECS[form.format].write
    assert writer is not None, f"{form.format} is no output format"
    writer(file, strips, form)
    file.flush()


def losses(form: PictureFormat) -> str | None:
    """A warning that lists the scan's metadata that the format cannot hold; None if it holds all."""
    if form.format != "webp":
        return None
    lost = [name for name, value in (("IPTC-IIM", form.metadata.iptc), ("resolution", form.metadata.dpi)) if value]
    return f"not carried into WebP: {', '.join(lost)}" if lost else None
