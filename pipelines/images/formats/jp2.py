"""JPEG 2000: the boxes of a JP2 file (ISO/IEC 15444-1, annex I), which the codec neither reads nor writes."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.images.metadata import sane_dpi

SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"\xff\x4f\xff\x51"
CMYK, SYCC = 12, 18
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_IPTC = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_EXIF = b"JpgTiffExif->JP2"
_MAX_BOX = 64 << 20
_PER_METRE = 0.0254


@dataclass(frozen=True, kw_only=True)
class Header:
    """What stands before the pixels. `bits` is 0 where components differ; the codestream starts at `stream`."""

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


def _boxes(buffer, first: int, last: int) -> Iterator[tuple[bytes, int, int]]:
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


def read_header(buffer) -> Header:
    """Header of a JP2 file or a bare codestream; raises ValueError, IndexError or struct.error where it is broken."""
    if bytes(buffer[:4]) == CODESTREAM:
        return Header(**_codestream(buffer, 0))
    facts, stream = {}, None
    for kind, start, end in _boxes(buffer, 0, len(buffer)):
        if kind == b"jp2c":
            stream = start
        elif end - start > _MAX_BOX:
            continue
        elif kind == b"jp2h":
            facts |= _image_header(buffer, start, end)
        elif kind == b"uuid":
            name, content = bytes(buffer[start : start + 16]), bytes(buffer[start + 16 : end])
            if name == _XMP:
                facts["xmp"] = content
            elif name == _IPTC:
                facts["iptc"] = content
            elif name == _EXIF:
                facts["exif"] = content
    if stream is None:
        raise ValueError("no codestream in it")
    return Header(**facts, **_codestream(buffer, stream), stream=stream)


def _codestream(buffer, at: int) -> dict:
    """Of the SIZ marker, which comes first: sizes, and the depth of the components."""
    if bytes(buffer[at : at + 4]) != CODESTREAM:
        raise ValueError("the codestream does not start with SOC and SIZ")
    right, bottom, left, top = struct.unpack_from(">4I", buffer, at + 8)
    components = struct.unpack_from(">H", buffer, at + 40)[0]
    depths = {buffer[at + 42 + 3 * number] for number in range(components)}
    depth = depths.pop() if len(depths) == 1 else None
    return {
        "width": right - left,
        "height": bottom - top,
        "components": components,
        "bits": (depth & 0x7F) + 1 if depth is not None else 0,
        "signed": depth is not None and bool(depth & 0x80),
    }


def _image_header(buffer, first: int, last: int) -> dict:
    facts: dict = {}
    for kind, start, end in _boxes(buffer, first, last):
        if kind == b"pclr":
            facts["palette"] = True
        elif kind == b"colr" and buffer[start] == 1:
            facts["color_space"] = struct.unpack_from(">I", buffer, start + 3)[0]
        elif kind == b"colr" and buffer[start] == 2:
            facts["icc"] = bytes(buffer[start + 3 : end])
        elif kind == b"res ":
            for inner, at, _ in _boxes(buffer, start, end):
                if inner in (b"resc", b"resd"):
                    facts["dpi"] = _dpi(*struct.unpack_from(">HHHHbb", buffer, at)) or facts.get("dpi")
    return facts


def _dpi(down: int, down_by: int, across: int, across_by: int, down_exponent: int, across_exponent: int):
    if not down_by or not across_by:
        return None
    return sane_dpi(
        across / across_by * 10.0**across_exponent * _PER_METRE, down / down_by * 10.0**down_exponent * _PER_METRE
    )


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _resolution(dpi: float) -> tuple[int, int, int]:
    """Pixels per metre as numerator, denominator and exponent: five digits."""
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
    """A JP2 file of the codec with its colour space, resolution, EXIF, XMP and IPTC put into it."""
    before, after = b"", b""
    extra = b"".join(_box(b"uuid", name + part) for name, part in ((_EXIF, exif), (_XMP, xmp), (_IPTC, iptc)) if part)
    for kind, start, end in _boxes(content, 0, len(content)):
        if kind == b"jp2h":
            inner = b"".join(
                _box(one, content[first:last])
                for one, first, last in _boxes(content, start, end)
                if one not in (b"colr", b"res ")
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
