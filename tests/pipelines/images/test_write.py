"""What is written, read again by others: Pillow, tifffile, imagecodecs for pixels, exiv2 for metadata, jpylyzer."""

import io
from dataclasses import replace

import imagecodecs
import numpy as np
import pyexiv2
import pytest
import tifffile
from jpylyzer import jpylyzer
from lxml import etree
from PIL import Image

from diffcolor.luminance import Reductions, luma
from pipelines.images.formats.codecs import format_for, losses, open_raster, write
from pipelines.images.formats.pillow import fits_jpeg, jpeg
from pipelines.images.formats.table import FORMATS
from pipelines.images.gray import decode_gray
from pipelines.images.paint import check_luma, painted, read_luma, upright_picture
from pipelines.images.picture_format import PictureFormat
from pipelines.images.view import View
from pipelines.images.xmp import SOURCE_TYPE, Mark, marked
from tests import scans

MARK = Mark(
    system="diffcolor-batch",
    version="1, mini",
    prompt="a red <barn> & März\x00",
    original="s3://archive/a.tif",
    original_sha256="ab" * 32,
    prompt_writer="M. Möller",
)
CHROMA = np.random.default_rng(0).normal(0, 0.2, (12, 16, 2)).astype(np.float32)


def read_by_others(content: bytes, format_: str, dtype) -> np.ndarray:
    """Pixels of an output, by a library that did not write them where there is one."""
    if format_ == "jp2":
        return imagecodecs.jpeg2k_decode(content[content.index(b"jp2c") + 4 :])
    if dtype == np.uint8:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image)
    return tifffile.imread(io.BytesIO(content)) if format_ == "tiff" else imagecodecs.png_decode(content)


def form_of(image, format_: str, mark=MARK) -> PictureFormat:
    return PictureFormat(
        format=format_,
        height=image.gray.shape[0],
        width=image.gray.shape[1],
        dtype=image.gray.dtype,
        metadata=image.metadata,
        icc=image.profile.output,
        xmp=marked(image.metadata.xmp, mark),
    )


def composed(image, format_: str, path, regions=(), mark=MARK) -> bytes:
    view = View(image, regions)
    form = form_of(image, format_, mark)
    with open(path, "w+b") as file:
        write(file, painted(view, CHROMA, Reductions()), form)
        assert check_luma(file, image.gray).mismatches == 0
        assert np.array_equal(read_luma(file), image.gray)
    return path.read_bytes()


@pytest.mark.parametrize("name", scans.GOOD)
def test_an_output_has_the_scans_format_depth_size_and_luminance(name, tmp_path):
    content, gray = scans.GOOD[name]
    image = decode_gray(io.BytesIO(content))
    format_, note = format_for("input", image.source.format, *gray.shape, gray.dtype)
    assert format_ == {"jpeg": "tiff", "bmp": "png"}.get(image.source.format, image.source.format)
    assert note is None
    path = tmp_path / f"a{FORMATS[format_].suffixes[0]}"
    pixels = read_by_others(composed(image, format_, path), format_, gray.dtype)
    assert pixels.dtype == gray.dtype
    assert np.array_equal(luma(pixels), gray)
    assert np.asarray(pixels, float).std(-1).max() > 0, "no colour at all"
    if gray.dtype == np.uint8 and format_ != "jp2":
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture.convert("L")), gray)


DESCRIBED = {
    "tiff": scans.described_tiff(scans.GRAY16),
    "tiff_big_endian": scans.described_tiff(scans.GRAY16, ">"),
    "jp2": scans.described_jp2(scans.GRAY16),
    "png": scans.png_file(
        scans.GRAY16, icc=scans.gamma_profile(), dpi=scans.DPI, exif=scans.exif_block(), xmp=scans.XMP
    ),
    "jpeg": scans.encoded(
        scans.GRAY,
        "JPEG",
        dpi=(300, 300),
        exif=b"Exif\0\0" + scans.exif_block(),
        xmp=scans.XMP,
        icc_profile=scans.gamma_profile(),
    ),
    "webp": scans.encoded(scans.RGB, "WEBP", lossless=True, exif=scans.exif_block(), xmp=scans.XMP),
}


@pytest.mark.parametrize("format_", ["tiff", "png", "jp2", "webp"])
@pytest.mark.parametrize("name", DESCRIBED)
def test_metadata_is_carried_and_marked_whatever_the_formats(name, format_, tmp_path):
    image = decode_gray(io.BytesIO(DESCRIBED[name]))
    if format_ == "webp" and image.gray.dtype != np.uint8:
        image = decode_gray(io.BytesIO(DESCRIBED["jpeg"]))
    path = tmp_path / f"a{FORMATS[format_].suffixes[0]}"
    content = composed(image, format_, path)
    with pyexiv2.Image(str(path), encoding="utf-8") as other:
        exif, xmp, iptc, icc = other.read_exif(), other.read_xmp(), other.read_iptc(), other.read_icc()
    assert exif["Exif.Image.ImageDescription"] == "Scheune, März 1940"
    assert exif["Exif.Image.Artist"] == "Möller"
    assert exif["Exif.Image.Orientation"] == "6"
    assert exif["Exif.Photo.DateTimeOriginal"] == "1940:03:01 12:00:00"
    assert exif["Exif.Photo.ExposureTime"] == "1/60"
    assert exif["Exif.GPSInfo.GPSLatitude"] == "52/1 31/1 12/1"
    assert "Exif.Photo.MakerNote" not in exif
    assert xmp["Xmp.dc.title"] == {'lang="x-default"': "Scheune, März 1940"}
    assert xmp["Xmp.iptcExt.DigitalSourceType"] == SOURCE_TYPE
    assert "a red <barn> & März" in content.decode("utf-8", "ignore").replace("&lt;", "<").replace("&gt;", ">").replace(
        "&amp;", "&"
    )
    if image.metadata.iptc and format_ != "webp":
        assert iptc["Iptc.Application2.Caption"] in ("Barn", ["Barn"])
    if format_ != "jp2":  # exiv2 reads no restricted profile there
        assert icc == image.profile.output
    again = open_raster(io.BytesIO(content), 1 << 40).metadata
    assert (again.tags, again.sub, again.icc) == (image.metadata.tags, image.metadata.sub, image.profile.output)
    if format_ != "webp":
        assert again.dpi == pytest.approx(image.metadata.dpi, rel=1e-3) if image.metadata.dpi else not again.dpi


def test_the_mark_keeps_what_was_said_and_says_it_once():
    first = marked(scans.XMP, MARK)
    second = marked(first, replace(MARK, prompt="a green barn"))
    root = etree.fromstring(second[second.index(b"<x:") :].rpartition(b"<?xpacket")[0])
    names = [etree.QName(one).localname for one in root.iter() if isinstance(one.tag, str)]
    for name in (
        "DigitalSourceType",
        "AISystemUsed",
        "AIPromptInformation",
        "DerivedFrom",
        "History",
        "OriginalSHA256",
    ):
        assert names.count(name) == 1, name
    assert b"negativeFilm" not in second
    assert b"a green barn" in second
    assert "Scheune, März 1940".encode() in second
    assert second.count(b"edited") == 1
    assert b"Scan 1.0" in second
    assert marked(first, MARK) == first
    assert marked(scans.XMP, None) == scans.XMP


def test_jp2_is_valid(tmp_path):
    image = decode_gray(io.BytesIO(DESCRIBED["jp2"]))
    composed(image, "jp2", tmp_path / "a.jp2")
    report = jpylyzer.checkOneFile(str(tmp_path / "a.jp2"), "jp2")
    assert report.findtext("isValid") == "True"
    assert report.findtext(".//resolutionBox/captureResolutionBox/hRescInPixelsPerInch").startswith("300")
    assert report.findtext(".//colourSpecificationBox/meth") == "Restricted ICC"
    assert report.findtext(".//cod/transformation") == "5-3 reversible"


def test_regions_alone_get_colour(tmp_path):
    image = decode_gray(io.BytesIO(scans.tiff(np.tile(scans.GRAY16, (3, 3)))))
    regions = ((10, 70, 100, 64), (130, 20, 64, 80))
    pixels = tifffile.imread(io.BytesIO(composed(image, "tiff", tmp_path / "a.tif", regions)))
    colour = pixels.max(-1) != pixels.min(-1)
    inside = np.zeros(image.gray.shape, bool)
    for x, y, width, height in regions:
        inside[y : y + height, x : x + width] = True
    assert not colour[~inside].any()
    assert colour[inside].mean() > 0.9


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colours_of_the_upright_view_come_to_lie_where_they_belong(orientation, tmp_path):
    """The model sees the scan upright; Pillow's own idea of orientation says whether we agree."""
    from PIL import ImageOps

    content = scans.png_file(scans.GRAY, exif=scans.exif_block(orientation=orientation))
    image = decode_gray(io.BytesIO(content))
    view = View(image)
    with Image.open(io.BytesIO(content)) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture))
    assert view.shape == upright.shape
    assert np.allclose(view.gray(*upright.shape) * 255, upright, atol=0.01)
    import torch

    rgb = torch.zeros(3, *upright.shape)
    rgb[:, : upright.shape[0] // 2] = torch.tensor([0.6, 0.4, 0.4])[:, None, None]  # reddish above, as it is seen
    colored = np.concatenate(list(painted(view, view.chroma(rgb), Reductions())))
    written = Image.fromarray(colored)
    written.getexif()[0x0112] = orientation
    seen = np.asarray(ImageOps.exif_transpose(written)).astype(int)
    redness = seen[..., 0] - seen[..., 1]
    assert redness[: upright.shape[0] // 4].mean() > 10
    assert abs(redness[-upright.shape[0] // 4 :].mean()) < 3
    shown = upright_picture(view.cropped().shrunk(64), view.chroma(rgb)).astype(int)
    assert (shown.shape[0] > shown.shape[1]) == (upright.shape[0] > upright.shape[1])
    assert (shown[..., 0] - shown[..., 1])[: shown.shape[0] // 4].mean() > 10


def test_access_copies_are_marked_jpegs():
    image = decode_gray(io.BytesIO(DESCRIBED["tiff"]))
    small = View(image).shrunk(60)
    assert small.image.gray.dtype == np.uint8
    assert max(small.image.gray.shape) == 60
    pixels = np.concatenate(list(painted(small, CHROMA, Reductions())))
    assert np.array_equal(luma(pixels), small.image.gray)
    form = form_of(image, "jpeg")
    content = jpeg(pixels, form, 95)
    with Image.open(io.BytesIO(content)) as picture:
        assert SOURCE_TYPE.encode() in picture.info["xmp"]
        assert picture.info["icc_profile"] == image.profile.output
    check = check_luma(io.BytesIO(content), small.image.gray)
    assert 0 < check.mean < 2


def test_formats_that_cannot_hold_a_picture_give_way():
    assert format_for("jp2", "tiff", 10_000, 10_000, np.dtype("u1"))[0] == "tiff"
    assert format_for("webp", "png", 100, 100, np.dtype("u2"))[0] == "tiff"
    assert "WebP" in format_for("webp", "png", 100, 20_000, np.dtype("u1"))[1]


def test_a_region_is_previewed_as_large_as_it_is():
    """A picture on a page is judged by itself, not as a thumbnail of the page."""
    view = View(decode_gray(io.BytesIO(scans.tiff(np.tile(scans.GRAY, (10, 10))))), ((80, 72, 160, 144),))
    small = view.cropped().shrunk(150)
    assert upright_picture(small, CHROMA).shape == (135, 150, 3)
    assert np.array_equal(view.cropped().shrunk(1000).image.gray, np.tile(scans.GRAY, (2, 2)))


def test_metadata_that_no_jpeg_can_hold_is_noticed():
    image = decode_gray(io.BytesIO(scans.png_file(scans.GRAY, xmp=scans.XMP.replace(b"Scheune", b"x" * 90_000))))
    form = form_of(image, "jpeg")
    assert not fits_jpeg(form)
    assert fits_jpeg(replace(form, xmp=marked(None, MARK)))


def test_what_webp_cannot_hold_is_said():
    image = decode_gray(io.BytesIO(DESCRIBED["tiff"]))
    form = form_of(image, "webp")
    assert losses(form) == "not carried into WebP: IPTC-IIM, resolution"
    assert losses(replace(form, format="tiff")) is None
