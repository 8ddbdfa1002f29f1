"""PNG: its chunks, and a writer of 8 and 16 bit that works by strips, which no library offers."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version

from pipelines.images.formats.pillow import pillow_blocks
from pipelines.images.formats.table import FORMATS
from pipelines.images.ifd import Buffer
from pipelines.images.metadata import Metadata, from_exif, sane_dpi
from pipelines.images.picture_format import SOFTWARE, PictureFormat
from pipelines.images.raster import (
    Block,
    Limits,
    Raster,
    bitonal,
    transparent,
    truncated,
    undecodable,
    without_alpha,
    without_key,
    wrong_depth,
)

(SIGNATURE,) = FORMATS["png"].signatures
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_IPTC_KEYWORD = b"Raw profile type iptc"  # the convention of ImageMagick and exiv2
_PER_METRE = 0.0254
_MAX_TEXT = 64 << 20
_LEVEL = 6
MAX_CHUNKS = 200_000


@dataclass(frozen=True)
class Header:
    """IHDR."""

    width: int
    height: int
    bits: int
    color_type: int


def read_header(buffer: Buffer) -> Header:
    """Raises ValueError or struct.error if it is not that of a PNG."""
    if bytes(buffer[12:16]) != b"IHDR":
        raise ValueError("no IHDR")
    width, height, bits, color_type = struct.unpack_from(">IIBB", buffer, 16)
    return Header(width, height, bits, color_type)


def _chunks(buffer: Buffer) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and size of each chunk's body, up to where the file ends; at most `MAX_CHUNKS`."""
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(buffer):
            return
        size, kind = struct.unpack_from(">I4s", buffer, at)
        if at + 12 + size > len(buffer):
            return
        yield kind, at + 8, size
        at += 12 + size


def read_metadata(buffer: Buffer) -> dict[str, Any]:
    """dpi, icc, exif, xmp, iptc, gamma and tRNS (`key`) of a PNG, None or b"" where it has none; and the names of
    chunks that are damaged or not carried into an output."""
    parts: dict[str, Any] = {"dpi": None, "icc": None, "exif": b"", "xmp": None, "iptc": None, "key": b""}
    parts |= {"gamma": None, "srgb": False}
    dropped = []
    for kind, start, size in _chunks(buffer):
        if kind == b"IDAT":
            continue
        try:
            if size > _MAX_TEXT:
                raise ValueError("it is too large")
            known = _read_chunk(kind, bytes(buffer[start : start + size]), parts)
        except (ValueError, IndexError, struct.error) as error:
            dropped.append(f"{kind.decode('latin-1')} (damaged: {error})")
            continue
        if not known:
            dropped.append(kind.decode("latin-1"))
    if parts.pop("srgb") or parts["icc"]:  # they say more, and count
        parts["gamma"] = None
    return {**parts, "dropped": tuple(dict.fromkeys(dropped))}


def _read_chunk(kind: bytes, body: bytes, parts: dict[str, Any]) -> bool:
    """Adds a chunk's content to `parts`; False if the chunk holds metadata that is not carried."""
    if kind == b"pHYs":
        across, down, unit = struct.unpack(">IIB", body)
        if unit == 1:
            parts["dpi"] = sane_dpi(across * _PER_METRE, down * _PER_METRE)
    elif kind == b"iCCP":
        parts["icc"] = _inflated(body.partition(b"\0")[2][1:])
    elif kind == b"gAMA":
        parts["gamma"] = struct.unpack(">I", body)[0] / 100_000
    elif kind == b"sRGB":
        parts["srgb"] = True
    elif kind == b"eXIf":
        parts["exif"] = body
    elif kind == b"tRNS":
        parts["key"] = body
    elif kind == b"iTXt" and body.startswith(_XMP_KEYWORD + b"\0"):
        packed, rest = body[len(_XMP_KEYWORD) + 1], body[len(_XMP_KEYWORD) + 3 :]
        text = rest.split(b"\0", 2)[2]
        parts["xmp"] = _inflated(text) if packed else text
    elif kind == b"zTXt" and body.startswith(_IPTC_KEYWORD + b"\0"):
        parts["iptc"] = _from_hex(_inflated(body[len(_IPTC_KEYWORD) + 2 :]))
    else:
        return kind not in (b"tEXt", b"zTXt", b"iTXt", b"tIME")
    return True


def _inflated(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(packed, _MAX_TEXT)
    except zlib.error as error:
        raise ValueError(f"a damaged text chunk ({error})") from error
    if unpacker.unconsumed_tail:
        raise ValueError(f"a text chunk of more than {_MAX_TEXT} bytes")
    return unpacked


def _from_hex(text: bytes) -> bytes | None:
    """The body of ImageMagick's raw profile: a name, a length, hex digits."""
    try:
        return bytes.fromhex(text.split(None, 2)[2].decode("ascii"))
    except (IndexError, ValueError):
        return None


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def write_png(
    file: BinaryIO,
    strips: Iterable[NDArray[np.unsignedinteger]],
    *,
    height: int,
    width: int,
    dtype: np.dtype,
    icc: bytes,
    dpi: tuple[float, float] | None = None,
    exif: bytes = b"",
    xmp: bytes | None = None,
    iptc: bytes | None = None,
    texts: dict[str, str] | None = None,
) -> None:
    """Writes (rows, width, 3) strips of uint8 or uint16, top to bottom, with their metadata in front."""
    file.write(SIGNATURE)
    file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, 2, 0, 0, 0)))
    file.write(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if dpi:
        across, down = (round(value / _PER_METRE) for value in dpi)
        file.write(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if exif:
        file.write(_chunk(b"eXIf", exif))
    if xmp:
        file.write(_chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + xmp))
    if iptc:
        raw = b"\niptc\n%8d\n" % len(iptc) + iptc.hex().encode() + b"\n"
        file.write(_chunk(b"zTXt", _IPTC_KEYWORD + b"\0\0" + zlib.compress(raw)))
    for keyword, text in (texts or {}).items():
        file.write(_chunk(b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()))
    packer, above = zlib.compressobj(_LEVEL), np.zeros(width * 3 * dtype.itemsize, np.uint8)
    for strip in strips:
        rows = strip.astype(dtype.newbyteorder(">")).view(np.uint8).reshape(len(strip), -1)
        if packed := packer.compress(_filtered(rows, above, 3 * dtype.itemsize)):
            file.write(_chunk(b"IDAT", packed))
        above = rows[-1]
    file.write(_chunk(b"IDAT", packer.flush()))
    file.write(_chunk(b"IEND", b""))


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel: int) -> bytes:
    """Each row with the filter whose output has the smallest sum of signed bytes (the PNG standard's heuristic)."""
    up = np.concatenate([above[None], rows[:-1]])
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, pixel:], corner[:, pixel:] = rows[:, :-pixel], up[:, :-pixel]
    candidates = np.stack([rows, rows - left, rows - up, rows - _paeth(left, up, corner)])
    best = np.abs(candidates.view(np.int8).astype(np.int16)).sum(-1, dtype=np.int64).argmin(0)
    chosen = np.take_along_axis(candidates, best[None, :, None], 0)[0]
    kinds = np.array([0, 1, 2, 4], np.uint8)[best]
    return np.concatenate([kinds[:, None], chosen], axis=1).tobytes()


def _paeth(left: NDArray, up: NDArray, corner: NDArray) -> NDArray[np.uint8]:
    a, b, c = (plane.astype(np.int16) for plane in (left, up, corner))
    estimate = a + b - c
    of_a, of_b, of_c = abs(estimate - a), abs(estimate - b), abs(estimate - c)
    return np.where((of_a <= of_b) & (of_a <= of_c), left, np.where(of_b <= of_c, up, corner))


def open_png(file: BinaryIO, buffer: memoryview, _page: int | None, limits: Limits) -> Raster:
    try:
        header = read_header(buffer)
        limits.check(header.width, header.height)
        parts = read_metadata(buffer)
    except (struct.error, ValueError) as error:
        raise undecodable(error) from error
    if header.bits == 1 and header.color_type == 0:
        raise bitonal()
    key, is_palette, has_alpha = parts.pop("key"), header.color_type == 3, header.color_type in (4, 6)
    if is_palette and key:
        raise transparent()
    if header.bits not in (8, 16) and not is_palette:
        raise wrong_depth(f"{header.bits} bit unsigned")
    exif = parts.pop("exif")
    wide = header.bits == 16  # Pillow would read it as 8 bit, or clip it
    channels = 3 if header.color_type in (2, 3, 6) else 1

    def blocks() -> Iterator[Block]:
        if has_alpha:
            return without_alpha(stored(), header.bits)
        return without_key(stored(), struct.unpack(f">{channels}H", key)) if key else stored()

    def stored() -> Iterator[Block]:
        if not wide:
            yield from pillow_blocks(file, ("PNG",))
            return
        try:
            pixels = imagecodecs.png_decode(buffer)  # type: ignore[arg-type]  # it takes any buffer
        except Exception as error:
            raise truncated(error) from error
        yield 0, 0, pixels

    return Raster(
        kind="png",
        height=header.height,
        width=header.width,
        channels=channels,
        dtype=np.dtype(f"u{header.bits // 8}"),
        blocks=blocks,
        metadata=from_exif(exif, Metadata(**parts)),
        photometric="RGB" if channels == 3 else "MinIsBlack",
        compression="deflate",
        decoder=f"imagecodecs {imagecodecs.__version__}" if wide else f"Pillow {pillow_version}",
    )


def write_picture(file: BinaryIO, strips: Iterable[NDArray[np.unsignedinteger]], form: PictureFormat) -> None:
    metadata = form.metadata
    write_png(
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
