"""The tone curve that a scan has and its picture keeps, judged by LittleCMS."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.images.icc import BadProfileError, read_profile
from tests.scans import gamma_profile, gray_profile, srgb_profile

_X = np.linspace(0, 1, 256)


def table(values) -> bytes:
    return b"curv" + struct.pack(">II", 0, len(values)) + np.round(np.asarray(values) * 65535).astype(">u2").tobytes()


def parametric(kind, *numbers) -> bytes:
    return b"para" + struct.pack(f">IHH{len(numbers)}i", 0, kind, 0, *(round(one * 65536) for one in numbers))


DOT_GAIN = np.clip(_X + 0.2 * 4 * _X * (1 - _X) * -0.6, 0, 1) ** 1.1
PROFILES = {
    "gamma": gamma_profile(2.2),
    "table": gray_profile(table(DOT_GAIN)),
    "lab": gray_profile(table(_X), connection=b"Lab "),
    "parametric": gray_profile(parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)),
}


def lightness(pixels, profile: bytes, mode: str):
    """L* of pixels under a profile, by LittleCMS."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(source, target, mode, "LAB", renderingIntent=1)
    lab = np.asarray(ImageCms.applyTransform(Image.fromarray(pixels, mode), transform))
    return lab[..., 0].astype(float) * 100 / 255


@pytest.mark.parametrize("name", PROFILES)
def test_gray_looks_the_same_under_the_outputs_profile(name):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    profile = read_profile(PROFILES[name], 1)
    before = lightness(ramp, PROFILES[name], "L")
    after = lightness(np.repeat(ramp[..., None], 3, -1), profile.output, "RGB")
    assert np.abs(before - after).max() <= 0.8  # two steps of LittleCMS's 8-bit L*


def test_the_curve_that_we_compute_is_the_one_that_is_shown():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    for content in PROFILES.values():
        linear = read_profile(content, 1).linear
        y = np.interp(_X, np.linspace(0, 1, 4096), linear)
        expected = np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)
        assert np.abs(lightness(ramp, content, "L")[0] - expected).max() < 1.0


def test_no_profile_is_srgb_and_said_so():
    profile = read_profile(None, 1)
    assert profile.assumed
    ramp = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (4, 1))[..., None], 3, -1)
    assert np.abs(lightness(ramp, profile.output, "RGB") - lightness(ramp, srgb_profile(), "RGB")).max() <= 0.4


def test_an_rgb_profile_in_a_gray_file_gives_its_curve():
    profile = read_profile(srgb_profile(), 1)
    assert profile.foreign
    assert profile.output == srgb_profile()
    assert np.allclose(profile.linear, read_profile(None, 1).linear, atol=2e-3)
    with pytest.raises(BadProfileError, match="one tone curve"):
        read_profile(gray_profile(table(_X)).replace(b"GRAY", b"RGB "), 1)


def test_equal_channels_keep_their_own_profile():
    assert read_profile(srgb_profile(), 3).output == srgb_profile()


def test_other_primaries_than_srgbs_are_replaced_and_grays_look_the_same():
    """The model's colours are sRGB's: under Adobe RGB's primaries they would be others."""
    wide = bytearray(read_profile(gamma_profile(2.2), 1).output)
    at = bytes(wide).index(struct.pack(">3i", round(0.43607 * 65536), round(0.22249 * 65536), round(0.01392 * 65536)))
    struct.pack_into(">3i", wide, at, round(0.60974 * 65536), round(0.31111 * 65536), round(0.01947 * 65536))
    profile = read_profile(bytes(wide), 3)
    assert profile.output != bytes(wide)
    assert np.allclose(profile.linear, read_profile(gamma_profile(2.2), 1).linear)
    assert b"sRGB primaries" in profile.output


@pytest.mark.parametrize("name", PROFILES)
def test_colours_find_their_way_back(name):
    profile, codes = read_profile(PROFILES[name], 1), np.linspace(0.05, 0.99, 50)
    assert np.allclose(profile.from_srgb(profile.to_srgb(codes)), codes, atol=2e-3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 300,
        gamma_profile()[:150],
        gray_profile(table([1, 0.5, 0])),
        gray_profile(b"curv"),
        gray_profile(b"mft2" + bytes(40)),
        gray_profile(parametric(9)),
    ],
)
def test_broken_and_foreign_profiles_are_refused(content):
    with pytest.raises(BadProfileError):
        read_profile(content, 1)
