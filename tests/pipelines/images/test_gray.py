"""Every format that is accepted, exactly; every file that is not, by its own name."""

import errno
import io
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from diffcolor.luminance import luma
from pipelines.images import ifd, scratch
from pipelines.images.errors import InputImageError
from pipelines.images.formats import png
from pipelines.images.gray import decode_gray
from pipelines.images.rules import Rules
from pipelines.worker.failures import outcome_of
from tests import scans


def decoded(content: bytes, page=None, **rules):
    return decode_gray(io.BytesIO(content), Rules(**rules), page)


@pytest.mark.parametrize("name", scans.GOOD)
def test_pixels_are_read_exactly(name):
    content, expected = scans.GOOD[name]
    image = decoded(content)
    assert image.gray.dtype == expected.dtype
    assert np.array_equal(image.gray, expected)
    assert image.source.depth == expected.dtype.itemsize * 8
    assert image.source.bytes == len(content)
    assert image.warnings == ()


@pytest.mark.parametrize("name", scans.MENDED)
def test_what_can_be_read_is_read_and_said(name):
    content, expected, warning = scans.MENDED[name]
    image = decoded(content)
    assert expected is None or np.array_equal(image.gray, expected)
    assert any(one.startswith(warning) for one in image.warnings), image.warnings


def test_scaled_samples_stay_different_and_name_their_bits():
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    image = decoded(scans.jp2_file(ramp, bitspersample=12))
    assert image.gray.dtype == np.uint16
    assert (image.gray[0, 0], image.gray[-1, -1], len(np.unique(image.gray))) == (0, 65535, 4096)
    assert (image.source.depth, image.source.conversion) == (12, "scaled")


def test_gamma_of_a_png_is_its_tone_curve():
    plain = scans.png_file(scans.GRAY)
    linear = plain[:33] + png._chunk(b"gAMA", struct.pack(">I", 100_000)) + plain[33:]
    image = decoded(linear)
    assert not image.profile.assumed
    assert image.profile.to_srgb(np.array([0.2140])) == pytest.approx(0.5, abs=0.003)
    usual = plain[:33] + png._chunk(b"gAMA", struct.pack(">I", 45_455)) + plain[33:]
    assert decoded(usual).profile.assumed


@pytest.mark.parametrize(("kind", "values"), [(3, "<H"), (4, "<I"), (11, "<f"), (12, "<d"), (5, "<II")])
def test_resolution_of_any_numeric_type_is_kept(kind, values):
    content = scans.tiff(scans.GRAY, resolution=(300, 300), resolutionunit=2)
    raw = struct.pack(values, *([300, 1][: len(values) - 1]))
    for code in (282, 283):
        inline = raw if len(raw) <= 4 else struct.pack("<I", len(content))
        content = patched(content, code, raw=inline.ljust(4, b"\0"), kind=kind) + (raw if len(raw) > 4 else b"")
    assert decoded(content).metadata.dpi == (300, 300)


@pytest.mark.parametrize("name", ["tiff16_tiles", "tiff8_strips", "png16", "jpeg"])
def test_a_real_file_is_read_as_bytes_are(name, tmp_path):
    content, expected = scans.GOOD[name]
    (tmp_path / "scan").write_bytes(content)
    with open(tmp_path / "scan", "rb") as file:
        assert np.array_equal(decode_gray(file).gray, expected)


@pytest.mark.parametrize(("kind", "content"), [*scans.BAD.items(), *scans.MORE_BAD])
def test_each_bad_file_has_its_own_kind(kind, content):
    with pytest.raises(InputImageError) as caught:
        decoded(content, page=3 if kind == "page_range" else None)
    assert caught.value.kind == kind
    assert caught.value.skipped == (kind in scans.SKIPPED)


@pytest.mark.parametrize("bomb", [scans.huge_png(), scans.huge_tiff()])
def test_a_bomb_is_refused_by_its_header_alone(bomb, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("pixels were decoded"))
    monkeypatch.setattr("tifffile.TiffPage.segments", lambda *_, **__: pytest.fail("pixels were decoded"))
    with pytest.raises(InputImageError, match=r"MP, limit 400 MP"):
        decoded(bomb)


def test_pages_are_counted_without_thumbnails():
    first, second = scans.GRAY, scans.GRAY[::-1]
    content = scans.pages(first, second)
    assert np.array_equal(decoded(content, page=0).gray, first)
    image = decoded(content, page=1)
    assert np.array_equal(image.gray, second)
    assert (image.source.page, image.source.pages) == (1, 2)
    with pytest.raises(InputImageError, match="page 2 of a file that has 2"):
        decoded(content, page=2)


def test_a_thumbnail_makes_no_second_page():
    assert np.array_equal(decoded(scans.pages(scans.GRAY)).gray, scans.GRAY)


def test_nearly_equal_channels_are_taken_with_a_warning():
    near = scans.RGB.copy()
    near[..., 2] -= 1
    image = decoded(scans.encoded(near))
    assert image.source.conversion == "near_gray"
    assert "near_gray" in image.warnings[0]
    assert np.array_equal(image.gray, np.asarray(Image.fromarray(near).convert("L")))


@pytest.mark.parametrize("wide", [False, True])
def test_a_toned_scan_gives_its_luminance_when_told_to(wide):
    toned = scans.TONED.astype(np.uint16) * 257 if wide else scans.TONED
    image = decoded(scans.tiff(toned, photometric="rgb"), toned="desaturate")
    assert image.source.conversion == "desaturated"
    weights = np.array([19595, 38470, 7471]) / 65536
    assert np.array_equal(image.gray, np.floor(toned @ weights + 0.5))


def test_the_luminance_of_anything_is_taken_on_request_and_the_refusal_says_how():
    target = scans.RGB.copy()
    target[:16, :48] = (200, 40, 40)
    for picture in (scans.COLOUR, target):
        with pytest.raises(InputImageError, match="--toned desaturate"):
            decoded(scans.encoded(picture))
        image = decoded(scans.encoded(picture), toned="desaturate")
        assert np.array_equal(image.gray, luma(picture))
        assert image.source.conversion == "desaturated"


def test_a_small_stamp_is_no_noise_and_noise_is_no_sepia():
    stamped = scans.RGB.copy()
    stamped[24:34, 24:34, 0] = 255 - stamped[24:34, 24:34, 0] // 4
    with pytest.raises(InputImageError) as caught:
        decoded(scans.encoded(stamped))
    assert caught.value.kind in ("toned", "is_colour")
    signs = np.random.default_rng(0).choice([-4, 4], (9, 10)).repeat(8, 0).repeat(8, 1)
    faint = scans.RGB + np.stack([signs, 0 * signs, -signs], -1)
    with pytest.raises(InputImageError, match="pale colours"):
        decoded(scans.encoded(faint.clip(0, 255).astype(np.uint8)))


def test_a_bad_profile_can_be_overruled():
    image = decoded(scans.BAD["profile_bad"], assume_srgb=True)
    assert image.profile.assumed
    assert "profile_bad" in image.warnings[0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_what_a_tiff_says_about_itself_is_read(order, bigtiff):
    image = decoded(scans.described_tiff(scans.GRAY16, order, bigtiff))
    metadata = image.metadata
    assert metadata.dpi == pytest.approx(scans.DPI)
    assert (metadata.xmp, metadata.iptc, metadata.icc) == (scans.XMP, scans.IPTC, scans.gamma_profile())
    assert metadata.orientation == 6
    assert metadata.tags[0x010E].raw.decode() == "Scheune, März 1940\0"
    assert set(metadata.sub) == {0x8769, 0x8825}
    assert image.source.not_carried == ("tag 34665/37500",)


def test_broken_xmp_is_dropped_and_said():
    for packet in (b"<x", b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + scans.XMP, b"<a/>"):
        image = decoded(scans.png_file(scans.GRAY, xmp=packet))
        assert image.metadata.xmp is None
        assert "xmp_dropped" in image.warnings[0]
        assert image.source.not_carried == ("XMP",)


def test_noise_never_crashes_the_decoder():
    """Damage anywhere in any file: an image or an error of ours, nothing else."""
    rng = np.random.default_rng(0)
    for name in ("tiff16_tiles", "tiff8_lzw", "png16", "jp2_16", "jpeg", "webp_lossless"):
        content = scans.GOOD[name][0]
        for _ in range(40):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 1 + int(rng.integers(8))):
                damaged[place] = rng.integers(256)
            with suppress(InputImageError):
                decoded(bytes(damaged))


def patched(content: bytes, code: int, order="<", **fields) -> bytes:
    """A classic TIFF with one tag's count, type or value replaced."""
    layout = ifd.Layout(order)
    at = struct.unpack_from(f"{order}I", content, 4)[0]
    (count,) = struct.unpack_from(layout.count, content, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        found, kind, values, raw = struct.unpack_from(layout.entry, content, place)
        if found == code:
            entry = (
                fields.get("code", found),
                fields.get("kind", kind),
                fields.get("values", values),
                fields.get("raw", raw),
            )
            return content[:place] + struct.pack(layout.entry, *entry) + content[place + 12 :]
    raise KeyError(code)


def test_one_damaged_tag_costs_that_tag_alone():
    content = patched(scans.described_tiff(scans.GRAY), 0x8769, raw=struct.pack("<I", 1 << 31))
    image = decoded(content)
    assert "tag 34665" in image.source.not_carried[0]
    assert "metadata_damaged" in image.warnings[0]
    metadata = image.metadata
    assert (metadata.orientation, metadata.icc, metadata.xmp) == (6, scans.gamma_profile(), scans.XMP)
    assert metadata.dpi == pytest.approx(scans.DPI)
    content = patched(scans.described_tiff(scans.GRAY), 0x010E, values=1 << 30)
    assert "tag 270 (damaged)" in decoded(content).source.not_carried


def test_tags_cannot_fill_the_memory():
    """Many tags that share one large region: their values are not read unless they are carried."""
    region = 3 << 20
    tags = [(60000 + number, 1, 1, 7, True) for number in range(200)]
    content = scans.tiff(scans.GRAY, extratags=tags) + bytes(region)
    for number in range(200):
        content = patched(content, 60000 + number, values=region, raw=struct.pack("<I", len(content) - region))
    tracemalloc.start()
    image = decoded(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 << 20
    assert len(image.source.not_carried) == 200


@pytest.mark.parametrize("count", [3, 8])
def test_strips_that_are_not_there_are_no_pixels(count):
    content = scans.tiff(scans.GRAY16, rowsperstrip=9, compression="zlib")
    assert np.array_equal(decoded(content).gray, scans.GRAY16)
    if count < 8:
        content = patched(patched(content, 273, values=count), 279, values=count)
    else:
        (place,) = struct.unpack_from("<I", ifd_entry(content, 279))
        content = content[:place] + bytes(8) + content[place + 8 :]
    with pytest.raises(InputImageError) as caught:
        decoded(content)
    assert caught.value.kind == "truncated"


def ifd_entry(content: bytes, code: int) -> bytes:
    """The value field of a tag of a classic little-endian TIFF."""
    at = struct.unpack_from("<I", content, 4)[0]
    (count,) = struct.unpack_from("<H", content, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, place)[0] == code:
            return content[place + 8 : place + 12]
    raise KeyError(code)


@pytest.mark.parametrize(
    "chunk",
    [b"XML:com.adobe.xmp\0", b"XML:com.adobe.xmp\0\0\0\0", b"XML:com.adobe.xmp\0\1\0\0\0notdeflate"],
)
def test_a_broken_text_chunk_costs_that_chunk_alone(chunk):
    content = scans.png_file(scans.GRAY)
    image = decoded(content[:33] + png._chunk(b"iTXt", chunk) + content[33:])
    assert image.source.not_carried[0].startswith("iTXt (damaged")
    image = decoded(content[:33] + png._chunk(b"tEXt", b"Title\0Barn") + content[33:])
    assert image.source.not_carried == ("tEXt",)


@pytest.mark.parametrize("exif", [b"II*\0\xff\xff\xff\x7f", b"II*\0\x08\0\0\0\xff\xff", b"II", b"none of it"])
def test_a_broken_exif_block_costs_that_block_alone(exif):
    content = scans.png_file(scans.GRAY, exif=exif, xmp=scans.XMP, dpi=scans.DPI)
    image = decoded(content[:33] + png._chunk(b"tEXt", b"Title\0Barn") + content[33:])
    assert image.source.not_carried[0] == "tEXt"
    assert "damaged" in image.source.not_carried[1]
    assert image.metadata.xmp == scans.XMP
    assert image.metadata.dpi == pytest.approx(scans.DPI, rel=1e-3)


def test_resolution_that_only_exif_knows_is_found():
    main, sub = scans.directories(scans.exif_block())
    for code, value in ((0x011A, 300), (0x011B, 300)):
        main[code] = ifd.Tag(5, 1, struct.pack("<II", value, 1))
    main[0x0128] = ifd.Tag(3, 1, struct.pack("<H", 2))
    block = ifd.write_block({key: tag for key, tag in main.items() if key < 0x8000}, sub, ifd.Layout("<"))
    assert decoded(scans.encoded(scans.RGB, "WEBP", lossless=True, exif=block)).metadata.dpi == (300, 300)


def test_a_full_temporary_disk_is_an_error_and_no_crash(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        scratch.empty((5000, 5000), np.uint16)
    assert outcome_of(OSError(errno.ENOSPC, "full"))[1] == "no_space"
