"""Known colours at points and boxes: they are had where they were given, follow the scan's edges, and go no further."""

import numpy as np
import pytest
import torch

from diffcolor.hints import Hint, HintSpreader
from diffcolor.lab import ab_of
from diffcolor.luminance import soft_luma
from tests.conftest import gray_picture

RED, BLUE = (45.0, 25.0), (5.0, -35.0)


def two_things(height: int = 90, width: int = 120) -> np.ndarray:
    """A lighter disc on a darker, shaded ground, with some grain."""
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - 45, x - 40) < 25
    gray = np.where(disc, 0.62, 0.4) + 0.05 * x / width
    return (gray + np.random.default_rng(0).normal(0, 0.003, gray.shape)).astype(np.float32)


def plain(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, -1)


def at(y: float, x: float, ab, height: int = 90, width: int = 120) -> Hint:
    return Hint(top=y / height, left=x / width, bottom=(y + 1) / height, right=(x + 1) / width, ab=ab)


def ab(picture: np.ndarray) -> np.ndarray:
    return ab_of(torch.from_numpy(picture).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def luma(picture: np.ndarray) -> np.ndarray:
    return soft_luma(torch.from_numpy(picture).permute(2, 0, 1)[None])[0, 0].numpy()


def test_a_thing_takes_the_colour_of_its_point_and_its_surroundings_do_not():
    gray = two_things()
    found, kept = HintSpreader(gray, [at(45, 40, RED)])(plain(gray))
    inside = np.hypot(*(np.mgrid[:90, :120] - np.array([45, 40])[:, None, None])) < 22
    outside = np.hypot(*(np.mgrid[:90, :120] - np.array([45, 40])[:, None, None])) > 28
    assert kept == (pytest.approx(1, abs=0.02),)
    assert np.abs(ab(found)[45, 40] - RED).max() < 1
    assert np.linalg.norm(ab(found)[inside] - RED, axis=-1).mean() < 8
    assert np.linalg.norm(ab(found)[outside], axis=-1).mean() < 2
    assert np.abs(luma(found) - gray).max() < 1e-5


def test_two_points_share_a_picture_at_its_edges():
    gray = two_things()
    found, _ = HintSpreader(gray, [at(45, 40, RED), at(80, 110, BLUE)])(plain(gray))
    assert np.abs(ab(found)[60, 40] - RED).max() < 6
    assert np.abs(ab(found)[10, 90] - BLUE).max() < 6


def test_the_models_shades_of_a_thing_are_kept():
    """What spreads is the difference: where the model's chroma varies within the thing, it still does."""
    gray = two_things()
    shaded = plain(gray).copy()
    shaded[30:45, 30:50, 0] += 0.05
    before, after = ab(shaded), ab(HintSpreader(gray, [at(55, 40, BLUE)])(shaded)[0])
    step = before[37, 40] - before[55, 40]
    assert np.abs((after[37, 40] - after[55, 40]) - step).max() < 0.35 * np.abs(step).max()


def test_a_neutral_point_takes_colour_away():
    gray = two_things()
    brown = plain(gray) + np.array([0.08, 0.0, -0.16], np.float32)
    found, kept = HintSpreader(gray, [at(80, 110, None)])(brown)
    assert kept == (1.0,)
    assert np.linalg.norm(ab(found)[80, 110]) < 0.5
    assert np.linalg.norm(ab(found)[5:20, 80:].reshape(-1, 2), axis=-1).mean() < 2
    assert np.linalg.norm(ab(found)[45, 40]) > 8, "the other thing keeps its own"


def test_a_box_speaks_for_what_it_mostly_holds():
    gray = two_things()
    box = Hint(top=15 / 90, left=10 / 120, bottom=75 / 90, right=70 / 120, ab=RED)  # the disc and corners of the ground
    found, _ = HintSpreader(gray, [box])(plain(gray))
    assert np.abs(ab(found)[45, 40] - RED).max() < 3
    assert np.linalg.norm(ab(found)[17, 12]) < 8
    assert np.linalg.norm(ab(found)[80, 110]) < 2


def test_chroma_that_gray_values_have_no_room_for_is_reduced_and_said():
    gray = np.full((60, 80), 0.97, np.float32)
    found, kept = HintSpreader(gray, [at(30, 40, (70.0, 50.0), 60, 80)])(plain(gray))
    assert 0 < kept[0] < 0.3
    assert np.abs(luma(found) - gray).max() < 1e-5
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6


def test_the_same_hint_gives_the_same_bytes():
    gray = gray_picture(1, 96, 128).astype(np.float32) / 255
    first = HintSpreader(gray, [at(5, 5, BLUE, 96, 128)])(plain(gray))[0]
    assert np.array_equal(first, HintSpreader(gray, [at(5, 5, BLUE, 96, 128)])(plain(gray))[0])


@pytest.mark.parametrize("order", [1, -1])
def test_of_places_that_overlap_the_smaller_one_counts(order):
    gray = np.full((90, 120), 0.5, np.float32)
    whole = Hint(top=0, left=0, bottom=1, right=1, ab=None)
    found, kept = HintSpreader(gray, [whole, at(45, 40, RED)][::order])(plain(gray) + np.float32([0.05, 0, -0.1]))
    assert np.abs(ab(found)[45, 40] - RED).max() < 2
    assert np.linalg.norm(ab(found)[45, 50]) < 3
    assert min(kept) > 0.95
    _, kept = HintSpreader(gray, [at(45, 40, RED), at(45, 40, BLUE)])(plain(gray))
    assert sorted(kept)[0] == 0, "one place, two colours: one of them is not had, and this is said"


@pytest.mark.parametrize("size", [(24, 32), (200, 260)])
def test_colours_come_at_any_size(size):
    """The model's picture may be smaller or larger than the one on which hints are spread."""
    gray = two_things()
    colors = np.clip(0.5 + np.array([0.1, 0.0, -0.1]), 0, 1)
    rgb = np.broadcast_to(colors, (*size, 3)).astype(np.float32)
    found, _ = HintSpreader(gray, [at(45, 40, RED)])(rgb)
    assert found.shape == (90, 120, 3)
    wanted = ab(np.broadcast_to(colors, (2, 2, 3)).astype(np.float32))[0, 0]
    assert np.linalg.norm(ab(found)[85, 5] - wanted) < 4
