"""Before a job: what the images are, what it will take, whether this machine is fit."""

import json

import pytest
from typer.testing import CliRunner

from cli import app
from manifests.read import read_rows
from pipelines.operations.doctor import BAD, DOUBTFUL, GOOD, examine
from pipelines.operations.estimate import Figure, estimate
from tests import scans
from tests.conftest import write_manifest, write_picture
from tests.servers import Rclone


def table(folder, contents):
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return write_manifest(folder / "m.parquet", [{"id": one, "image": one, "caption": "a barn"} for one in contents])


def test_validate_says_what_the_images_are_and_which_would_fail(tmp_path):
    contents = {name: scans.GOOD[name][0] for name in ("tiff16", "png8", "jpeg", "tiff8_min_is_white")}
    manifest = table(tmp_path, {**contents, "bad1": scans.BAD["bitonal"], "bad2": scans.BAD["toned"]})
    result = CliRunner().invoke(app, ["manifest", "validate", manifest, "--look", "100", "--json"])
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert found["rows"] == found["looked_at"] == 6
    assert found["kinds"] == {"tiff, 16 bit": 1, "png, 8 bit": 1, "jpeg, 8 bit": 1, "tiff, 8 bit": 1}
    assert found["outputs"] == {"tiff": 3, "png": 1}
    assert found["conversions"] == {"none": 3, "inverted": 1}
    assert found["problems"] == {"bitonal": 1, "toned": 1}
    assert "--toned desaturate" in found["examples"]["toned"][1]
    text = CliRunner().invoke(app, ["manifest", "validate", manifest, "--look", "3"]).stdout
    assert "looked at 3 of 6 images" in text
    result = CliRunner().invoke(
        app, ["manifest", "validate", manifest, "--look", "100", "--toned", "desaturate", "--json"]
    )
    assert json.loads(result.stdout)["problems"] == {"bitonal": 1}


def test_validate_counts_what_it_says_often(tmp_path):
    rows = [{"id": f"r{k}", "image": f"{k}.png", "caption": "not red" if k % 2 else ""} for k in range(40)]
    manifest = write_manifest(tmp_path / "m.parquet", rows)
    result = CliRunner().invoke(app, ["manifest", "validate", manifest])
    assert result.exit_code == 2
    assert "no_prompt: 20 times, for example" in result.stderr
    assert result.stderr.count("caption is empty") == 3
    result = CliRunner().invoke(app, ["manifest", "validate", manifest, "--default-caption", "a barn"])
    assert result.exit_code == 0
    assert "20 times, for example" in result.stderr
    assert result.stderr.count("not red") <= 6


def test_an_estimate_is_measured_on_real_batches(tmp_path, spec):
    for number in range(4):
        write_picture(tmp_path / f"p{number}.png", number)
    rows = [{"id": f"p{number}", "image": f"p{number}.png", "caption": "a barn"} for number in range(4)]
    rows[3]["image"] = "gone.png"
    loaded = list(read_rows(write_manifest(tmp_path / "m.parquet", rows)))
    found = estimate(loaded, spec, rows=1000, workers=4, price_per_hour=2.0)
    assert (found.images, found.locksteps) == (3, 2)
    assert 0 < found.model_seconds_per_image < found.seconds_per_image.mean
    assert found.file_seconds_per_image > 0
    assert found.failed == {"not_found": 1}
    per_image = found.seconds_per_image
    assert per_image.low <= per_image.mean <= per_image.high
    assert found.worker_hours.mean == pytest.approx(per_image.mean * 1000 / 3600)
    assert found.hours.mean == pytest.approx(found.worker_hours.mean / 4)
    assert found.cost_per_1000.mean == pytest.approx(2.0 * found.worker_hours.mean)
    assert found.gigabytes == pytest.approx(found.megabytes_per_image)
    assert not (tmp_path / "out").exists(), "the job's output is not touched"
    with pytest.raises(ValueError, match="not_found"):
        estimate(loaded[3:], spec, rows=1, workers=1)


def test_an_interval_needs_two_values():
    assert Figure.of(3.0, [3.0]) == Figure(3.0, None, None)
    wide, narrow = Figure.of(2.0, [1.0, 3.0]), Figure.of(2.0, [1.9, 2.1, 2.0, 2.0])
    assert wide.mean == narrow.mean == 2.0
    assert wide.low == 0.0 < narrow.low < 2.0 < narrow.high < wide.high


def states(findings):
    return {finding.what: finding.state for finding in findings}


def test_a_fit_machine_and_store(tmp_path):
    found = states(examine(str(tmp_path / "out"), "mini", "mini"))
    assert found["base model"] == found["judge"] == found["output"] == found["preconditions"] == GOOD
    assert found["gpu"] in (GOOD, DOUBTFUL)


def test_what_is_wrong_is_found(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    found = states(examine(str(tmp_path / "file" / "out"), "/no/model", "mini"))
    assert found["base model"] == found["output"] == BAD
    result = CliRunner().invoke(app, ["doctor", "--base-model", "/no/model"])
    assert result.exit_code == 5
    assert "fail  base model" in result.stdout


def test_a_store_without_preconditions_is_no_failure(tmp_path, s3_environment):
    with Rclone(tmp_path / "rclone") as server:
        server.bucket("archive")
        s3_environment(server.environment)
        found = states(examine("s3://archive/out", "mini", "mini"))
    assert (found["output"], found["preconditions"]) == (GOOD, DOUBTFUL)
