"""A colour picture lends its colours where the scan is like it, and nothing where it is not."""

import numpy as np
import pytest
import torch

from diffcolor.coarse import load_coarse
from diffcolor.lab import ab_of
from diffcolor.luminance import luma, soft_luma
from diffcolor.reference import Reference


@pytest.fixture(scope="module")
def coarse():
    return load_coarse()


def scene(shift: int = 0, height: int = 160, width: int = 208) -> np.ndarray:
    """A sky, a field, and a house with a dark door; (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    picture = np.where((y < 70)[..., None], np.array([120, 160, 215]) + y[..., None] * 0.3, np.array([95, 125, 60]))
    house = (np.abs(x - 90 - shift) < 38) & (np.abs(y - 80) < 34)
    door = (np.abs(x - 90 - shift) < 9) & (np.abs(y - 100) < 15)
    picture = np.where(house[..., None], np.array([190, 90, 70]), picture)
    picture = np.where(door[..., None], np.array([60, 40, 30]), picture)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def ab(picture: np.ndarray) -> np.ndarray:
    return ab_of(torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def gray_of(picture: np.ndarray) -> np.ndarray:
    return (luma(picture) / 255).astype(np.float32)


def test_a_picture_of_the_same_thing_lends_its_colours(coarse):
    gray, truth = gray_of(scene(40)), ab(scene(40) / 255)
    plain = np.repeat(gray[..., None], 3, -1)
    found, likeness = Reference(coarse, scene())(gray, plain)
    assert likeness == 1
    assert np.linalg.norm(ab(found) - truth, axis=-1).mean() < 0.75 * np.linalg.norm(truth, axis=-1).mean()
    held = soft_luma(torch.from_numpy(found).permute(2, 0, 1)[None])[0, 0].numpy()
    assert np.abs(held - gray).max() < 1e-5
    again, _ = Reference(coarse, scene())(gray, plain)
    assert np.array_equal(found, again)


def test_a_picture_of_something_else_changes_nothing(coarse):
    gray = gray_of(scene())
    colors = np.repeat(gray[..., None], 3, -1) * np.float32([1, 0.9, 0.8])
    noise = np.random.default_rng(1).integers(0, 255, (150, 90, 3)).astype(np.uint8)
    found, likeness = Reference(coarse, noise)(gray, colors)
    assert likeness == 0
    assert np.array_equal(found, colors)
