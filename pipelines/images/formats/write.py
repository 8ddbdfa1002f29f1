"""Colour pictures as files: lossless, in the scan's depth and size, with what it says about itself and the mark."""

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pipelines.images import ifd, scratch
from pipelines.images.formats import jp2, png
from pipelines.images.metadata import IPTC, XMP, Metadata

SOFTWARE = "diffcolor-batch"
SUFFIXES = {"tiff": "tif", "png": "png", "jp2": "jp2", "webp": "webp"}
# A scan's own format where that can hold 3 x 16 bit without loss; what cannot becomes TIFF.
_OF_SOURCE = {"tiff": "tiff", "png": "png", "jp2": "jp2", "webp": "webp", "jpeg": "tiff", "bmp": "png"}
# The codec holds the whole picture as 32-bit integers; WebP's sides end at 16383.
MAX_JP2_PIXELS, MAX_WEBP_SIDE = 40_000_000, 16383
_SEGMENT = 65_000
_STRIP_BYTES = 256 << 10
_CLASSIC_TIFF_BYTES = 3_900_000_000
# Tags that stand in for 34665 and 34853 until the directories that they point to are written; no standard uses them.
_STAND_INS = {ifd.EXIF: 34666, ifd.GPS: 34854}


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a picture is written as.

    Attributes:
        xmp: the packet, mark included.
        icc: an RGB profile.
    """

    format: str
    height: int
    width: int
    dtype: np.dtype
    metadata: Metadata
    icc: bytes
    xmp: bytes | None


def format_for(wanted: str, source: str, height: int, width: int, dtype: np.dtype) -> tuple[str, str | None]:
    """The format of an output, "input" being the scan's own, and why it is another than wanted, if it is."""
    chosen = _OF_SOURCE[source] if wanted == "input" else wanted
    if chosen == "jp2" and height * width > MAX_JP2_PIXELS:
        limit = MAX_JP2_PIXELS // 1_000_000
        return "tiff", f"written as TIFF: over {limit} MP the JPEG 2000 encoder needs too much memory"
    if chosen == "webp" and (dtype.itemsize > 1 or max(height, width) > MAX_WEBP_SIDE):
        return "tiff", "written as TIFF: WebP has 8 bits and sides of at most 16383 pixels"
    return chosen, None


def write(file: BinaryIO, strips: Iterable[NDArray[np.unsignedinteger]], form: Form) -> None:
    """Writes (rows, width, 3) strips, top to bottom, to an empty file opened for reading and writing."""
    {"tiff": _write_tiff, "png": _write_png, "jp2": _write_jp2, "webp": _write_webp}[form.format](file, strips, form)
    file.flush()


def _write_png(file: BinaryIO, strips: Iterable[NDArray], form: Form) -> None:
    metadata = form.metadata
    png.write_png(
        file,
        strips,
        height=form.height,
        width=form.width,
        dtype=form.dtype,
        icc=form.icc,
        dpi=metadata.dpi,
        exif=metadata.exif,
        xmp=form.xmp,
        iptc=metadata.iptc,
        texts={"Software": SOFTWARE},
    )


def _whole(strips: Iterable[NDArray], form: Form) -> NDArray:
    """For encoders that cannot do with less."""
    pixels, row = scratch.empty((form.height, form.width, 3), form.dtype), 0
    for strip in strips:
        pixels[row : row + len(strip)] = strip
        row += len(strip)
    return pixels


def _write_jp2(file: BinaryIO, strips: Iterable[NDArray], form: Form) -> None:
    encoded = imagecodecs.jpeg2k_encode(_whole(strips, form), level=0, codecformat="jp2", reversible=True)
    metadata = form.metadata
    file.write(
        jp2.with_metadata(
            bytes(encoded), icc=form.icc, dpi=metadata.dpi, exif=metadata.exif, xmp=form.xmp, iptc=metadata.iptc
        )
    )


def _write_webp(file: BinaryIO, strips: Iterable[NDArray], form: Form) -> None:
    Image.fromarray(_whole(strips, form)).save(
        file, "WEBP", lossless=True, method=4, icc_profile=form.icc, exif=form.metadata.exif, xmp=form.xmp or b""
    )


def jpeg(pixels: NDArray[np.uint8], form: Form, quality: int) -> bytes:
    """A JPEG of (H, W, 3) or (H, W), 4:4:4, with the same metadata."""
    options = {"exif": form.metadata.exif} if form.metadata.exif else {}
    if form.metadata.dpi:
        options["dpi"] = tuple(round(one) for one in form.metadata.dpi)
    if form.xmp:
        options["xmp"] = form.xmp
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, "JPEG", quality=quality, subsampling=0, optimize=True, icc_profile=form.icc, **options
    )
    return buffer.getvalue()


def fits_jpeg(form: Form) -> bool:
    """Whether a JPEG's segments can hold the metadata."""
    return len(form.xmp or b"") < _SEGMENT and len(form.metadata.exif) < _SEGMENT


def losses(form: Form) -> str | None:
    """What of the scan's metadata the format has no place for, in words."""
    if form.format != "webp":
        return None
    lost = [name for name, value in (("IPTC-IIM", form.metadata.iptc), ("resolution", form.metadata.dpi)) if value]
    return f"not carried into WebP: {', '.join(lost)}" if lost else None


# TIFF ----------------------------------------------------------------------------------------------------------------


def _write_tiff(file: BinaryIO, strips: Iterable[NDArray], form: Form) -> None:
    metadata, order = form.metadata, form.metadata.layout.order
    row_bytes = form.width * 3 * form.dtype.itemsize
    rows = max(1, _STRIP_BYTES // row_bytes)
    big = form.height * row_bytes > _CLASSIC_TIFF_BYTES
    layout = ifd.Layout(order, big)
    dtype = form.dtype.newbyteorder(order)
    tags = [(code, tag.type, tag.count, tag.raw, True) for code, tag in metadata.tags.items()]
    tags += [(_STAND_INS[code], 4, 1, 0, True) for code in metadata.sub]
    tags += [(code, 7 if code == IPTC else 1, len(part), part, True) for code, part in _parts(form)]
    resolution = {"resolution": metadata.dpi, "resolutionunit": "INCH"} if metadata.dpi else {}
    tifffile.imwrite(
        file,
        _packed(_regrouped(strips, rows), dtype),
        shape=(form.height, form.width, 3),
        dtype=dtype,
        byteorder=order,
        bigtiff=big,
        photometric="rgb",
        compression="adobe_deflate",
        predictor=True,
        rowsperstrip=rows,
        metadata=None,
        software=SOFTWARE,
        iccprofile=form.icc,
        extratags=tags,
        **resolution,
    )
    if metadata.sub:
        _append_directories(file, metadata, layout)


def _parts(form: Form) -> list[tuple[int, bytes]]:
    parts = [(XMP, form.xmp), (IPTC, form.metadata.iptc)]
    return [(code, part) for code, part in parts if part]


def _regrouped(strips: Iterable[NDArray], rows: int) -> Iterator[NDArray]:
    """The same rows, so many at a time; the last strip may be shorter."""
    held = None
    for strip in strips:
        held = strip if held is None else np.concatenate([held, strip])
        while len(held) >= rows:
            yield held[:rows]
            held = held[rows:]
    if held is not None and len(held):
        yield held


def _packed(strips: Iterable[NDArray], dtype: np.dtype) -> Iterator[bytes]:
    """Deflate over horizontal differences (TIFF 6.0, section 14, and Adobe's technical note)."""
    for strip in strips:
        differences = imagecodecs.delta_encode(np.ascontiguousarray(strip), axis=-2)
        yield imagecodecs.deflate_encode(differences.astype(dtype).tobytes(), level=6, raw=False)


def _append_directories(file: BinaryIO, metadata: Metadata, layout: ifd.Layout) -> None:
    """Puts the EXIF and GPS directories behind the pixels and makes their stand-ins point there."""
    file.seek(0, 2)
    file.write(bytes(file.tell() % 2))
    places = {}
    for code, directory in metadata.sub.items():
        places[code] = file.tell()
        file.write(ifd.write_directory(directory, places[code], layout))
    file.seek(8 if layout.big else 4)
    file.seek(struct.unpack(layout.offset, file.read(struct.calcsize(layout.offset)))[0])
    count = struct.unpack(layout.count, file.read(struct.calcsize(layout.count)))[0]
    size, start = struct.calcsize(layout.entry), file.tell()
    codes = {stand_in: code for code, stand_in in _STAND_INS.items()}
    for number in range(count):
        file.seek(start + number * size)
        stand_in = struct.unpack(f"{layout.order}H", file.read(2))[0]
        if stand_in in codes and codes[stand_in] in places:
            tag = ifd.pointer(places[codes[stand_in]], layout)
            file.seek(start + number * size)
            file.write(struct.pack(layout.entry, codes[stand_in], tag.type, tag.count, tag.raw))
