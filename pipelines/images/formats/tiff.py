"""TIFF: pages read by strips and tiles, and a writer by strips that carries the scan's own directories."""

import logging
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from pipelines.images import ifd
from pipelines.images.errors import InputImageError
from pipelines.images.metadata import IPTC, XMP, Metadata, read_tags
from pipelines.images.picture_format import SOFTWARE, PictureFormat
from pipelines.images.raster import (
    Block,
    Limits,
    Raster,
    bitonal,
    looked_up,
    scaled,
    transparent,
    truncated,
    undecodable,
    without_alpha,
    wrong_depth,
)

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its findings become our errors
_PHOTOMETRIC = {0: "MinIsWhite", 1: "MinIsBlack", 2: "RGB", 3: "palette", 6: "YCbCr"}
_WIDTH, _LENGTH = 256, 257
# Tags without which no pixel can be read: layout, palette, strips, tiles, samples.
_NEEDED = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347}
MAX_PAGES = 10_000
_ExtraTag = tuple[int, int, int, bytes | int, bool]  # code, type, count, value, first page only
_STRIP_BYTES = 256 << 10
_CLASSIC_TIFF_BYTES = 3_900_000_000
# Placeholders for tags 34665 and 34853 until the directories that they point to are written; no standard uses them.
_PLACEHOLDERS = {ifd.EXIF: 34666, ifd.GPS: 34854}


def open_tiff(file: BinaryIO, buffer: memoryview, number: int | None, limits: Limits) -> Raster:
    file.seek(0)
    try:
        offsets, damaged = _directories(buffer)
        pages = _document_pages(tifffile.TiffFile(file), offsets)
    except Exception as error:  # tifffile raises what its parts raise
        raise undecodable(error) from error
    if not pages:
        raise undecodable("no page in it")
    if number is None and len(pages) > 1:
        remedy = "set `page` (from 0) in the manifest, or give --page"
        raise InputImageError("page_required", f"the file has {len(pages)} pages; {remedy}")
    if not 0 <= (number or 0) < len(pages):
        raise InputImageError("page_range", f"page {number} of a file that has {len(pages)} (pages count from 0)")
    page = pages[number or 0]
    limits.check(page.imagewidth, page.imagelength)
    _refuse(page, len(buffer))
    metadata = read_tags(buffer, page.offset, ifd.layout_of(bytes(buffer[:4])))
    photometric = _PHOTOMETRIC[int(page.photometric)]
    notes = [damaged] if damaged else []
    if _mend_counts(page, len(buffer)):
        notes.append("strip byte counts (damaged: the pixels are all there)")
    bits, channels = (
        page.bitspersample,
        3 if photometric == "palette" else page.samplesperpixel - len(page.extrasamples),
    )
    return Raster(
        kind="tiff",
        height=page.imagelength,
        width=page.imagewidth,
        channels=channels,
        dtype=np.dtype(np.uint8 if bits <= 8 else np.uint16),
        blocks=lambda: _document_blocks(page, photometric),
        metadata=replace(metadata, dropped=(*metadata.dropped, *notes)),
        photometric=photometric,
        compression=_name_of(page.compression),
        decoder=f"tifffile {tifffile.__version__}, imagecodecs {imagecodecs.__version__}",
        pages=len(pages),
        bits=bits if 8 < bits < 16 else 0,
    )


def _directories(buffer: memoryview) -> tuple[list[int], str | None]:
    """Offsets of the directories in their chain, as far as it can be followed, and what is wrong with its end.

    They are read by our own reader first: tifffile follows a chain that bites its tail for ever, and believes counts.

    Raises:
        BadDirectoryError: the first one is damaged.
    """
    layout = ifd.layout_of(bytes(buffer[:4]))
    offset = struct.unpack_from(layout.offset, buffer, 8 if layout.big else 4)[0]
    offsets: list[int] = []
    while offset:
        if offset in offsets:
            return offsets, "next page (damaged: it leads back)"
        try:
            tags, damaged = ifd.read_directory(buffer, offset, layout, _NEEDED.__contains__)
            if broken := _NEEDED & {*damaged} or {_WIDTH, _LENGTH} - tags.keys():
                raise ifd.BadDirectoryError(f"tag {min(broken)} is missing or leads out of the file")
        except ifd.BadDirectoryError as error:
            if not offsets:
                raise
            return offsets, f"next page (damaged: {error})"
        offsets.append(offset)
        if len(offsets) > MAX_PAGES:
            return offsets, f"pages from the {MAX_PAGES + 1}th on"
        count = struct.unpack_from(layout.count, buffer, offset)[0]
        behind = offset + struct.calcsize(layout.count) + count * struct.calcsize(layout.entry)
        if behind + struct.calcsize(layout.offset) > len(buffer):
            return offsets, None  # the file ends where the next page's offset should stand
        offset = struct.unpack_from(layout.offset, buffer, behind)[0]
    return offsets, None


def _document_pages(tiff: tifffile.TiffFile, offsets: list[int]) -> list[tifffile.TiffPage]:
    """All pages but thumbnails and masks."""
    pages = []
    for number, offset in enumerate(offsets):
        tiff.filehandle.seek(offset)
        page = tifffile.TiffPage(tiff, index=number)
        if not page.subfiletype & 0b101:
            pages.append(page)
    return pages


def _name_of(value: object) -> str:
    return getattr(value, "name", str(value)).lower()


def _refuse(page: tifffile.TiffPage, file_size: int) -> None:
    photometric = int(page.photometric)
    if page.bitspersample == 1:
        raise bitonal()
    extra = len(page.extrasamples)
    if extra > 1:
        raise transparent()
    stored_ycbcr = photometric == 6 and page.compression != 7  # only JPEG's decoder makes RGB of it
    if photometric not in _PHOTOMETRIC or page.samplesperpixel - extra not in (1, 3) or stored_ycbcr:
        name = _name_of(page.photometric)
        raise InputImageError("color_model", f"colour model {name}; convert to 8 or 16 bit gray or RGB")
    bits = (4, 8) if photometric == 3 else range(8, 17)
    if page.sampleformat != 1 or page.bitspersample not in bits:
        form = {1: "unsigned", 2: "signed", 3: "float"}.get(int(page.sampleformat), "unknown")
        raise wrong_depth(f"{page.bitspersample} bit {form}")
    if page.imagedepth != 1:
        raise InputImageError("color_model", "a volume; give each plane as a page of its own")
    if page.compression == 6:
        raise InputImageError("compression", "old-style JPEG in TIFF; save it again with Deflate or LZW")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    kind, expected = "tile" if page.is_tiled else "strip", math.prod(page.chunked)
    if len(segments) < expected:
        raise truncated(f"{len(segments)} {kind}s of {expected}")
    for segment, (offset, size) in enumerate(segments):
        if not offset or offset >= file_size or (not size and page.compression != 1):
            raise truncated(f"{kind} {segment + 1} of {len(segments)} is not in the file")


def _mend_counts(page: tifffile.TiffPage, file_size: int) -> bool:
    """Puts right byte counts that lead out of the file, or are zero, where the pixels are all there.

    Returns:
        Whether any was wrong.

    Raises:
        InputImageError: `truncated`, pixels that are stored as they are are not all there.
    """
    counts = []
    for segment, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        there = file_size - offset
        if page.compression == 1:
            _, _, shape = page.decode(None, segment)  # without data, the strip's or tile's shape alone
            rows, width = (page.tilelength, page.tilewidth) if page.is_tiled else shape[-3:-1]
            needed = rows * math.ceil(width * shape[-1] * page.bitspersample / 8)
            if there < needed:
                raise truncated(f"{needed - there} bytes of the pixels are not in the file")
            there = min(there, max(size, needed)) if size else needed
        counts.append(min(size or there, there))
    wrong = tuple(counts) != tuple(page.databytecounts)[: len(counts)]
    if wrong:
        page.databytecounts = tuple(counts)
    return wrong


def _document_blocks(page: tifffile.TiffPage, photometric: str) -> Iterator[Block]:
    """Blocks as gray or RGB of 8 or 16 bit: inverted, through the palette, without alpha, scaled."""
    bits = page.bitspersample
    blocks = _blocks(page)
    if photometric == "palette":
        return looked_up(blocks, _palette(page))
    if page.extrasamples:
        blocks = without_alpha(blocks, bits)
    if photometric == "MinIsWhite":
        blocks = ((y, x, ((1 << bits) - 1) - pixels) for y, x, pixels in blocks)
    return scaled(blocks, bits) if 8 < bits < 16 else blocks


def _palette(page: tifffile.TiffPage) -> NDArray[np.uint8]:
    """The colours (n, 3); old writers stored 8 bits where the standard has 16."""
    colors = np.asarray(page.colormap, np.uint32).T
    return (colors if colors.max() < 256 else (colors + 128) // 257).astype(np.uint8)


def _blocks(page: tifffile.TiffPage) -> Iterator[Block]:
    try:
        if page.planarconfig == 2 and page.samplesperpixel > 1:  # one plane behind the other
            whole = np.moveaxis(page.asarray(maxworkers=1), 0, -1)
            yield 0, 0, whole
            return
        for block, index, shape in page.segments(maxworkers=1, buffersize=8 << 20):
            assert block is not None  # `_refuse` has refused files that lack one
            y, x = index[-3], index[-2]
            height, width = min(shape[-3], page.imagelength - y), min(shape[-2], page.imagewidth - x)
            pixels = block.reshape(block.shape[-3:])[:height, :width]
            if pixels.dtype != page.dtype or pixels.shape[-1] != page.samplesperpixel:
                raise InputImageError(
                    "compression", f"the codec gives {pixels.dtype} x {pixels.shape[-1]}, not what the tags say"
                )
            pixels = pixels[..., 0] if page.samplesperpixel == 1 else pixels
            yield y, x, pixels
    except InputImageError:
        raise
    except Exception as error:  # imagecodecs has an exception per codec
        raise truncated(error) from error


def write_tiff(file: BinaryIO, strips: Iterable[NDArray], form: PictureFormat) -> None:
    metadata, order = form.metadata, form.metadata.layout.order
    row_bytes = form.width * 3 * form.dtype.itemsize
    rows = max(1, _STRIP_BYTES // row_bytes)
    big = form.height * row_bytes > _CLASSIC_TIFF_BYTES
    layout = ifd.Layout(order, big)
    dtype = form.dtype.newbyteorder(order)
    tags: list[_ExtraTag] = [(code, tag.type, tag.count, tag.raw, True) for code, tag in metadata.tags.items()]
    tags += [(_PLACEHOLDERS[code], 4, 1, 0, True) for code in metadata.sub]
    tags += [(code, 7 if code == IPTC else 1, len(part), part, True) for code, part in _parts(form)]
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
        resolution=metadata.dpi,
        resolutionunit="INCH" if metadata.dpi else None,
    )
    if metadata.sub:
        _append_directories(file, metadata, layout)


def _parts(form: PictureFormat) -> list[tuple[int, bytes]]:
    parts = [(XMP, form.xmp), (IPTC, form.metadata.iptc)]
    return [(code, part) for code, part in parts if part]


def _regrouped(strips: Iterable[NDArray], rows: int) -> Iterator[NDArray]:
    """The same rows in strips of `rows`; the last strip may be shorter."""
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
        yield bytes(imagecodecs.deflate_encode(differences.astype(dtype).tobytes(), level=6, raw=False))


def _append_directories(file: BinaryIO, metadata: Metadata, layout: ifd.Layout) -> None:
    """Appends the EXIF and GPS directories, and turns their placeholders into the tags that point to them."""
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
    codes = {placeholder: code for code, placeholder in _PLACEHOLDERS.items()}
    for number in range(count):
        file.seek(start + number * size)
        placeholder = struct.unpack(f"{layout.order}H", file.read(2))[0]
        if placeholder in codes and codes[placeholder] in places:
            tag = ifd.pointer(places[codes[placeholder]], layout)
            file.seek(start + number * size)
            file.write(struct.pack(layout.entry, codes[placeholder], tag.type, tag.count, tag.raw))
