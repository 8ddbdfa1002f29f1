import pytest

from manifests.build import build
from manifests.errors import ManifestError
from manifests.read import read_rows
from pipelines.images.formats.table import SUFFIXES
from tests.conftest import write_picture


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scans" / "box 1").mkdir(parents=True)
    write_picture(tmp_path / "scans" / "a.png", 1)
    write_picture(tmp_path / "scans" / "box 1" / "b.jpg", 2)
    (tmp_path / "scans" / "notes.txt").write_text("no picture")
    return tmp_path / "scans"


def test_a_folder_becomes_rows_that_can_be_read_again(folder, tmp_path):
    built = build(str(folder), tmp_path / "m.parquet", SUFFIXES)
    assert (built.rows, built.uncaptioned) == (2, ("a", "box-1-b"))
    assert built.left_out == {".txt": 1}
    rows = list(read_rows(str(tmp_path / "m.parquet"), default_caption="x"))
    assert [row.id for row in rows] == ["a", "box-1-b"]
    assert rows[1].image == f"file://{folder}/box 1/b.jpg"


def test_captions_are_joined_on_the_path_and_orphans_of_both_sides_named(folder, tmp_path):
    (tmp_path / "c.csv").write_text(
        "file,id,caption,target_prompts,color_hints,seed\n"
        "a.png,barn-1,A barn,a red barn|a green barn,,5\nmissing.png,,x,,,\n",
        encoding="utf-8-sig",
    )
    built = build(str(folder), tmp_path / "m.parquet", SUFFIXES, str(tmp_path / "c.csv"))
    assert built.unmatched == ("missing.png",)
    assert built.uncaptioned == ("box-1-b",)
    row = next(read_rows(str(tmp_path / "m.parquet"), default_caption="x"))
    assert (row.id, row.caption, row.target_prompts, row.seed) == (
        "barn-1",
        "A barn",
        ("a red barn", "a green barn"),
        5,
    )


@pytest.mark.parametrize(("csv", "message"), [("name,caption\n", "'file'"), ("file\na.png\na.png\n", "twice")])
def test_a_bad_csv_is_refused(folder, tmp_path, csv, message):
    (tmp_path / "c.csv").write_text(csv)
    with pytest.raises(ManifestError, match=message):
        build(str(folder), tmp_path / "m.parquet", SUFFIXES, str(tmp_path / "c.csv"))


def test_a_short_csv_row_is_no_fault_and_a_bad_seed_is(folder, tmp_path):
    (tmp_path / "c.csv").write_text("file,caption,seed\na.png,A barn\n")
    assert build(str(folder), tmp_path / "m.parquet", SUFFIXES, str(tmp_path / "c.csv")).rows == 2
    (tmp_path / "c.csv").write_text("file,caption,seed\na.png,A barn,-5\n")
    with pytest.raises(ManifestError, match="bad_seed"):
        build(str(folder), tmp_path / "m.parquet", SUFFIXES, str(tmp_path / "c.csv"))


def test_two_files_with_one_id_are_named(folder, tmp_path):
    write_picture(folder / "a.tif", 3)
    with pytest.raises(ManifestError, match=r"a\.tif and .*a\.png"):
        build(str(folder), tmp_path / "m.parquet", SUFFIXES)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "e").mkdir()
    with pytest.raises(ManifestError, match="no_images"):
        build(str(tmp_path / "e"), tmp_path / "m.parquet", SUFFIXES)
