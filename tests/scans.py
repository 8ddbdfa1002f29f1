"""Scans of every kind, made in code: formats that are accepted, with all their metadata, and files that are not."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms
from scipy import ndimage

from pipelines.images import ifd
from pipelines.images.formats import jp2, png
from tests.conftest import gray_picture

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="uuid:7" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" '
    b'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/negativeFilm">'
    b'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Scheune, M\xc3\xa4rz 1940</rdf:li></rdf:Alt></dc:title>'
    b"<xmpMM:History><rdf:Seq><rdf:li stEvt:action='created' stEvt:softwareAgent='Scan 1.0'/></rdf:Seq></xmpMM:History>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
# Caption/Abstract and Credit of IPTC-IIM.
IPTC = b"\x1c\x02\x78\x00\x04Barn" + b"\x1c\x02\x6e\x00\x07Archive"
DPI = (300.0, 400.0)


def gamma_profile(gamma: float = 2.2) -> bytes:
    """A gray ICC profile of a gamma."""
    return gray_profile(b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0")


def gray_profile(curve: bytes, connection: bytes = b"XYZ ") -> bytes:
    """A gray input profile with any tone curve."""
    description = b"desc" + struct.pack(">II", 0, 5) + b"Gray\0" + bytes(78 + 1)
    tags = {
        b"desc": description,
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": curve,
    }
    body, table, at = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"", 0x02400000, b"scnr", b"GRAY", connection)
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(order: str = "<", orientation: int = 6) -> bytes:
    """Descriptive tags with an umlaut, an EXIF and a GPS directory, a maker note."""
    layout = ifd.Layout(order)

    def short(value: int) -> ifd.Tag:
        return ifd.Tag(3, 1, struct.pack(f"{order}H", value))

    def text(value: str) -> ifd.Tag:
        raw = value.encode() + b"\0"
        return ifd.Tag(2, len(raw), raw)

    main = {0x010E: text("Scheune, März 1940"), 0x0112: short(orientation), 0x013B: text("Möller"), 0x8298: text("PD")}
    exif = {
        0x9003: text("1940:03:01 12:00:00"),
        0x829A: ifd.Tag(5, 1, struct.pack(f"{order}II", 1, 60)),
        0x927C: ifd.Tag(7, 8, b"offsets!"),
    }
    gps = {1: text("N"), 2: ifd.Tag(5, 3, struct.pack(f"{order}6I", 52, 1, 31, 1, 12, 1))}
    return ifd.write_block(main, {ifd.EXIF: exif, ifd.GPS: gps}, layout)


def directories(block: bytes) -> tuple[ifd.Directory, dict[int, ifd.Directory]]:
    """Main and sub-directories of a TIFF structure, whole."""
    layout, offset = ifd.block_layout(block)
    main, _ = ifd.read_directory(block, offset, layout)
    sub = {
        code: ifd.read_directory(block, ifd.integer(main[code], layout), layout)[0]
        for code in main
        if code in (ifd.EXIF, ifd.GPS)
    }
    return main, sub


GRAY = gray_picture(1)
GRAY16 = (GRAY.astype(np.uint16) * 257) ^ np.arange(GRAY.size, dtype=np.uint16).reshape(GRAY.shape) % 255
RGB = np.repeat(GRAY[..., None], 3, -1)
TONED = np.stack([GRAY, (GRAY * 0.9).astype(np.uint8), (GRAY * 0.7).astype(np.uint8)], -1)
COLOUR = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]], -1)


def encoded(image, suffix="PNG", **options) -> bytes:
    """By Pillow."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, suffix, **options)
    return buffer.getvalue()


def tiff(pixels, order="<", **options) -> bytes:
    """By tifffile, which is an independent writer of most of what libtiff writes."""
    buffer = io.BytesIO()
    options = {"photometric": "minisblack", "metadata": None, **options}
    tifffile.imwrite(buffer, pixels, byteorder=order, **options)
    return buffer.getvalue()


def described_tiff(pixels, order="<", bigtiff=False) -> bytes:
    """A TIFF with everything: resolution, ICC, XMP, IPTC, descriptive tags, EXIF and GPS directories, orientation 6."""
    main, sub = directories(exif_block(order))
    tags = [(code, tag.type, tag.count, tag.raw, True) for code, tag in main.items() if code < 0x8769 or code > 0x8825]
    tags += [(700, 1, len(XMP), XMP, True), (33723, 7, len(IPTC), IPTC, True), (34666, 4, 1, 0, True)]
    tags += [(34854, 4, 1, 0, True)]
    content = tiff(
        pixels, order, extratags=tags, iccprofile=gamma_profile(), resolution=DPI, resolutionunit=2, bigtiff=bigtiff
    )
    # Make the stand-ins real, by a way of our own: patch the entries where they are found.
    layout = ifd.Layout(order, bigtiff)
    for stand_in, code in ((34666, ifd.EXIF), (34854, ifd.GPS)):
        content += bytes(len(content) % 2)
        offset = len(content)
        size = struct.calcsize(layout.entry)
        head = struct.pack(f"{order}HH", stand_in, 4)
        at = content.index(head, 4)
        entry = struct.pack(layout.entry, code, 18 if bigtiff else 4, 1, struct.pack(layout.offset, offset))
        content = content[:at] + entry + content[at + size :] + ifd.write_directory(sub[code], offset, layout)
    return content


def png_file(pixels, **parts) -> bytes:
    """A gray PNG by imagecodecs, chunks put in."""
    content = imagecodecs.png_encode(pixels)
    chunks = b""
    if "icc" in parts:
        chunks += png._chunk(b"iCCP", b"gray\0\0" + zlib.compress(parts["icc"]))
    if "dpi" in parts:
        chunks += png._chunk(b"pHYs", struct.pack(">IIB", *(round(one / 0.0254) for one in parts["dpi"]), 1))
    if "exif" in parts:
        chunks += png._chunk(b"eXIf", parts["exif"])
    if "xmp" in parts:
        chunks += png._chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + parts["xmp"])
    return content[:33] + chunks + content[33:]


def jp2_file(pixels, **options) -> bytes:
    """By OpenJPEG, bare of metadata; lossless unless told otherwise."""
    return imagecodecs.jpeg2k_encode(pixels, **{"level": 0, "codecformat": "jp2", "reversible": True, **options})


def described_jp2(pixels) -> bytes:
    """A JP2 with resolution, XMP, IPTC and EXIF; gray, enumerated colour space."""
    return jp2.with_metadata(jp2_file(pixels), icc=gamma_profile(), dpi=DPI, exif=exif_block(), xmp=XMP, iptc=IPTC)


def pages(*pictures, thumbnail: bool = True) -> bytes:
    """A TIFF of several pages, a reduced-size copy behind the first."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for number, picture in enumerate(pictures):
            writer.write(picture, photometric="minisblack", metadata=None)
            if thumbnail and number == 0:
                writer.write(picture[::4, ::4], photometric="minisblack", metadata=None, subfiletype=1)
    return buffer.getvalue()


def halftone(gray: np.ndarray, period: float = 6.0) -> np.ndarray:
    """Printed in dots at 45 degrees: dark dots that grow with the darkness, softened as a lens would."""
    y, x = np.mgrid[0 : gray.shape[0], 0 : gray.shape[1]]
    u, v = (x + y) * np.pi / (period * np.sqrt(2)) * 2, (x - y) * np.pi / (period * np.sqrt(2)) * 2
    screen = (np.cos(u) + np.cos(v)) / 4 + 0.5
    printed = 255 / (1 + np.exp(-12 * (gray / 255 - screen)))
    return printed.round().astype(np.uint8)


def huge_png() -> bytes:
    """A valid PNG header of 50,000 x 50,000 pixels in a few bytes: a decompression bomb's."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return (
        png.SIGNATURE + png._chunk(b"IHDR", header) + png._chunk(b"IDAT", zlib.compress(b"")) + png._chunk(b"IEND", b"")
    )


def huge_tiff(side: int = 60_000) -> bytes:
    """The same as a TIFF: sizes in the tags, no pixels."""
    content = bytearray(tiff(GRAY, compression="zlib"))
    main, _ = directories(bytes(content))
    at = struct.unpack_from("<I", content, 4)[0] + 2
    for number in range(len(main)):
        code = struct.unpack_from("<H", content, at + 12 * number)[0]
        if code in (256, 257, 278):
            struct.pack_into("<HHII", content, at + 12 * number, code, 4, 1, side)
    return bytes(content)


def png_key(gray: np.ndarray, value: int) -> bytes:
    """A gray PNG in which one value stands for transparent."""
    content = png_file(gray)
    return content[:33] + png._chunk(b"tRNS", struct.pack(">H", value)) + content[33:]


def loop_tiff(gray: np.ndarray, next_page: int | None = None, *, first: int | None = None, past: int = 0) -> bytes:
    """A little-endian TIFF of one strip whose next page is at `next_page` (default: itself), whose first directory is
    said to be at `first`, and whose byte count is too large by `past`."""
    data, (height, width) = gray.tobytes(), gray.shape
    at = 8 + len(data)
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data) + past}
    body = b"".join(
        struct.pack("<HHII", code, 4 if code in (273, 279) else 3, 1, value) for code, value in tags.items()
    )
    end = struct.pack("<I", at if next_page is None else next_page)
    return (
        b"II*\0" + struct.pack("<I", at if first is None else first) + data + struct.pack("<H", len(tags)) + body + end
    )


def palette_tiff(gray: np.ndarray) -> bytes:
    """Indices into a palette of grays that runs backwards."""
    colors = np.stack([np.arange(255, -1, -1, dtype=np.uint16) * 257] * 3)
    return tiff(255 - gray, photometric="palette", colormap=colors)


def palette_png(gray: np.ndarray) -> bytes:
    image = Image.fromarray(255 - gray, "P")
    image.putpalette([value for value in range(255, -1, -1) for _ in range(3)])
    return encoded(image)


def noisy(sd: float) -> np.ndarray:
    """RGB of a gray original, each channel with noise of its own."""
    noise = np.random.default_rng(1).normal(0, sd, RGB.shape)
    return (RGB + noise).clip(0, 255).astype(np.uint8)


def jp2_of(width: int, height: int) -> bytes:
    """A small JP2 that says that it is large."""
    content = bytearray(jp2_file(GRAY))
    siz = content.index(b"\xff\x51")
    struct.pack_into(">II", content, siz + 6, width, height)
    struct.pack_into(">II", content, siz + 22, width, height)
    return bytes(content)


def patched_tag(content: bytes, code: int, value: int) -> bytes:
    """A file of `loop_tiff` with another value of a tag."""
    at = content.index(struct.pack("<HHI", code, 3, 1))
    return content[: at + 8] + struct.pack("<I", value) + content[at + 12 :]


def landscape(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A pale sky over rough ground with some things on it; (H, W) in [0, 1]."""
    generator = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(generator.normal(size=(height, width)), (2, 5))
    picture = 0.45 + 2.0 * rough
    horizon = int(height * generator.uniform(0.3, 0.5))
    picture[:horizon] = np.linspace(0.75, 0.6, horizon)[:, None]
    for _ in range(6):
        y, x = generator.integers(horizon - 30, height - 40), generator.integers(0, width - 40)
        picture[y : y + 40, x : x + int(generator.integers(8, 40))] = generator.uniform(0.1, 0.9)
    return picture.clip(0, 1)


def mounted(picture: np.ndarray, tone: float, margins: tuple[int, int, int, int], writing: bool = False) -> np.ndarray:
    """A picture on a sheet with (top, left, bottom, right) `margins`, the sheet unevenly lit."""
    top, left, bottom, right = margins
    height, width = picture.shape
    sheet = np.full((top + height + bottom, left + width + right), tone)
    sheet += np.linspace(-0.03, 0.03, sheet.shape[1])
    sheet += np.random.default_rng(0).normal(scale=0.004, size=sheet.shape)
    if writing:
        ink = 0.1 if tone > 0.4 else 0.9
        for x in range(left, left + width // 2, 9):
            sheet[top + height + 12 : top + height + 18, x : x + 5] = ink
    sheet[top : top + height, left : left + width] = picture
    return sheet.clip(0, 1)


# Name: content, expected gray values.
GOOD = {
    "tiff8": (tiff(GRAY), GRAY),
    "tiff16": (tiff(GRAY16), GRAY16),
    "tiff16_big_endian": (tiff(GRAY16, ">"), GRAY16),
    "tiff8_lzw": (tiff(GRAY, compression="lzw"), GRAY),
    "tiff16_lzw_predictor": (tiff(GRAY16, compression="lzw", predictor=True), GRAY16),
    "tiff16_deflate": (tiff(GRAY16, compression="zlib"), GRAY16),
    "tiff8_packbits": (tiff(GRAY, compression="packbits"), GRAY),
    "tiff8_strips": (tiff(GRAY, rowsperstrip=7), GRAY),
    "tiff16_tiles": (tiff(GRAY16, tile=(32, 48), compression="zlib"), GRAY16),
    "bigtiff16": (tiff(GRAY16, bigtiff=True), GRAY16),
    "tiff8_min_is_white": (tiff(255 - GRAY, photometric="miniswhite"), GRAY),
    "tiff16_min_is_white": (tiff(65535 - GRAY16, photometric="miniswhite"), GRAY16),
    "tiff8_rgb_equal": (tiff(RGB, photometric="rgb"), GRAY),
    "tiff16_rgb_planes": (
        tiff(np.stack([GRAY16] * 3), photometric="rgb", planarconfig="separate", compression="zlib"),
        GRAY16,
    ),
    "png8": (png_file(GRAY), GRAY),
    "png16": (png_file(GRAY16), GRAY16),
    "png16_rgb_equal": (png_file(np.stack([GRAY16] * 3, -1)), GRAY16),
    "jp2_8": (jp2_file(GRAY), GRAY),
    "jp2_16": (jp2_file(GRAY16), GRAY16),
    "j2k_codestream": (jp2_file(GRAY, codecformat="j2k"), GRAY),
    "webp_lossless": (encoded(RGB, "WEBP", lossless=True), GRAY),
    "bmp": (encoded(GRAY, "BMP"), GRAY),
}
_JPEG = encoded(GRAY, "JPEG", quality=90)
GOOD["jpeg"] = (_JPEG, np.asarray(Image.open(io.BytesIO(_JPEG))))
_JPEG_TIFF = tiff(GRAY, compression="jpeg", compressionargs={"level": 90})
GOOD["tiff8_jpeg"] = (_JPEG_TIFF, tifffile.imread(io.BytesIO(_JPEG_TIFF)))
_LOSSY = jp2_file(GRAY, level=40, reversible=False)
GOOD["jp2_lossy"] = (_LOSSY, imagecodecs.jpeg2k_decode(_LOSSY))

FULL, FULL16 = np.full_like(GRAY, 255), np.full_like(GRAY16, 65535)
GRAY12 = GRAY16 >> 4
SCALED12 = np.round(GRAY12 * (65535 / 4095)).astype(np.uint16)
GOOD |= {
    "png8_gray_opaque": (encoded(np.dstack([GRAY, FULL])), GRAY),
    "png8_rgb_opaque": (encoded(np.dstack([RGB, FULL])), GRAY),
    "png16_gray_opaque": (png_file(np.dstack([GRAY16, FULL16])), GRAY16),
    "png8_unused_key": (png_key(GRAY, int(np.setdiff1d(np.arange(256), GRAY)[0])), GRAY),
    "tiff8_opaque": (tiff(np.dstack([GRAY, FULL]), extrasamples=["unassalpha"], planarconfig="contig"), GRAY),
    "tiff16_rgb_opaque": (
        tiff(np.dstack([GRAY16] * 3 + [FULL16]), photometric="rgb", extrasamples=["unspecified"], compression="zlib"),
        GRAY16,
    ),
    "jp2_opaque": (jp2_file(np.dstack([GRAY, FULL])), GRAY),
    "tiff8_palette": (palette_tiff(GRAY), GRAY),
    "png8_palette": (palette_png(GRAY), GRAY),
    "bmp_palette": (encoded(Image.open(io.BytesIO(palette_png(GRAY))), "BMP"), GRAY),
}
# Read as this, and said so: content, gray values, the beginning of the warning.
MENDED = {
    "jp2_12_bit": (jp2_file(GRAY12, bitspersample=12), SCALED12, "scaled: 12 bits"),
    "jp2_10_bit": (jp2_file(GRAY16 >> 6, bitspersample=10), None, "scaled: 10 bits"),
    "tiff_12_bit_packed": (tiff(GRAY12, bitspersample=12, compression=None), SCALED12, "scaled: 12 bits"),
    "tiff_12_bits_of_16": (tiff(GRAY12), GRAY12, "dark: the highest of its 16-bit values"),
    "page_leads_back": (loop_tiff(GRAY), GRAY, "metadata_damaged: next page"),
    "page_in_garbage": (loop_tiff(GRAY, 9), GRAY, "metadata_damaged: next page"),
    "page_behind_the_end": (loop_tiff(GRAY, 1 << 31), GRAY, "metadata_damaged: next page"),
    "count_past_the_end": (loop_tiff(GRAY, 0, past=4096), GRAY, "metadata_damaged: strip byte counts"),
    "count_of_zero": (loop_tiff(GRAY, 0, past=-GRAY.size), GRAY, "metadata_damaged: strip byte counts"),
    "noise_0.5": (encoded(noisy(0.5)), None, "near_gray: the channels differ by a code or two, or by noise"),
    "noise_8": (encoded(noisy(8)), None, "near_gray"),
}

BAD = {
    "empty": b"",
    "not_image": b"these are words, not pixels\n",
    "truncated": _JPEG[:-900],
    "undecodable": b"II*\0\xff\xff\xff\x7f",
    "too_large": huge_png(),
    "too_small": encoded(GRAY[:20]),
    "page_required": pages(GRAY, GRAY),
    "depth": tiff(GRAY.astype(np.float32)),
    "alpha": encoded(np.dstack([RGB, GRAY])),
    "color_model": encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "bitonal": encoded(Image.fromarray(GRAY > 100), "TIFF", compression="group4"),
    "nearly_bitonal": encoded(np.where(GRAY > 100, 254, 1).astype(np.uint8)),
    "blank": encoded(np.full((70, 70), 9, np.uint8)),
    "is_colour": encoded(COLOUR),
    "toned": encoded(TONED),
    "profile_bad": encoded(GRAY, icc_profile=gamma_profile()[:200]),
}
SKIPPED = {"bitonal", "nearly_bitonal", "blank", "is_colour"}
# More files of those kinds.
MORE_BAD = [
    ("truncated", tiff(GRAY16, rowsperstrip=8)[:-3000]),
    ("truncated", png_file(GRAY16)[:-3000]),
    ("truncated", jp2_file(GRAY16)[:-9000]),
    ("undecodable", encoded(GRAY, "WEBP", lossless=True)[:-2000]),
    ("too_large", huge_tiff()),
    ("depth", tiff(GRAY.astype(np.int16))),
    ("depth", tiff(GRAY.astype(np.uint32))),
    ("depth", imagecodecs.jpeg_encode(GRAY16 >> 4, bitspersample=12)),
    ("depth", tiff((GRAY >> 4), bitspersample=4, compression=None)),
    ("alpha", tiff(np.dstack([GRAY, GRAY]), extrasamples=["unassalpha"], planarconfig="contig")),
    ("alpha", encoded(np.dstack([GRAY, GRAY]))),
    ("alpha", png_file(np.dstack([GRAY16, GRAY16]))),
    ("alpha", jp2_file(np.dstack([GRAY, GRAY]))),
    ("alpha", png_key(GRAY, int(GRAY[0, 0]))),
    ("is_colour", encoded(Image.fromarray(COLOUR).convert("P"), "TIFF")),
    ("is_colour", encoded(Image.fromarray(COLOUR).convert("P"))),
    ("color_model", encoded(Image.fromarray(RGB).convert("LAB"), "TIFF")),
    ("color_model", encoded(Image.fromarray(RGB).convert("YCbCr"), "TIFF", compression="tiff_lzw")),
    ("bitonal", encoded(Image.fromarray(GRAY > 100))),
    ("not_image", b"%PDF-1.7 ..."),
    ("not_image", b"GIF89a" + bytes(40)),
    ("not_image", encoded(GRAY, "PPM")),
    ("not_image", encoded(GRAY, "AVIF")),
    ("undecodable", loop_tiff(GRAY, first=0)),
    ("undecodable", patched_tag(loop_tiff(GRAY, 0), 278, 0)),
    ("truncated", jp2_of(20_000, 19_000)),
    ("truncated", huge_tiff(19_000)),
    ("profile_bad", tiff(GRAY, iccprofile=gamma_profile()[:200])),
    ("page_range", tiff(GRAY)),
]
