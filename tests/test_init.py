"""`init`: from a folder of scans, and perhaps a spreadsheet, to the first command."""

import csv
import tomllib

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import app
from manifests.guess import guessed_columns, spreadsheets_beside
from manifests.sources.spreadsheet import Line
from tests import scans
from tests.conftest import write_picture


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "Box 7").mkdir()
    for number in range(3):
        write_picture(tmp_path / "Box 7" / f"p{number}.png", number)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sheet(path, headings, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([headings, *rows])


def test_a_folder_alone_becomes_a_job_and_says_what_it_lacks(here):
    done = run("init", "Box 7")
    assert done.exit_code == 0, done.output
    assert "Box-7.parquet: 3 images" in done.stdout
    assert "3 x png, 8 bit" in done.stdout
    assert "3 have no caption" in done.stderr
    assert done.stdout.splitlines()[-1] == "next: diffcolor-batch submit"
    settings = tomllib.loads((here / "diffcolor-batch.toml").read_text())["submit"]
    assert settings == {
        "manifest": "Box-7.parquet",
        "output": "Box-7-colorized",
        "default-caption": "a photograph",
    }
    printed = run("--print-settings")
    assert 'submit manifest = "Box-7.parquet"  (the file)' in printed.stdout
    assert run("submit", "--dry-run", "--help").exit_code == 0


def test_the_spreadsheet_beside_it_is_found_and_its_headings_are_understood(here):
    sheet(
        here / "Katalog.csv", ["Signatur", "Dateiname", "Titel"], *((f"s{n}", f"p{n}.png", "a barn") for n in range(3))
    )
    done = run("init", "Box 7")
    assert done.exit_code == 0, done.output
    assert "'Dateiname' is read as file; 'Titel' is read as caption" in done.stderr
    assert "no caption" not in done.stderr
    table = pq.read_table("Box-7.parquet").to_pylist()
    assert [row["caption"] for row in table] == ["a barn"] * 3
    assert [row["Signatur"] for row in table] == ["s0", "s1", "s2"]
    assert "default-caption" not in tomllib.loads((here / "diffcolor-batch.toml").read_text())["submit"]


def test_of_two_spreadsheets_it_asks_for_one(here):
    for name in ("a.csv", "b.csv"):
        sheet(here / "Box 7" / name, ["file", "caption"], ["p0.png", name])
    done = run("init", "Box 7")
    assert done.exit_code == 2
    assert "--captions" in done.stderr
    assert not (here / "diffcolor-batch.toml").exists()
    assert run("init", "Box 7", "--captions", here / "Box 7" / "b.csv").exit_code == 0
    assert pq.read_table("Box-7.parquet")["caption"].to_pylist() == ["b.csv", None, None]


def test_a_spreadsheet_about_something_else_is_left_aside_and_said(here):
    sheet(here / "budget.csv", ["year", "sum"], ["1931", "12"])
    (here / "~$open.xlsx").write_bytes(b"")
    (here / "broken.csv").write_bytes(b"\xff\xfe\xff")
    done = run("init", "Box 7")
    assert done.exit_code == 0, done.output
    assert "budget.csv has no column that names the images" in done.stderr
    assert "broken.csv cannot be read" in done.stderr
    assert "open.xlsx" not in done.output


def test_nothing_of_an_earlier_time_is_replaced_unasked(here):
    assert run("init", "Box 7").exit_code == 0
    (here / "diffcolor-batch.toml").write_text("# mine\n")
    again = run("init", "Box 7")
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert (here / "diffcolor-batch.toml").read_text() == "# mine\n"
    assert run("init", "Box 7", "--force").exit_code == 0
    assert "[submit]" in (here / "diffcolor-batch.toml").read_text()


def test_what_would_fail_is_said_and_everything_is_written_all_the_same(here):
    (here / "Box 7" / "toned.png").write_bytes(scans.BAD["toned"])
    done = run("init", "Box 7")
    assert done.exit_code == 3
    assert "toned: 1, for example toned" in done.stdout
    assert (here / "diffcolor-batch.toml").exists()


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_without_images_is_said_to_be_so(here, name):
    (here / "empty").mkdir()
    done = run("init", name)
    assert done.exit_code == 2
    assert not (here / "diffcolor-batch.toml").exists()


def test_columns_are_guessed_by_what_they_hold_and_not_at_all_where_they_have_their_names():
    images = {"a/p1.tif": "", "a/p2.tif": ""}
    lines = [Line(2, {"Nr": "1", "Bild": "p1.tif", "Titel": "x"}), Line(3, {"Nr": "2", "Bild": "p2", "Titel": "y"})]
    assert guessed_columns(["Nr", "Bild", "Titel"], lines, images) == {"file": "Bild", "caption": "Titel"}
    assert guessed_columns(["file", "Caption"], [Line(2, {"file": "p1.tif", "Caption": "x"})], images) == {}
    assert guessed_columns(["Nr"], [Line(2, {"Nr": "1"})], images) == {}


def test_spreadsheets_are_looked_for_in_the_folder_and_beside_it(here):
    (here / "list.XLSX").write_bytes(b"")
    (here / "Box 7" / "notes.txt").write_text("")
    assert spreadsheets_beside("Box 7") == [str(here / "list.XLSX")]
