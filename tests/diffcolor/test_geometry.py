import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcolor.geometry import working_gray, working_size


@given(
    height=st.integers(64, 20000),
    width=st.integers(64, 20000),
    model=st.sampled_from([(512 * 512, 64), (768 * 768, 64), (80 * 80, 16), (32 * 32, 8)]),
)
def test_working_sizes_fit_the_model(height, width, model):
    area, multiple = model
    h, w = working_size(height, width, area, multiple)
    assert h % multiple == w % multiple == 0
    assert 0.5 * area <= h * w <= 1.3 * area
    if 1 / 3 < height / width < 3:
        assert abs(np.log(h / w) - np.log(height / width)) < 0.36


def test_square_scans_get_the_training_size():
    assert working_size(3000, 3000, 512 * 512, 64) == (512, 512)


def test_orientation_is_kept():
    assert working_size(4000, 3000, 512 * 512, 64) == working_size(3000, 4000, 512 * 512, 64)[::-1]


def test_working_gray_is_the_scan_in_small():
    gray = np.full((200, 300), 51, np.uint8)
    small = working_gray(gray, 64, 96)
    assert small.shape == (64, 96)
    assert np.allclose(small, 0.2, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_large_scans_are_averaged_in_strips_to_the_same(dtype, monkeypatch):
    y, x = np.mgrid[0:300, 0:500] / 500
    gray = ((0.5 + 0.4 * np.sin(5 * x + 3 * y)) * np.iinfo(dtype).max).astype(dtype)
    whole = working_gray(gray, 48, 80)
    monkeypatch.setattr("diffcolor.geometry._LARGE", 1000)
    assert np.abs(working_gray(gray, 48, 80) - whole).max() < 0.01
