"""A series takes the colours of its approved picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cli import app
from diffcolor.config import PRESETS
from diffcolor.lab import ab_of
from pipelines.curation.series import series_requests
from pipelines.curation.verify import verify
from pipelines.driver.run import run_job
from pipelines.job import JobSpec
from pipelines.ledger.ledger import Ledger
from pipelines.store.store import Store
from tests.conftest import TINY, write_manifest, write_picture
from tests.pipelines.jobs import request


@pytest.fixture
def series(tmp_path, base_folder, judge_folder, local_ray, monkeypatch):
    """Three pictures of a series and one outside it, colorized."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    for name, seed in {"a": 1, "b": 1, "c": 2, "d": 3}.items():
        write_picture(tmp_path / f"{name}.png", seed, height=100, width=140)
    rows = [
        {
            "id": name,
            "image": f"{name}.png",
            "caption": "a barn",
            "group_id": "barns" if name != "d" else None,
            "seed": k,
        }
        for k, name in enumerate("abcd")
    ]
    spec = JobSpec(output=str(tmp_path / "out"), base_model=str(base_folder), judge=str(judge_folder), config=TINY)
    run_job(request(write_manifest(tmp_path / "m.parquet", rows), spec))
    return spec


def results(spec) -> dict:
    return {row.id: row for row in Ledger(Store(spec.output)).current()}


def mean_ab(spec, output) -> np.ndarray:
    with Image.open(Path(spec.output) / output.image) as image:
        pixels = np.asarray(image).astype(np.float32) / 255
    return ab_of(torch.from_numpy(pixels).permute(2, 0, 1)[None]).mean((0, 2, 3)).numpy()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_others_take_the_colours_of_the_approved_one(series, tmp_path):
    assert {one.id: one.reference for one in series_requests(Store(series.output), "barns")} == dict.fromkeys(
        "bc", results(series)["a"].outputs[0].image
    ), "before anything is approved, the first picture is the example"
    approved = results(series)["b"].outputs[0]
    (tmp_path / "d.csv").write_text(f"id,output_sha256,decision\nb,{approved.sha256},approve\n")
    done = run("review", series.output, "--decisions", tmp_path / "d.csv")
    assert (done.exit_code, "series barns: 2 not approved yet" in done.stderr) == (0, True)
    before = results(series)
    done = run("recolor", series.output, "--group", "barns", "--json")
    assert done.exit_code == 0, done.stderr
    assert {one["id"] for one in json.loads(done.stdout)} == {"a", "c"}
    after = results(series)
    assert (after["b"].outputs, after["d"].outputs) == (before["b"].outputs, before["d"].outputs)
    wanted = mean_ab(series, approved)
    for name in "ac":
        plain, taken = after[name].outputs
        assert (taken.reference, taken.reference_sha256, taken.source) == (approved.image, approved.sha256, "recolor")
        assert taken.reference_likeness > 0
        apart = [np.linalg.norm(mean_ab(series, one) - wanted) for one in (plain, taken)]
        assert apart[1] < 0.8 * apart[0]
    assert verify(series.output).differences == []
    again = run("recolor", series.output, "--group", "barns")
    assert (again.exit_code, len(results(series)["a"].outputs)) == (0, 2), "the same once more changes nothing"


def test_a_group_that_is_not_there_names_those_that_are(series):
    done = run("recolor", series.output, "--group", "bams")
    assert (done.exit_code, "barns" in done.stderr) == (2, True)


def test_a_reference_is_given_on_the_command_line(series, tmp_path):
    Image.fromarray(np.full((100, 140, 3), (200, 60, 40), np.uint8)).save(tmp_path / "red.png")
    done = run("recolor", series.output, "--id", "d", "--reference", tmp_path / "red.png", "--json")
    assert done.exit_code == 0, done.stderr
    (made,) = json.loads(done.stdout)
    assert made["reference"] == f"file://{tmp_path}/red.png"
    gone = run("recolor", series.output, "--id", "d", "--reference", tmp_path / "gone.png")
    assert gone.exit_code != 0
    assert "gone.png" in gone.stderr
    assert "--reference URI" in gone.stderr
