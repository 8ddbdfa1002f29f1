import numpy as np
import pytest

from pipelines.images.gray import decode_gray
from pipelines.images.halftone import halftone_period
from pipelines.images.view import View
from tests import scans


def photograph(height=600, width=700, noise=6.0):
    """Soft shapes, edges, and film grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    gray = 120 + 60 * np.sin(x / 90) * np.cos(y / 70) + 40 * ((x - 300) ** 2 + (y - 250) ** 2 < 150**2)
    return np.clip(gray + rng.normal(0, noise, gray.shape), 0, 255).astype(np.uint8)


def text(height=600, width=700):
    """Lines of dark strokes, 24 pixels apart."""
    rng = np.random.default_rng(1)
    page = np.full((height, width), 230.0)
    for line in range(10, height - 14, 24):
        strokes = rng.random(width // 4).repeat(4)[:width] < 0.5
        page[line : line + 12, : strokes.size][:, strokes] = 40
    return (page + rng.normal(0, 3, page.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("period", [4.0, 6.0, 9.5])
@pytest.mark.parametrize("wide", [False, True])
def test_a_dot_screen_is_found_with_its_period(period, wide):
    printed = scans.halftone(photograph(noise=0), period)
    found = halftone_period(printed.astype(np.uint16) * 257 if wide else printed)
    assert found == pytest.approx(period, rel=0.1)


@pytest.mark.parametrize("gray", [photograph(), photograph(noise=30), text(), np.full((600, 600), 7, np.uint8)])
def test_grain_and_text_are_no_screen(gray):
    assert halftone_period(gray) is None


def test_small_pictures_are_taken_as_they_are():
    assert halftone_period(scans.halftone(photograph(200, 200), 5.0)) is None


@pytest.mark.parametrize("size", [(96, 112), (300, 350)])
def test_the_model_sees_the_gray_that_dots_stand_for(size):
    """At a working size where dots would show, and at one where the shrinking evens them out anyway."""
    import io

    clean = photograph(noise=0)
    printed = decode_gray(io.BytesIO(scans.tiff(scans.halftone(clean, 7.0))))
    view, plain = View(printed), View(printed)
    object.__setattr__(plain, "halftone", None)
    seen, unhelped = (np.diff(one.gray(*size), axis=1).std() for one in (view, plain))
    wanted = np.diff(View(decode_gray(io.BytesIO(scans.tiff(clean)))).gray(*size), axis=1).std()
    assert view.halftone == pytest.approx(7.0, rel=0.1)
    assert seen < 2 * wanted
    if size[0] > 200:
        assert unhelped > 3 * wanted
