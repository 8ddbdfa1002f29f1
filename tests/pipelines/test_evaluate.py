"""Figures against the truth, held against hand-made pictures whose figures are known."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage.color import lab2rgb
from typer.testing import CliRunner

from cli import app
from diffcolor.luminance import luma
from manifests.errors import ManifestError
from manifests.read import read_rows
from pipelines.evaluate import Truth, evaluate, truths
from pipelines.evaluate.figures import against_truth, hint_agreement, hue_of, interval
from pipelines.jobspec import Place, Task
from pipelines.ledger import Ledger
from pipelines.store import Store
from pipelines.worker import Worker
from tests.conftest import write_manifest
from tests.scans import encoded


def coloured(a: float, b: float, lightness=60.0, size=(64, 80)) -> np.ndarray:
    lab = np.broadcast_to(np.array([lightness, a, b]), (*size, 3))
    return (lab2rgb(lab) * 255).round().astype(np.uint8)


def test_the_truth_itself_is_without_error_and_gray_is_one():
    truth = coloured(20, -30)
    found = against_truth(truth, truth)
    assert found["ab_error"] == found["ciede2000"] == 0
    assert found["ab_ratio"] == 0
    assert found["ssim"] == pytest.approx(1)
    gray = np.repeat(luma(truth)[..., None], 3, -1)
    assert against_truth(gray, truth)["ab_ratio"] == pytest.approx(1, abs=1e-3)
    assert against_truth(gray, truth)["ab_error"] == pytest.approx(np.hypot(20, 30), abs=0.7)


def test_the_opposite_colour_is_worse_than_gray():
    assert against_truth(coloured(-20, 30), coloured(20, -30))["ab_ratio"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("color", "hue"), [("red", 40), ("yellow", 103), ("green", 136), ("blue", 306)])
def test_hues_of_names(color, hue):
    assert hue_of(color) == pytest.approx(hue, abs=1.5)


def test_a_gray_has_no_hue():
    with pytest.raises(ValueError, match="no hue"):
        hue_of("gray")


def test_hints_are_taken_within_30_degrees_and_bleed_is_what_the_rest_takes():
    inside = np.zeros((64, 80), bool)
    inside[:, :40] = True
    angle = np.radians(hue_of("red") + 20)
    picture = np.where(inside[..., None], coloured(40 * np.cos(angle), 40 * np.sin(angle)), coloured(0, 0))
    found = hint_agreement(picture, inside, "red")
    assert found["hint_taken"] == 1
    assert found["hint_hue_error"] == pytest.approx(20, abs=1)
    assert found["bleed"] < 0.5
    assert hint_agreement(picture, inside, "blue")["hint_taken"] == 0
    red = coloured(40 * np.cos(np.radians(hue_of("red"))), 40 * np.sin(np.radians(hue_of("red"))))
    assert hint_agreement(red, inside, "red")["bleed"] == pytest.approx(40, abs=1)
    assert hint_agreement(coloured(0, 0), inside, "red")["hint_hue_error"] == 180


def test_an_interval_holds_the_mean_and_narrows_with_more_pictures():
    rng = np.random.default_rng(1)
    few, many = rng.normal(5, 1, 10), rng.normal(5, 1, 1000)
    for values in (few, many):
        mean, low, high = interval(values)
        assert low < mean < high
    assert interval(many)[2] - interval(many)[1] < 0.3 * (interval(few)[2] - interval(few)[1])
    assert interval(few) == interval(few)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base_folder, judge_folder):
    """Two colour pictures, their gray scans colorized, and a row that failed."""
    from pipelines.jobspec import JobSpec
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "truth").mkdir()
    for name, (a, b) in {"p": (30, 10), "q": (-20, 40)}.items():
        truth = coloured(a, b)
        truth[::7] //= 2
        (folder / "truth" / f"{name}.png").write_bytes(encoded(truth))
        (folder / f"{name}.png").write_bytes(encoded(luma(truth)))
    table = [{"id": one, "image": f"{one}.png", "caption": "a thing"} for one in ("p", "q", "gone")]
    rows = list(read_rows(write_manifest(folder / "m.parquet", table)))
    spec = JobSpec(output=str(folder / "out"), base_model=str(base_folder), judge=str(judge_folder), config=TINY)
    store = Store(spec.output)
    Worker(spec).process(
        [
            Task(row=row, row_digest=row.id, place=Place(plan="x", shard=0, generation=0, row=number))
            for number, row in enumerate(rows)
        ]
    )
    store.write("_engine/plans/x/plan.json", json.dumps({"rows": 3, "shard_rows": 1000}).encode())
    store.write("job.json", json.dumps({"rows": 3, "plan": "x", "run": "r", "preconditions": True}).encode())
    return folder


def test_a_job_is_compared_picture_by_picture(finished):
    found = evaluate(str(finished / "out"), truths(str(finished / "truth")))
    assert [row["id"] for row in found.rows] == ["p", "q"]
    assert all(row["luminance_mismatches"] == 0 for row in found.rows)
    assert found.missing == {"gone": "its status is failed"}
    summary = found.summary()
    assert summary["ab_ratio"][3] == 2
    assert summary["ab_ratio"][1] <= summary["ab_ratio"][0] <= summary["ab_ratio"][2]
    primary = evaluate(str(finished / "out"), truths(str(finished / "truth")), variant=0)
    assert primary.rows[0]["ab_error"] != found.rows[0]["ab_error"]


def test_what_cannot_be_compared_is_said(finished, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "p.png")
    (tmp_path / "q.png").write_bytes(b"nothing")
    found = evaluate(str(finished / "out"), truths(str(tmp_path)))
    assert "9 x 9" in found.missing["p"]
    assert "no image type" in found.missing["q"] or "text" in found.missing["q"]
    with pytest.raises(ManifestError):
        truths(str(finished / "nothing"))


def test_hints_by_mask_and_box(finished, tmp_path):
    mask = np.zeros((64, 80), np.uint8)
    mask[:, :30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    table = [
        {"id": "p", "hint_color": "red", "hint_mask": "mask.png", "hint_box": None},
        {"id": "q", "hint_color": "blue", "hint_mask": None, "hint_box": [0, 0, 30, 64]},
    ]
    table = [{**row, "image": str(finished / "truth" / f"{row['id']}.png")} for row in table]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "truth.parquet")
    found = evaluate(str(finished / "out"), truths(str(tmp_path / "truth.parquet")))
    store, inside = Store(str(finished / "out")), mask > 0
    for row, one, color in zip(found.rows, Ledger(store).current(), ("red", "blue"), strict=False):
        expected = hint_agreement(np.asarray(Image.open(io.BytesIO(store.read(one.outputs[0].image)))), inside, color)
        assert {name: row[name] for name in expected} == pytest.approx(expected)
    nowhere = evaluate(str(finished / "out"), {"p": Truth(table[0]["image"], "red")})
    assert nowhere.missing["p"].startswith("a hint needs")


def test_the_command_writes_tables(finished):
    given = ["--truth", str(finished / "truth"), "--judge", "mini", "--name", "first"]
    result = CliRunner().invoke(app, ["evaluate", str(finished / "out"), *given])
    assert result.exit_code == 0, result.output
    assert "| ab_ratio (lower is better) |" in result.stdout
    store = Store(str(finished / "out"))
    table = pq.read_table(io.BytesIO(store.read("evaluation/first.parquet")))
    assert table.num_rows == 2
    assert {"ciede2000", "clip_mini_score", "clip_mini_margin"} <= set(table.column_names)
    assert json.loads(store.read("evaluation/first.json"))["missing"] == {"gone": "its status is failed"}
