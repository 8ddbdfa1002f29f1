"""What docs/results.md is made with: which cases a part has, intervals, picks, and the document's places."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.ablation import part_of, prompt_of
from benchmarks.results import PICKED, bootstrap, fill, picked, pooled_ratio, read, run_for, table
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


def test_every_line_of_the_document_is_a_variant():
    names = [variant.name for variant in variants()]
    assert len(names) == len(set(names))
    assert run_for() <= set(names)
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


def rows(errors: list[float], groups: list[str]) -> list[dict]:
    return [{"ab_error": one, "ab_ratio": one / 10, "group": group} for one, group in zip(errors, groups, strict=True)]


def test_the_bootstrap_draws_groups_not_pictures():
    rng = np.random.default_rng(0)
    levels = rng.uniform(2, 12, 8)
    alike = rows([float(level) for level in levels for _ in range(9)], [str(n) for n in range(8) for _ in range(9)])
    apart = [{**row, "group": str(n)} for n, row in enumerate(alike)]
    value, low, high = bootstrap(alike, pooled_ratio)
    assert value == pytest.approx(levels.mean() / 10)
    assert low < value < high
    _, low_apart, high_apart = bootstrap(apart, pooled_ratio)
    assert high - low > 2 * (high_apart - low_apart)


def test_a_paired_change_is_surer_than_its_parts():
    rng = np.random.default_rng(1)
    errors = rng.uniform(2, 12, 30)
    groups = [str(n) for n in range(30)]
    before, after = rows(list(errors), groups), rows(list(errors - 0.2), groups)
    value, low, high = bootstrap(after, pooled_ratio, before)
    assert value == pytest.approx(-0.02)
    assert low == pytest.approx(-0.02)
    assert high == pytest.approx(-0.02)


@pytest.fixture
def runs(tmp_path):
    """Two variants' figures: one good on the even pictures, one on the odd."""
    (tmp_path / "figures").mkdir()
    columns = ("ciede2000", "colorfulness", "colorfulness_truth", "seconds")
    for name, good in {"even": 0, "odd": 1}.items():
        found = []
        for n in range(14):
            error = 3.0 if n % 2 == good else 9.0
            row = {"id": f"photograph-{n:03d}", "group": str(n), "ab_error": error, "ab_ratio": error / 10}
            found.append({**row, "margin": -error, **dict.fromkeys(columns, 1.0)})
        pq.write_table(pa.Table.from_pylist(found), tmp_path / "figures" / f"{name}.parquet")
    return tmp_path


def test_a_rule_picks_case_by_case(runs):
    best = picked(runs, ["even", "odd"], lambda row: row["margin"], "photograph")
    assert [row["ab_error"] for row in best] == [3.0] * 14
    worst = picked(runs, ["even", "odd"], lambda row: -row["margin"], "photograph")
    assert [row["ab_error"] for row in worst] == [9.0] * 14


def test_what_is_picked_has_a_line_of_its_own(runs, monkeypatch):
    for name in ("even", "odd"):
        file = runs / "figures" / f"{name}.parquet"
        found = pq.read_table(file)
        pq.write_table(found.append_column("stray_color", pa.array([0.0] * len(found))), file)
    monkeypatch.setitem(PICKED, "best", ["even", "odd"])
    assert {row["ab_error"] for row in read(runs, "best", "photograph").values()} == {3.0}
    assert table(runs, {"best": "the best"}, "photograph").splitlines()[2].startswith("| the best | 14 | 0.300 ")


def test_a_table_has_a_line_for_each_variant_that_was_run_and_its_change(runs):
    lines = table(runs, {"even": "even", "odd": "odd", "missing": "missing"}, "photograph", "even").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["*even*", "odd", "… the change"]
    assert lines[2].split("|")[3].split()[0] == lines[3].split("|")[3].split()[0] == "0.600"
    assert "**" not in lines[4].split("|")[3]  # as good on the whole


def test_the_reference_stands_on_the_cases_that_it_is_compared_on(runs):
    found = pq.read_table(runs / "figures" / "odd.parquet")
    for name, count in {"some": 12, "few": 3}.items():
        pq.write_table(found.slice(0, count), runs / "figures" / f"{name}.parquet")
    lines = table(runs, {"even": "even", "some": "some", "few": "few"}, "photograph", "even").splitlines()[2:]
    heads = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines]
    assert heads == [
        ["*even*", "12"],
        ["some", "12"],
        ["… the change", ""],
        ["*even*", "3"],
        ["few", "3"],
        ["… the change", ""],
    ]


@pytest.mark.parametrize("part", ["photograph", "scene"])
def test_changes_are_signed_once(part, tmp_path):
    (tmp_path / "figures").mkdir()
    columns = ("ab_error", "ciede2000", "colorfulness", "colorfulness_truth", "seconds", "margin", "hint_taken",
               "hint_hue_error", "bleed", "bleed_truth")  # fmt: skip
    for name, level in {"before": 2.0, "after": 1.0}.items():
        found = [
            {"id": f"{part}-{n}", "group": str(n), "ab_ratio": 0.5, **dict.fromkeys(columns, level)} for n in range(12)
        ]
        pq.write_table(pa.Table.from_pylist(found), tmp_path / "figures" / f"{name}.parquet")
    change = table(tmp_path, {"before": "before", "after": "after"}, part, "before").splitlines()[-1]
    assert "-1.00" in change or "-1.0 " in change
    assert "++" not in change


def test_a_table_goes_to_its_place_alone():
    document = "a\n<!-- x -->\nold\n<!-- end -->\nb\n<!-- y -->\n<!-- end -->\n"
    assert fill(document, "x", "new") == document.replace("old", "new")
    assert "\nz\n" in fill(document, "y", "z")
    with pytest.raises(ValueError, match="no place"):
        fill(document, "z", "")
