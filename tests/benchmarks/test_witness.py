"""The witness sees colour, and is no part of the product."""

import numpy as np
from skimage import data

from benchmarks.witness import perceptual_distance
from diffcolor.luminance import luma


def test_the_nearer_a_picture_is_to_the_truth_the_less_differently_it_is_seen():
    truth = data.coffee()[::2, ::2]
    gray = np.repeat(luma(truth)[..., None], 3, -1)
    halfway = (truth // 2 + gray // 2).astype(np.uint8)
    seen = [perceptual_distance(one, truth) for one in (truth, halfway, gray, np.zeros_like(truth))]
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[2] > 1.5 * seen[1]
    assert perceptual_distance(gray, truth) == perceptual_distance(truth, gray)
