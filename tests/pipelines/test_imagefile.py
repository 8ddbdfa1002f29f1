import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffcolor.luminance import recombine
from pipelines.imagefile import InputImageError, decode_gray, decode_output, encode_png
from tests.conftest import gray_picture


def encoded(image, suffix="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, suffix, **options)
    return buffer.getvalue()


def huge_header() -> bytes:
    """A valid PNG of 50,000 x 50,000 pixels in a few bytes: a decompression bomb's header."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


GRAY = gray_picture(1)
RGB = np.repeat(GRAY[..., None], 3, -1)
TONED = np.stack([GRAY, (GRAY * 0.9).astype(np.uint8), (GRAY * 0.7).astype(np.uint8)], -1)
BAD = {
    "empty": b"",
    "not_image": b"these are words, not pixels\n",
    "truncated": encoded(GRAY, "JPEG", quality=95)[:-900],
    "too_large": huge_header(),
    "too_small": encoded(GRAY[:20]),
    "page_required": encoded(GRAY, "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)]),
    "depth": encoded(GRAY.astype(np.uint16) * 257),
    "alpha": encoded(np.dstack([RGB, GRAY])),
    "color_model": encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "bitonal": encoded(Image.fromarray(GRAY > 100), "TIFF", compression="group4"),
    "nearly_bitonal": encoded(np.where(GRAY > 100, 254, 1).astype(np.uint8)),
    "blank": encoded(np.full((70, 70), 9, np.uint8)),
    "is_colour": encoded(TONED),
}


@pytest.mark.parametrize("kind", BAD)
def test_each_bad_input_has_its_own_kind(kind):
    with pytest.raises(InputImageError) as caught:
        decode_gray(BAD[kind])
    assert caught.value.kind == kind
    assert caught.value.skipped == (kind in {"bitonal", "nearly_bitonal", "blank", "is_colour"})


def test_a_bomb_is_refused_by_its_header_alone(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("pixels were decoded"))
    with pytest.raises(InputImageError, match="2500 MP, limit 400 MP"):
        decode_gray(huge_header())


@pytest.mark.parametrize("options", [{}, {"suffix": "TIFF", "compression": "tiff_lzw"}, {"suffix": "BMP"}])
def test_lossless_gray_is_read_exactly(options):
    assert np.array_equal(decode_gray(encoded(GRAY, **options)).gray, GRAY)


def test_rgb_with_equal_channels_is_gray():
    assert np.array_equal(decode_gray(encoded(RGB)).gray, GRAY)


def test_nearly_equal_channels_are_taken_with_a_warning():
    near = RGB.copy()
    near[..., 2] -= 1
    image = decode_gray(encoded(near))
    assert np.array_equal(image.gray, GRAY)
    assert "near_gray" in image.warnings[0]


def test_pdf_is_recognized_whatever_its_name():
    with pytest.raises(InputImageError, match="PDF"):
        decode_gray(b"%PDF-1.7 ...")


def test_output_keeps_pixels_resolution_and_exif_and_says_what_it_is():
    exif = Image.Exif()
    exif[0x010E] = "Barn, 1940"
    scan = decode_gray(encoded(GRAY, "TIFF", dpi=(300, 300), exif=exif))
    pixels = recombine(GRAY, np.full((*GRAY.shape, 2), 0.05, np.float32))
    content = encode_png(pixels, scan, "a red barn")
    again, held = decode_output(content)
    assert np.array_equal(again, pixels)
    assert np.array_equal(held.gray, GRAY)
    with Image.open(io.BytesIO(content)) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert image.getexif()[0x010E] == "Barn, 1940"
        assert "machine-made" in image.info["Comment"]
        assert np.array_equal(np.asarray(image.convert("L")), GRAY)


def test_nonsense_resolution_is_not_carried():
    content = encoded(GRAY, "TIFF", resolution_unit=2, x_resolution=0, y_resolution=0)
    scan = decode_gray(content)
    assert encode_png(np.repeat(GRAY[..., None], 3, -1), scan, "")
