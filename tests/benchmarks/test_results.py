"""What docs/results.md is made with: which cases a part has, the long table, the sheet of best and worst."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from benchmarks.ablation import part_of, prompt_of
from benchmarks.results import FREE, RANKED, SHOWN, pooled_ratio, read, sheet, spread, write_csv
from benchmarks.validation import HUES, Case
from benchmarks.variants import PARTS, REPLACEMENTS, Variant, attraction_loss, replaced, variants
from diffcolor import colorize
from diffcolor.base_model import load_base_model
from diffcolor.config import SampleConfig
from diffcolor.losses import contrastive_loss
from diffcolor.luminance import replace_luma


@pytest.fixture(scope="module")
def embedded():
    return load_base_model()


def cases(photographs: int, scenes: int) -> list[Case]:
    picture, mask = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)
    common = {"truth": picture, "caption": "c", "hinted": "h", "group": "g"}
    return [Case(id=f"photograph-{n:03d}", **common) for n in range(photographs)] + [
        Case(id=f"scene-{n:03d}", mask=mask, hint_color=HUES[n % len(HUES)], other="o", **common) for n in range(scenes)
    ]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_its_photographs_from_all_over_and_scenes_of_every_hue(part):
    photographs, scenes = PARTS[part]
    found = part_of(cases(50, 60), part)
    numbers = [int(one.id[-3:]) for one in found if one.mask is None]
    assert len(numbers) == len(set(numbers)) == photographs
    assert numbers[:1] == [0] * bool(photographs)
    if photographs > 1:
        assert numbers[-1] == 49
    hues = [one.hint_color for one in found if one.mask is not None]
    assert len(hues) == scenes
    assert max(map(hues.count, hues), default=0) - min(map(hues.count, hues), default=0) <= 1


def test_a_part_of_few_cases_is_all_of_them():
    assert len(part_of(cases(3, 2), "some")) == 5


def test_every_variant_has_a_name_of_its_own():
    names = [variant.name for variant in variants()]
    assert len(names) == len(set(names))
    assert {variant.against for variant in variants()} - {None} <= set(names)


def test_only_scenes_are_asked_for_another_hue():
    photograph, scene = cases(1, 1)
    assert prompt_of(scene, Variant(name="x", sample=SampleConfig(), prompt="other")) == "o"
    assert prompt_of(photograph, Variant(name="x", sample=SampleConfig(), prompt="other")) == "h"
    assert prompt_of(scene, Variant(name="x", sample=SampleConfig(), prompt="gray")) == "c"


def test_without_negatives_only_the_caption_pulls():
    text, negatives = torch.eye(4)[[0, 1]], torch.eye(4)[None, 2:].expand(2, -1, -1)
    near = attraction_loss(text, text, negatives, 0.1)
    assert torch.equal(near, torch.zeros(2))
    half = torch.nn.functional.normalize(text + negatives[:, 0], dim=-1)
    assert torch.equal(
        attraction_loss(half, text, negatives, 0.1), attraction_loss(half, text, text[:, None].expand(-1, 2, -1), 0.1)
    )
    assert (contrastive_loss(half, text, negatives, 0.1) > contrastive_loss(half, text, -negatives, 0.1)).all()


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_what_takes_the_place_of_a_piece_is_another(name, embedded):
    module, attribute, _ = REPLACEMENTS[name](embedded)
    before = getattr(module, attribute)
    with replaced(name, embedded):
        assert getattr(module, attribute) != before
    assert getattr(module, attribute) is before


def test_every_variants_replacement_is_known():
    assert {variant.instead for variant in variants()} - {None} <= set(REPLACEMENTS)


@pytest.mark.parametrize("name", ["vae-features", "half-warp", "patch-11", "reach-8"])
def test_another_alignment_aligns_too(name, embedded):
    """A sample that is shifted against its scan comes nearer to it, by all or half of the way."""
    generator = torch.Generator().manual_seed(4)
    gray = torch.nn.functional.interpolate(torch.rand(1, 1, 16, 16, generator=generator), (128, 128), mode="bicubic")
    gray = gray.clamp(0.05, 0.95)
    red = torch.zeros(1, 3, 128, 128)
    red[:, 0, 48:80, 48:80] = 0.1
    truth = replace_luma(gray + red, gray)
    shifted = torch.roll(truth, 4, dims=-1)
    with torch.no_grad(), replaced(name, embedded):
        aligned = colorize.spatial_align(shifted, gray)
    before, after = ((replace_luma(one, gray) - truth).abs().mean() for one in (shifted, aligned))
    assert after < 0.75 * before


@pytest.fixture
def runs(tmp_path):
    """Twenty Kodachromes and another photograph in the colours of all that is shown, the first the truest."""
    for name in (*SHOWN, "truth"):
        (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "figures").mkdir()
    rows = []
    for n in range(21):
        one = f"{FREE}{n:03d}" if n < 20 else "photograph-of-someone-000"
        rows.append({"id": one, "group": f"shoot {n}", "ab_error": n + 1.0, "ab_ratio": (n + 1) / 10, "witness": None})
        for name in (*SHOWN, "truth"):
            Image.new("RGB", (400, 100), (200, 10 * n, 0)).save(tmp_path / "pictures" / name / f"{one}.png")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "figures" / f"{RANKED}.parquet")
    return tmp_path


def test_the_sheet_shows_the_worst_as_well_as_the_best(runs):
    ids = spread(read(runs)[RANKED])
    assert [int(one[-3:]) for one in ids] == [0, 1, 2, 9, 10, 11, 17, 18, 19]
    picture = np.asarray(sheet(runs / "pictures", ids))
    height = picture.shape[0] // 9
    column = picture.shape[1] // (len(SHOWN) + 1)
    for line, one in enumerate(ids):
        middle = picture[line * height + height // 2]
        assert middle[column // 2].std() < 1  # the scan is gray
        assert middle[column + column // 2].tolist() == [200, 10 * int(one[-3:]), 0]


def test_every_picture_is_in_the_table(runs):
    write_csv(read(runs), runs / "long" / "test.csv")
    lines = (runs / "long" / "test.csv").read_text().splitlines()
    assert len(lines) == 22
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert (first["picture"], first["variant"], first["ab_error"], first["witness"]) == (
        "photograph-fsac-000",
        RANKED,
        "1",
        "",
    )


def test_errors_are_summed_before_they_are_divided():
    assert pooled_ratio([{"ab_error": 1.0, "ab_ratio": 0.5}, {"ab_error": 9.0, "ab_ratio": 1.0}]) == 10 / 11
