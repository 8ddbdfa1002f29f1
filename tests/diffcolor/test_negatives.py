import json

import numpy as np
import pytest
import skimage.data
import torch

from diffcolor.coarse import load_coarse
from diffcolor.identity import embedded_folder, weights_digest
from diffcolor.luminance import luma
from diffcolor.negatives import FILE, LIMIT, negative_odds


def test_it_was_learnt_on_the_encoder_that_is_shipped():
    folder = embedded_folder("coarse")
    assert json.loads((folder / FILE).read_text())["encoder"] == weights_digest(folder)[0]


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_the_inverse_of_a_photograph_is_the_likelier_negative(name):
    gray = torch.from_numpy(luma(getattr(skimage.data, name)()).astype(np.float32) / 255)[None]
    coarse = load_coarse()
    assert negative_odds(coarse, gray) < min(LIMIT, negative_odds(coarse, 1 - gray))
