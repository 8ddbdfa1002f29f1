"""JPEG 2000: the boxes of a JP2 file (ISO/IEC 15444-1, annex I), which the codec neither reads nor writes."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pipelines.images.errors import InputImageError
from pipelines.images.formats.table import FORMATS
from pipelines.images.ifd import Buffer
from pipelines.images.metadata import Metadata, from_exif, sane_dpi
from pipelines.images.picture_format import PictureFormat, whole_picture
from pipelines.images.raster import (
    Block,
    Limits,
    Raster,
    scaled,
    truncated,
    undecodable,
    without_alpha,
    wrong_depth,
)

SIGNATURE, CODESTREAM = FORMATS["jp2"].signatures
CMYK, SYCC = 12, 18
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_IPTC = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_EXIF = b"JpgTiffExif->JP2"
_MAX_BOX = 64 << 20
_PER_METRE = 0.0254


@dataclass(frozen=True, kw_only=True)
class Header:
    """What precedes the pixels. `bits` is 0 where components differ; the codestream starts at byte `stream`."""

    width: int
    height: int
    components: int
    bits: int
    signed: bool
    palette: bool = False
    color_space: int | None = None
    dpi: tuple[float, float] | None = None
    icc: bytes | None = None
    exif: bytes = b""
    xmp: bytes | None = None
    iptc: bytes | None = None
    stream: int = 0


def _boxes(buffer: Buffer, first: int, last: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each box's content."""
    at = first
    while at + 8 <= last:
        size, kind = struct.unpack_from(">I4s", buffer, at)
        start = at + 8
        if size == 1:
            size, start = struct.unpack_from(">Q", buffer, at + 8)[0], at + 16
        end = last if size == 0 else at + size
        if end < start:
            raise ValueError(f"a box of {size} bytes at {at}")
        yield kind, start, min(end, last)
        at = end


def read_header(buffer: Buffer) -> Header:
    """Header of a JP2 file or a bare codestream; raises ValueError, IndexError or struct.error if it is broken."""
    if bytes(buffer[:4]) == CODESTREAM:
        return _codestream(buffer, 0)
    image, stream = _ImageHeader(), None
    uuids: dict[bytes, bytes] = {}
    for kind, start, end in _boxes(buffer, 0, len(buffer)):
        if kind == b"jp2c":
            stream = start
        elif end - start > _MAX_BOX:
            continue
        elif kind == b"jp2h":
            _read_image_header(buffer, start, end, image)
        elif kind == b"uuid" and (uuid := bytes(buffer[start : start + 16])) in (_EXIF, _XMP, _IPTC):
            uuids[uuid] = bytes(buffer[start + 16 : end])
    if stream is None:
        raise ValueError("no codestream in it")
    return replace(
        _codestream(buffer, stream),
        palette=image.palette,
        color_space=image.color_space,
        dpi=image.dpi,
        icc=image.icc,
        exif=uuids.get(_EXIF, b""),
        xmp=uuids.get(_XMP),
        iptc=uuids.get(_IPTC),
        stream=stream,
    )


def _codestream(buffer: Buffer, at: int) -> Header:
    """Size and depth from the SIZ marker, which comes first in a codestream."""
    if bytes(buffer[at : at + 4]) != CODESTREAM:
        raise ValueError("the codestream does not start with SOC and SIZ")
    right, bottom, left, top = struct.unpack_from(">4I", buffer, at + 8)
    components = struct.unpack_from(">H", buffer, at + 40)[0]
    depths = {buffer[at + 42 + 3 * number] for number in range(components)}
    depth = depths.pop() if len(depths) == 1 else None
    return Header(
        width=right - left,
        height=bottom - top,
        components=components,
        bits=(depth & 0x7F) + 1 if depth is not None else 0,
        signed=depth is not None and bool(depth & 0x80),
    )


@dataclass
class _ImageHeader:
    """The facts of a jp2h box that a codestream lacks."""

    palette: bool = False
    color_space: int | None = None
    dpi: tuple[float, float] | None = None
    icc: bytes | None = None


def _read_image_header(buffer: Buffer, first: int, last: int, image: _ImageHeader) -> None:
    for kind, start, end in _boxes(buffer, first, last):
        if kind == b"pclr":
            image.palette = True
        elif kind == b"colr" and buffer[start] == 1:
            image.color_space = struct.unpack_from(">I", buffer, start + 3)[0]
        elif kind == b"colr" and buffer[start] == 2:
            image.icc = bytes(buffer[start + 3 : end])
        elif kind == b"res ":
            for inner, at, _ in _boxes(buffer, start, end):
                if inner in (b"resc", b"resd"):
                    image.dpi = _dpi(*struct.unpack_from(">HHHHbb", buffer, at)) or image.dpi


def _dpi(
    down: int, down_by: int, across: int, across_by: int, down_exponent: int, across_exponent: int
) -> tuple[float, float] | None:
    """Pixels per inch across and down, from fractions and powers of ten per metre."""
    if not down_by or not across_by:
        return None
    return sane_dpi(
        across / across_by * 10.0**across_exponent * _PER_METRE, down / down_by * 10.0**down_exponent * _PER_METRE
    )


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _resolution(dpi: float) -> tuple[int, int, int]:
    """Pixels per metre as numerator, denominator and exponent of ten, to five digits."""
    per_metre, exponent = dpi / _PER_METRE, 0
    while per_metre > 65535:
        per_metre, exponent = per_metre / 10, exponent + 1
    denominator = 1
    while per_metre * denominator * 10 < 65535 and denominator < 1000:
        denominator *= 10
    return round(per_metre * denominator), denominator, exponent


def with_metadata(
    content: bytes,
    *,
    icc: bytes,
    dpi: tuple[float, float] | None,
    exif: bytes,
    xmp: bytes | None,
    iptc: bytes | None,
) -> bytes:
    """The codec's JP2 file with colour space, resolution, EXIF, XMP and IPTC added."""
    before, after = b"", b""
    extra = b"".join(_box(b"uuid", name + part) for name, part in ((_EXIF, exif), (_XMP, xmp), (_IPTC, iptc)) if part)
    for kind, start, end in _boxes(content, 0, len(content)):
        if kind == b"jp2h":
            inner = b"".join(
                _box(inner_kind, content[first:last])
                for inner_kind, first, last in _boxes(content, start, end)
                if inner_kind not in (b"colr", b"res ")
            )
            inner += _box(b"colr", b"\x02\0\0" + icc)
            if dpi:
                across, down = _resolution(dpi[0]), _resolution(dpi[1])
                captured = struct.pack(">HHHHbb", down[0], down[1], across[0], across[1], down[2], across[2])
                inner += _box(b"res ", _box(b"resc", captured))
            before += _box(b"jp2h", inner) + extra
        elif kind == b"jp2c":
            after = _box(b"jp2c", content[start:end])
        else:
            before += _box(kind, content[start:end])
    return before + after


def open_jp2(_file: BinaryIO, buffer: memoryview, _page: int | None, limits: Limits) -> Raster:
    try:
        header = read_header(buffer)
    except (struct.error, ValueError, IndexError) as error:
        raise undecodable(error) from error
    limits.check(header.width, header.height)
    has_alpha = header.components in (2, 4) and header.color_space != CMYK
    if (header.components not in (1, 3) and not has_alpha) or header.palette:
        message = f"{header.components} components{' and a palette' if header.palette else ''}"
        raise InputImageError("color_model", f"{message}; convert to 8 or 16 bit gray or RGB")
    if header.color_space == SYCC:
        raise InputImageError("color_model", "colour model YCC; convert to 8 or 16 bit gray or RGB")
    if not 8 <= header.bits <= 16 or header.signed:
        raise wrong_depth(f"{header.bits} bit {'signed' if header.signed else 'unsigned'}")

    def blocks() -> Iterator[Block]:
        try:
            # Given the whole file, the codec would convert the samples by the ICC profile; we keep what is stored.
            pixels = imagecodecs.jpeg2k_decode(buffer[header.stream :])  # type: ignore[arg-type]  # it takes any buffer
        except Exception as error:
            raise truncated(error) from error
        if pixels.shape[:2] != (header.height, header.width):
            raise truncated(f"the codestream holds {pixels.shape[1]} x {pixels.shape[0]} pixels")
        whole: Iterator[Block] = iter([(0, 0, pixels)])
        if has_alpha:
            whole = without_alpha(whole, header.bits)
        yield from scaled(whole, header.bits) if is_scaled else whole

    channels, is_scaled = header.components - has_alpha, header.bits not in (8, 16)
    return Raster(
        kind="jp2",
        height=header.height,
        width=header.width,
        channels=channels,
        dtype=np.dtype(np.uint8 if header.bits == 8 else np.uint16),
        blocks=blocks,
        metadata=from_exif(header.exif, Metadata(dpi=header.dpi, icc=header.icc, xmp=header.xmp, iptc=header.iptc)),
        photometric="RGB" if channels == 3 else "MinIsBlack",
        compression="jpeg2000",
        bits=header.bits if is_scaled else 0,
        decoder=f"imagecodecs {imagecodecs.__version__}",
    )


def write_jp2(file: BinaryIO, strips: Iterable[NDArray], form: PictureFormat) -> None:
    encoded = imagecodecs.jpeg2k_encode(whole_picture(strips, form), level=0, codecformat="jp2", reversible=True)
    metadata = form.metadata
    file.write(
        with_metadata(
            bytes(encoded), icc=form.icc, dpi=metadata.dpi, exif=metadata.exif, xmp=form.xmp, iptc=metadata.iptc
        )
    )
