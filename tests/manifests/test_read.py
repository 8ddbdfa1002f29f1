from urllib.parse import quote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import ManifestError
from manifests.read import (
    BATCH_ROWS,
    RecolorRequest,
    extra_columns,
    read_recolor_requests,
    read_rows,
    read_schema,
    validated,
)
from manifests.schema import Defaults
from tests.conftest import write_manifest


def rows(count, first=0):
    return [{"id": f"r{first + k}", "image": f"{k}.png", "caption": "a barn", "shelf": k} for k in range(count)]


def test_a_folder_of_parts_is_read_in_name_order(tmp_path):
    (tmp_path / "m").mkdir()
    write_manifest(tmp_path / "m" / "b.parquet", rows(3, first=3))
    write_manifest(tmp_path / "m" / "a.parquet", rows(3))
    (tmp_path / "m" / "README.txt").write_text("not a part")
    assert [row.id for row in read_rows(str(tmp_path / "m"))] == [f"r{k}" for k in range(6)]


def test_relative_images_start_at_the_manifest(tmp_path):
    path = write_manifest(tmp_path / "m.parquet", [{"id": "a", "image": "pictures/./a.png", "caption": "x"}])
    (row,) = read_rows(path)
    assert row.image == f"file://{tmp_path}/pictures/a.png"


@pytest.mark.parametrize("uri", ["s3://bucket/a.png", "/srv/a.png", "https://example.org/a.png"])
def test_absolute_images_stay(tmp_path, uri):
    (row,) = read_rows(write_manifest(tmp_path / "m.parquet", [{"id": "a", "image": uri, "caption": "x"}]))
    assert row.image == uri


def test_row_groups_are_streamed(tmp_path):
    path = tmp_path / "m.parquet"
    count = 20 * BATCH_ROWS
    table = pa.table({"id": [f"r{k}" for k in range(count)], "image": ["a.png"] * count, "caption": ["x"] * count})
    pq.write_table(table, path, row_group_size=BATCH_ROWS)
    before = pa.total_allocated_bytes()
    stream = read_rows(str(path))
    for _ in range(5 * BATCH_ROWS):
        next(stream)
    held = pa.total_allocated_bytes() - before
    stream.close()
    assert held < table.nbytes / 2


def test_any_fsspec_store_will_do():
    with fsspec.open("memory://manifests/m.parquet", "wb") as file:
        pq.write_table(pa.Table.from_pylist(rows(2)), file)
    assert next(read_rows("memory://manifests/m.parquet")).image.startswith("memory://")
    assert validated("memory://manifests/m.parquet") == 2


def test_other_columns_are_carried(tmp_path):
    assert [row.extra for row in read_rows(write_manifest(tmp_path / "m.parquet", rows(2)))] == [
        {"shelf": 0},
        {"shelf": 1},
    ]


def test_seeds_come_from_the_id_unless_given(tmp_path):
    first = list(read_rows(write_manifest(tmp_path / "m.parquet", rows(2))))
    again = list(read_rows(write_manifest(tmp_path / "n.parquet", rows(2)[::-1])))
    assert {row.id: row.seed for row in first} == {row.id: row.seed for row in again}
    assert first[0].seed != first[1].seed
    series = [{**row, "group_id": "album 3"} for row in rows(2)]
    one, other = read_rows(write_manifest(tmp_path / "p.parquet", series))
    assert one.seed == other.seed not in {row.seed for row in first}
    (given,) = read_rows(write_manifest(tmp_path / "o.parquet", [{**rows(1)[0], "seed": 7}]))
    assert given.seed == 7


def test_without_targets_the_caption_is_the_target(tmp_path):
    (row,) = read_rows(write_manifest(tmp_path / "m.parquet", rows(1)))
    assert row.target_prompts == ("a barn",)


def test_hints_make_the_last_target(tmp_path):
    row = {**rows(1)[0], "target_prompts": ["a green barn"], "color_hints": "red barn; blue sky"}
    (read,) = read_rows(write_manifest(tmp_path / "m.parquet", [row]))
    assert read.target_prompts == ("a green barn", "a red barn, blue sky")


def test_recolor_requests(tmp_path):
    path = write_manifest(tmp_path / "r.parquet", [{"id": "a", "target_prompts": ["a red barn", " "]}])
    assert list(read_recolor_requests(path)) == [RecolorRequest(id="a", prompts=("a red barn",))]
    with pytest.raises(ManifestError, match="needs an id and a target prompt"):
        list(read_recolor_requests(write_manifest(tmp_path / "m.parquet", rows(1))))


def test_the_names_of_folders_are_columns(tmp_path):
    """As Hive, Spark and DuckDB partition a data set."""
    for number, (fonds, year) in enumerate((("A 12/3", "1936"), ("B", "1940"))):
        folder = tmp_path / "m" / f"fonds={quote(fonds, safe='')}" / f"year={year}"
        folder.mkdir(parents=True)
        write_manifest(folder / "data.parquet", rows(2, first=2 * number))
    found = list(read_rows(str(tmp_path / "m")))
    assert [(row.extra["fonds"], row.extra["year"]) for row in found] == [("A 12/3", "1936")] * 2 + [("B", "1940")] * 2
    assert extra_columns(read_schema(str(tmp_path / "m"))).names == ["shelf", "fonds", "year"]
    write_manifest(tmp_path / "m" / "stray.parquet", rows(1, first=9))
    with pytest.raises(ManifestError, match="parts_differ"):
        validated(str(tmp_path / "m"))


def test_a_page_for_rows_that_name_none(tmp_path):
    table = [{"id": "a", "image": "a.tif", "caption": "x", "page": 2}, {"id": "b", "image": "b.tif", "caption": "x"}]
    path = write_manifest(tmp_path / "m.parquet", table)
    assert [row.page for row in read_rows(path)] == [2, None]
    assert [row.page for row in read_rows(path, defaults=Defaults(page=0))] == [2, 0]


def test_negatives_are_those_that_say_so_or_all_that_do_not_deny_it(tmp_path):
    kinds = {"a": True, "b": False, "c": None}
    path = write_manifest(
        tmp_path / "m.parquet",
        [{"id": key, "image": "a.tif", "caption": "x", "negative": value} for key, value in kinds.items()],
    )
    assert [row.negative for row in read_rows(path)] == [True, False, False]
    assert [row.negative for row in read_rows(path, defaults=Defaults(negative=True))] == [True, False, True]
