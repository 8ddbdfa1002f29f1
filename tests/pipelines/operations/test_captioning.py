"""`manifest caption`: what a machine wrote is there, and is said to be a machine's."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import app
from manifests.read import read_rows
from manifests.schema import Defaults
from tests import tiny_models
from tests.conftest import write_manifest, write_picture


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return tiny_models.make_captioner(tmp_path_factory.mktemp("blip"))


def run(*arguments):
    return CliRunner().invoke(app, ["manifest", "caption", *map(str, arguments)])


@pytest.fixture
def manifest(tmp_path):
    for number in range(6):
        write_picture(tmp_path / f"p{number}.png", number)
    rows = [{"id": f"r{k}", "image": f"p{k}.png", "caption": None, "shelf": f"s{k}"} for k in range(6)]
    rows[1]["caption"], rows[4]["caption"] = "a barn", "  "
    rows[5]["image"] = "gone.png"
    return write_manifest(tmp_path / "m.parquet", rows)


def test_missing_captions_are_written_and_marked_and_others_stay(manifest, blip, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere" / "captioned.parquet"  # where relative paths would be others
    done = run(manifest, "-o", out, "--model", blip)
    assert done.exit_code == 3, done.output
    assert "6 rows, 4 with a caption" in done.stdout
    assert "r5: " in done.stderr
    before, after = pq.read_table(manifest), pq.read_table(out)
    assert after.column_names == [*before.column_names, "caption_source", "prompt_writer"]
    rows = after.to_pylist()
    assert [row["shelf"] for row in rows] == [f"s{k}" for k in range(6)]
    read = list(read_rows(str(out), defaults=Defaults(caption="?")))
    assert [row.image for row in read] == [row.image for row in read_rows(manifest, defaults=Defaults(caption="?"))]
    mark = f"machine: {blip}"
    for number, row in enumerate(rows):
        if number in (0, 2, 3, 4):
            assert row["caption"].strip()
            assert (row["caption_source"], row["prompt_writer"]) == (mark, mark)
        else:
            assert (row["caption_source"], row["prompt_writer"]) == (None, None)
    assert (rows[1]["caption"], rows[5]["caption"]) == ("a barn", None)


def test_the_marks_go_into_a_rows_own_columns(manifest, blip, tmp_path):
    """Under other headings, over several files, and with a writer of the target prompt who is a person."""
    table = pq.read_table(manifest).slice(0, 4)
    table = table.rename_columns(["titel" if name == "caption" else name for name in table.column_names])
    (tmp_path / "parts").mkdir()
    person = pa.array(["N. N.", None], pa.string())
    for number in range(2):
        part = table.slice(2 * number, 2).append_column("prompt_writer", person)
        images = [str(tmp_path / name) for name in part["image"].to_pylist()]
        part = part.set_column(part.column_names.index("image"), "image", pa.array(images, pa.string()))
        pq.write_table(part, tmp_path / "parts" / f"{number}.parquet")
    out = tmp_path / "captioned.parquet"
    done = run(tmp_path / "parts", "-o", out, "--model", blip, "--column", "caption=titel")
    assert done.exit_code == 0, done.output
    rows = pq.read_table(out).to_pylist()
    assert [bool(row["titel"]) for row in rows] == [True] * 4
    assert [row["prompt_writer"] for row in rows] == ["N. N.", None, "N. N.", f"machine: {blip}"]
    loaded = list(read_rows(str(out), {"caption": "titel"}))
    assert dict(loaded[2].extra)["caption_source"] == f"machine: {blip}"


def test_a_model_that_is_none_is_one_sentence(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "empty", "no/such-model"):
        done = run(manifest, "-o", tmp_path / "out.parquet", "--model", name)
        assert done.exit_code == 5
        assert "Traceback" not in done.output
    assert not (tmp_path / "out.parquet").exists()
    assert run(manifest, "-o", manifest, "--model", "x").exit_code == 2
