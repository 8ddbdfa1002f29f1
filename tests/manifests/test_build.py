"""`manifest build`: folders and spreadsheets as archives have them; nothing is lost, nothing guessed."""

import unicodedata

import openpyxl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import app
from manifests.build import build
from manifests.errors import ManifestError
from manifests.ids import MAX_ID, ids_of, slug_id
from manifests.read import read_rows
from manifests.schema import Defaults
from pipelines.images.formats.table import SUFFIXES
from tests.conftest import write_picture


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scans" / "box 1").mkdir(parents=True)
    write_picture(tmp_path / "scans" / "a.png", 1)
    write_picture(tmp_path / "scans" / "box 1" / "b.jpg", 2)
    (tmp_path / "scans" / "notes.txt").write_text("no picture")
    return tmp_path / "scans"


@pytest.fixture
def made(folder, tmp_path):
    """Builds the folder's manifest with a spreadsheet of this content; what was built, and its rows by id."""

    def make(content: str | bytes, name: str = "c.csv", **more):
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        built = build(str(folder), tmp_path / "m.parquet", SUFFIXES, str(tmp_path / name), **more)
        return built, {row["id"]: row for row in pq.read_table(tmp_path / "m.parquet").to_pylist()}

    return make


def run(*arguments):
    return CliRunner().invoke(app, ["manifest", "build", *map(str, arguments)])


def test_a_folder_becomes_rows_that_can_be_read_again(folder, tmp_path):
    built = build(str(folder), tmp_path / "m.parquet", SUFFIXES)
    assert (built.rows, built.uncaptioned) == (2, ("a", "box-1-b"))
    assert built.left_out == {".txt, not an image format that is read": 1}
    rows = list(read_rows(str(tmp_path / "m.parquet"), defaults=Defaults(caption="x")))
    assert [row.id for row in rows] == ["a", "box-1-b"]
    assert rows[1].image == f"file://{folder}/box 1/b.jpg"


def test_captions_are_joined_on_the_path_and_orphans_of_both_sides_named(made, tmp_path):
    built, _ = made(
        "\ufefffile,id,caption,target_prompts,color_hints,seed\n"
        "a.png,barn-1,A barn,a red barn|a green barn,,5\nmissing.png,,x,,,\n"
    )
    assert (built.unmatched, built.uncaptioned, built.matched) == (("missing.png",), ("box-1-b",), 1)
    row = next(read_rows(str(tmp_path / "m.parquet"), defaults=Defaults(caption="x")))
    assert (row.id, row.caption, row.target_prompts, row.seed) == (
        "barn-1",
        "A barn",
        ("a red barn", "a green barn"),
        5,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,caption\n", "--column file=HEADING"),
        ("file\na.png\na.png\n", "line 3: file 'a.png' is listed twice, first in line 2"),
        ("file,caption\na.png,A street, Cologne, 1936\n", "line 2: 4 cells, but 2 headings; put texts"),
        ('file,caption\na.png,"A street\nb.jpg,B\n', "line 2: .*quote"),
        ('file,caption\nb.jpg,B\na.png,"A street\nb.jpg,"B"\n', "line 3: .*quote"),
        ("file,caption,caption\na.png,A,AA\n", "'caption' occurs twice"),
        ("file,caption,Caption\na.png,A,AA\n", "two headings stand for the column 'caption'"),
        ("file,,caption\na.png,A,AA\n", "heading 2 of 3 is empty"),
        (f"file,caption\na.png,{'word ' * 40000}\n", "line 2: field larger"),
        ("file,caption\na.png,Köln\n".encode("cp1252"), "line 2.*CSV UTF-8"),
        ("file,status\na.png,x\n", "'status' is a column of the results"),
        ("", "it is empty"),
        (b"PK\3\4no workbook", "cannot be read as .xlsx"),
        ('file,regions\na.png,"1,2,3"\n', "line 2: regions: '1,2,3' is not x,y,width,height"),
        ("file,seed\na.png,-5\n", "bad_seed.*line 2"),
        ("file,caption\n,A street\n", "line 2: the cell of column 'file' is empty"),
    ],
)
def test_a_spreadsheet_that_cannot_be_meant_is_refused_with_its_line(made, content, message):
    with pytest.raises(ManifestError, match=message):
        made(content)


@pytest.mark.parametrize(
    "content",
    [
        "file;caption\na.png;A street, Cologne\n",
        "sep=;\r\nfile;caption\r\na.png;A street, Cologne\r\n",
        "file\tcaption\na.png\tA street, Cologne\n",
        'file,caption\ra.png,"A street, Cologne"\r',
        'file, caption\na.png, "A street, Cologne"\n\n,\n',
        'File,Caption\na.png,"A street, Cologne"\n',
        'file,caption,\na.png,"A street, Cologne",\n',
        "file\tcaption\r\na.png\tA street, Cologne\r\n".encode("utf-16"),
        'file,caption\nA.PNG,"A street, Cologne"\n',
        'file,caption\na,"A street, Cologne"\n',
        'file,caption\n.\\a.png,"A street, Cologne"\n',
    ],
)
def test_what_spreadsheets_write_is_read(made, content):
    built, rows = made(content)
    assert (rows["a"]["caption"], built.unmatched) == ("A street, Cologne", ())


def test_an_excel_workbook_is_read(made, tmp_path):
    book = openpyxl.Workbook()
    for row in (["file", "caption", "seed", "year"], ["b.jpg", "A barn", 7.0, 1936], [None, None, None, None]):
        book.active.append(row)
    book.save(tmp_path / "book.xlsx")
    _, rows = made((tmp_path / "book.xlsx").read_bytes(), "c.xlsx")
    assert (rows["box-1-b"]["caption"], rows["box-1-b"]["seed"], rows["box-1-b"]["year"]) == ("A barn", 7, "1936")


def test_every_column_is_carried_and_regions_are_read(made, tmp_path):
    built, rows = made(
        "file,caption,regions,inventory_no,colour_hints\n"
        'a.png,A street,"[[0,0,70,70]]",1936/17,red tram\nb.jpg,B,"0,0,70,64; 1,2,65,66",,\n'
    )
    assert rows["a"]["regions"] == [[0, 0, 70, 70]]
    assert rows["box-1-b"]["regions"] == [[0, 0, 70, 64], [1, 2, 65, 66]]
    assert (rows["a"]["inventory_no"], rows["a"]["colour_hints"]) == ("1936/17", "red tram")
    assert any("'colour_hints'" in note and "color_hints" in note for note in built.notes), "a near miss is named"
    assert not any("inventory_no" in note for note in built.notes)
    assert next(read_rows(str(tmp_path / "m.parquet"))).extra["inventory_no"] == "1936/17"


def test_columns_may_have_other_names(made):
    _, rows = made("scan,title\na.png,A barn\n", columns={"file": "scan", "caption": "title"})
    assert rows["a"]["caption"] == "A barn"
    with pytest.raises(ManifestError, match="there is no heading 'name'"):
        made("scan,title\na.png,A barn\n", columns={"file": "name"})


def test_a_name_that_only_one_file_has_needs_no_folder(made, folder):
    _, rows = made("file,caption\nb.jpg,A barn\n")
    assert rows["box-1-b"]["caption"] == "A barn"
    (folder / "box 2").mkdir()
    write_picture(folder / "box 2" / "b.jpg", 3)
    with pytest.raises(ManifestError, match=r"'box 1/b.jpg' or 'box 2/b.jpg'; give its folder"):
        made("file,caption\nb.jpg,A barn\n")
    _, rows = made("file,caption\nbox 2/b.jpg,A barn\n")
    assert rows["box-2-b"]["caption"] == "A barn"


def test_shelf_marks_become_ids_and_are_kept(made):
    built, rows = made("file,id,caption\na.png,1936/17,A\nb.jpg,Bild 183-1987,B\n")
    assert {row["id"]: row["given_id"] for row in rows.values()} == {
        "1936-17": "1936/17",
        "Bild-183-1987": "Bild 183-1987",
    }
    assert any("2 ids" in note for note in built.notes)
    with pytest.raises(ManifestError, match="have the same id"):
        made("file,id,caption\na.png,1936/17,A\nb.jpg,1936-17,B\n")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_match_in_any_normalization(made, folder, form):
    write_picture(folder / unicodedata.normalize(form, "Köln.png"), 3)
    for written in ("NFC", "NFD"):
        _, rows = made(f"file,caption\n{unicodedata.normalize(written, 'Köln.png')},A bridge\n")
        assert rows["Koln"]["caption"] == "A bridge"


def test_ids_are_readable_unique_and_stable():
    assert ids_of(["Müller.tif", "Möller.tif", "北京.tif", "上海.tif", "Москва 1.tif"]) == {
        "Müller.tif": "Muller",
        "Möller.tif": "Moller",
        "北京.tif": "BeiJing",
        "上海.tif": "ShangHai",
        "Москва 1.tif": "Moskva-1",
    }
    assert ids_of(["0001.jpg", "0001.tif", "x/0001.tif"]) == {
        "0001.tif": "0001",
        "0001.jpg": "0001-jpg",
        "x/0001.tif": "x-0001",
    }
    alike = ids_of(["a b.tif", "a-b.tif", "a_b.tif", "a+b.tif"])
    assert (alike["a-b.tif"], alike["a_b.tif"]) == ("a-b", "a_b"), "a name that is an id keeps it"
    assert alike["a b.tif"] == ids_of(["a-b.tif", "a b.tif"])["a b.tif"] != alike["a+b.tif"]
    assert len(slug_id("x" * 400)) == MAX_ID


@given(st.sets(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), max_size=8))
def test_whatever_files_are_called_their_ids_can_be_used(names):
    paths = {f"{folder}{name}.tif" for name in names for folder in ("", "x/")}
    ids = ids_of(sorted(paths))
    assert ids.keys() == paths
    assert len({one.casefold() for one in ids.values()}) == len(paths)
    for one in ids.values():
        assert len(one) <= MAX_ID
        assert set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert one[0] not in ".-"


def test_what_is_no_scan_of_the_archive_is_left_out_and_counted(folder, tmp_path):
    for name in (
        ".hidden.png",
        "._a.png",
        "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/a.png",
        "out/job.json",
        "out/images/a/0-x.png",
        "out/report/previews/a/p.jpg",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, 1) if path.suffix != ".json" else path.write_text("{}")
    built = build(str(folder), tmp_path / "m.parquet", SUFFIXES)
    assert built.rows == 2
    assert built.left_out == {
        "output of diffcolor-batch": 3,
        "hidden": 2,
        "thumbnail or system file": 2,
        ".txt, not an image format that is read": 1,
    }
    (folder / "job.json").write_text("{}")
    assert build(str(folder), tmp_path / "m.parquet", SUFFIXES).rows == 2, "a file of that name alone is no output"


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "e").mkdir()
    with pytest.raises(ManifestError, match="no_images"):
        build(str(tmp_path / "e"), tmp_path / "m.parquet", SUFFIXES)


@pytest.mark.parametrize("what", ["gone", "file", "spreadsheet", "output"])
def test_what_is_not_there_is_one_sentence(folder, tmp_path, what):
    arguments = {
        "gone": (tmp_path / "gone", "-o", tmp_path / "m.parquet"),
        "file": (folder / "a.png", "-o", tmp_path / "m.parquet"),
        "spreadsheet": (folder, "--captions", tmp_path / "c.csv", "-o", tmp_path / "m.parquet"),
        "output": (folder, "-o", "/proc/nowhere/m.parquet"),
    }[what]
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert len(done.stderr.strip().splitlines()) == 2  # what is wrong, and with what


def test_the_command_says_what_it_left_and_ends_with_3_if_nothing_matched(folder, tmp_path):
    (tmp_path / "c.csv").write_text("file,caption\nz.png,A barn\n")
    done = run(folder, "--captions", tmp_path / "c.csv", "-o", tmp_path / "m.parquet")
    assert done.exit_code == 3
    assert "2 without a caption: a, box-1-b" in done.stderr
    assert "1 without a counterpart: z.png" in done.stderr
    assert "left out: 1 x .txt" in done.stderr
    (tmp_path / "c.csv").write_text("scan,caption\na.png,A barn\n")
    done = run(folder, "--captions", tmp_path / "c.csv", "--column", "file=scan", "-o", f"file://{tmp_path}/n.parquet")
    assert done.exit_code == 0
    assert (tmp_path / "n.parquet").exists()
