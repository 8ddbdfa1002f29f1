import numpy as np
import pytest

from pipelines.images.frame import seen_box, turned_back, turned_upright, upright_frame


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_place_of_the_upright_picture_is_found_in_the_stored_one(orientation):
    regions = [(30, 20, 40, 10), (50, 25, 21, 30)]
    box = seen_box(regions, 100, 80)
    assert box == (30, 20, 41, 35)
    left, top, width, height = box
    stored = np.random.default_rng(0).permutation(100 * 80).reshape(80, 100)
    part = stored[top : top + height, left : left + width]
    upright = turned_upright(part, orientation)
    assert (turned_back(upright, orientation) == part).all()
    x0, xu, xv, y0, yu, yv = upright_frame(box, orientation)
    rows, columns = upright.shape
    for y, x in np.random.default_rng(1).integers(0, upright.shape, (20, 2)):
        u, v = (x + 0.5) / columns, (y + 0.5) / rows
        assert stored[int(y0 + yu * u + yv * v), int(x0 + xu * u + xv * v)] == upright[y, x]


def test_without_regions_everything_is_seen():
    assert seen_box([], 100, 80) == (0, 0, 100, 80)
