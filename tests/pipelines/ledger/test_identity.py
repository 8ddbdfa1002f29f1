"""What is the same work, and what is not."""

from dataclasses import replace

import pytest

from diffcolor.config import PRESETS, digest
from diffcolor.identity import ModelIdentity
from manifests.color_places import ColorPlace
from manifests.schema import ManifestRow
from pipelines.job import OutputOptions
from pipelines.ledger.identity import fit_key, row_digest, settings_digest

ROW = ManifestRow(id="a", image="file:///a.png", caption="a barn", target_prompts=("a red barn",), seed=1)
MODELS = ModelIdentity(base_model="m", base_model_digest="1", judge="j", judge_digest="2")
CONFIG = PRESETS["balanced"]


# change: (row, models, config), whether the fit is another, whether the result is another
@pytest.mark.parametrize(
    ("change", "new_fit", "new_row"),
    [
        ({}, False, False),
        ({"row": {"target_prompts": ("a green barn",)}}, False, True),
        ({"row": {"caption": "a house"}}, True, True),
        ({"row": {"seed": 2}}, True, True),
        ({"row": {"anti_color_prompts": ("gray",)}}, True, True),
        ({"row": {"page": 1}}, True, True),
        ({"row": {"regions": ((0, 0, 80, 80),)}}, True, True),
        ({"row": {"toned": "desaturate"}}, True, True),
        ({"row": {"negative": True}}, True, True),
        ({"row": {"color_places": (ColorPlace(x=1, y=2, color="navy"),)}}, False, True),
        ({"row": {"reference": "file:///a.jpg"}}, False, True),
        ({"row": {"prompt_writer": "M. Doe"}}, False, True),
        ({"outputs": {"format": "png"}}, False, True),
        ({"outputs": {"access_copy": "jpeg"}}, False, True),
        ({"row": {"extra": {"shelf": 3}}}, False, False),
        ({"row": {"group_id": "g"}}, False, False),
        ({"models": {"base_model_digest": "9"}}, True, True),
        ({"models": {"base_model": "renamed"}}, False, False),
        ({"models": {"judge_digest": "9"}}, True, True),
        ({"config": {"etas": (0.5,)}}, False, True),
        ({"config": {"sample": replace(CONFIG.sample, guidance_scale=5)}}, False, True),
        ({"config": {"fit": replace(CONFIG.fit, lora_rank=4)}}, True, True),
    ],
)
def test_what_makes_new_work(change, new_fit, new_row):
    row = replace(ROW, **change.get("row", {}))
    models = replace(MODELS, **change.get("models", {}))
    config = replace(CONFIG, **change.get("config", {}))
    assert (fit_key("x", row, models, config) != fit_key("x", ROW, MODELS, CONFIG)) == new_fit
    outputs = replace(OutputOptions(), **change.get("outputs", {}))
    before, after = settings_digest(MODELS, CONFIG, OutputOptions()), settings_digest(models, config, outputs)
    assert (row_digest(row, after) != row_digest(ROW, before)) == new_row


def test_other_bytes_are_another_fit():
    assert fit_key("x", ROW, MODELS, CONFIG) != fit_key("y", ROW, MODELS, CONFIG)


def test_presets_differ_in_digest():
    assert len({digest(config) for config in PRESETS.values()}) == len(PRESETS)
