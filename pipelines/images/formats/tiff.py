"""TIFF: pages read by strips and tiles, and a writer by strips that carries the scan's own directories."""

import logging
import math
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from pipelines.images import ifd
from pipelines.images.errors import InputImageError
from pipelines.images.metadata import IPTC, XMP, Metadata, read_tags
from pipelines.images.picture_format import SOFTWARE, PictureFormat
from pipelines.images.raster import Block, Limits, Raster, bitonal, transparent, truncated, undecodable, wrong_depth

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its findings become our errors
_PHOTOMETRIC = {0: "MinIsWhite", 1: "MinIsBlack", 2: "RGB", 6: "YCbCr"}
_ExtraTag = tuple[int, int, int, bytes | int, bool]  # code, type, count, value, first page only
_STRIP_BYTES = 256 << 10
_CLASSIC_TIFF_BYTES = 3_900_000_000
# Placeholders for tags 34665 and 34853 until the directories that they point to are written; no standard uses them.
_PLACEHOLDERS = {ifd.EXIF: 34666, ifd.GPS: 34854}


def open_tiff(file: BinaryIO, buffer: memoryview, number: int | None, limits: Limits) -> Raster:
    file.seek(0)
    try:
        pages = _document_pages(tifffile.TiffFile(file))
    except Exception as error:  # tifffile raises what its parts raise
        raise undecodable(error) from error
    if not pages:
        raise undecodable("no page in it")
    if number is None and len(pages) > 1:
        raise InputImageError("page_required", f"the file has {len(pages)} pages; set `page` (from 0) in the manifest")
    if not 0 <= (number or 0) < len(pages):
        raise InputImageError("page_range", f"page {number} of a file that has {len(pages)} (pages count from 0)")
    page = pages[number or 0]
    limits.check(page.imagewidth, page.imagelength)
    _refuse(page, len(buffer))
    metadata = read_tags(buffer, page.offset, ifd.layout_of(bytes(buffer[:4])))
    photometric = _PHOTOMETRIC[int(page.photometric)]
    return Raster(
        kind="tiff",
        height=page.imagelength,
        width=page.imagewidth,
        channels=page.samplesperpixel,
        dtype=np.dtype(f"u{page.bitspersample // 8}"),
        blocks=lambda: _blocks(page, inverted=photometric == "MinIsWhite"),
        metadata=metadata,
        photometric=photometric,
        compression=_name_of(page.compression),
        decoder=f"tifffile {tifffile.__version__}, imagecodecs {imagecodecs.__version__}",
        pages=len(pages),
    )


def _document_pages(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """All pages but thumbnails and masks."""
    pages = []
    for page in tiff.pages:
        if not isinstance(page, tifffile.TiffPage):  # a frame, as tifffile reads some microscopes' files
            raise ValueError("pages without tags of their own")
        if not page.subfiletype & 0b101:
            pages.append(page)
    return pages


def _name_of(value: object) -> str:
    return getattr(value, "name", str(value)).lower()


def _refuse(page: tifffile.TiffPage, file_size: int) -> None:
    photometric = int(page.photometric)
    if page.bitspersample == 1:
        raise bitonal()
    if page.extrasamples:
        raise transparent()
    stored_ycbcr = photometric == 6 and page.compression != 7  # only JPEG's decoder makes RGB of it
    if photometric not in _PHOTOMETRIC or page.samplesperpixel not in (1, 3) or stored_ycbcr:
        name = _name_of(page.photometric)
        raise InputImageError("color_model", f"colour model {name}; convert to 8 or 16 bit gray or RGB")
    if page.sampleformat != 1 or page.bitspersample not in (8, 16):
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
        if not offset or not size or offset + size > file_size:
            raise truncated(f"{kind} {segment + 1} of {len(segments)} is not in the file")


def _blocks(page: tifffile.TiffPage, inverted: bool) -> Iterator[Block]:
    try:
        if page.planarconfig == 2 and page.samplesperpixel > 1:  # one plane behind the other
            whole = np.moveaxis(page.asarray(maxworkers=1), 0, -1)
            yield 0, 0, whole
            return
        full = np.iinfo(page.dtype).max
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
            yield y, x, full - pixels if inverted else pixels
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
