"""The photograph on a sheet is found, and none where the sheet is the photograph."""

import numpy as np
import pytest
from scipy import ndimage

from pipelines.images.sheet import find_picture
from tests.scans import landscape, mounted


def codes(picture: np.ndarray, dtype: type = np.uint8) -> np.ndarray:
    return np.round(picture * np.iinfo(dtype).max).astype(dtype)


def assert_near(found, wanted, tolerance: float) -> None:
    assert found is not None
    x, y, width, height = found
    left, top, across, down = wanted
    edges = np.abs(np.subtract((x, y, x + width, y + height), (left, top, left + across, top + down)))
    assert edges.max() <= tolerance, (found, wanted)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tone", [0.02, 0.3, 0.9, 0.97])
@pytest.mark.parametrize("writing", [False, True])
def test_a_photograph_on_a_mount_is_found(seed, tone, writing):
    sheet = mounted(landscape(seed), tone, (40, 30, 70, 50), writing)
    assert_near(find_picture(codes(sheet)), (30, 40, 320, 240), 4)


def test_depth_and_size_make_no_difference():
    sheet = mounted(landscape(1), 0.9, (40, 30, 70, 50))
    assert find_picture(codes(sheet)) == find_picture(codes(sheet, np.uint16))
    large = codes(ndimage.zoom(sheet, 5, order=1))
    assert_near(find_picture(large), (150, 200, 1600, 1200), 20)


def test_borders_within_each_other_are_all_left_out():
    printed = mounted(landscape(2), 0.95, (8, 8, 8, 8))
    sheet = mounted(mounted(printed, 0.4, (40, 30, 30, 40)), 0.03, (20, 20, 20, 20))
    assert_near(find_picture(codes(sheet)), (58, 68, 320, 240), 6)


def shirt() -> np.ndarray:
    """A thing on an even ground that is nearly a rectangle."""
    picture = np.full((300, 300), 0.3)
    picture[60:260, 80:220] = 0.8
    picture[60:110, 40:260] = 0.8
    return picture


def disc() -> np.ndarray:
    y, x = np.mgrid[:300, :300] - 150
    return np.where(np.hypot(x, y) < 110, 0.8, 0.2)


@pytest.mark.parametrize(
    "picture",
    [
        *(landscape(seed) for seed in range(8)),
        shirt(),
        disc(),
        np.full((200, 300), 0.5),
        np.tile(np.linspace(0, 1, 300), (200, 1)),
        np.random.default_rng(0).random((200, 300)),
        np.full((8, 8), 0.5),
        np.full((1, 500), 0.5),
    ],
)
def test_what_is_no_sheet_is_left_whole(picture):
    assert find_picture(codes(picture)) is None


def test_a_sheet_with_a_second_photograph_is_left_whole():
    """It would stay gray."""
    sheet = mounted(landscape(3), 0.9, (60, 60, 60, 260))
    sheet[70:230, 420:550] = landscape(4, 160, 130)
    assert find_picture(codes(sheet)) is None


def test_a_border_on_three_sides_alone_is_part_of_the_picture():
    """It may as well be a house before the sky."""
    assert find_picture(codes(mounted(landscape(3), 0.9, (60, 40, 0, 40)))) is None
