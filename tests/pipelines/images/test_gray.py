"""Every format that is accepted, exactly; every file that is not, by its own name."""

import io
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from pipelines.images.errors import InputImageError
from pipelines.images.gray import Rules, decode_gray
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


def test_colour_is_no_tone_whatever_the_rule():
    with pytest.raises(InputImageError, match="it has colour already"):
        decoded(scans.encoded(scans.COLOUR), toned="desaturate")


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
