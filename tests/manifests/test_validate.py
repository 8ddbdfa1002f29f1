"""Every fault of a manifest is found, all in one report."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import ManifestError
from manifests.read import read_rows, validated
from manifests.schema import COLUMNS, Defaults
from manifests.validate import MAX_ID, RESERVED, Validator
from tests.conftest import write_manifest

GOOD = {"id": "a", "image": "a.png", "caption": "a red barn"}


def kinds(path, **options) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        validated(str(path), **options)
    return [problem.kind for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"id": "../evil"}, "bad_id"),
        ({"id": ".hidden"}, "bad_id"),
        ({"id": "a/b"}, "bad_id"),
        ({"id": ""}, "bad_id"),
        ({"id": None}, "bad_id"),
        ({"id": "x" * (MAX_ID + 1)}, "bad_id"),
        ({"id": "GOOD"}, "duplicate_id"),
        ({"caption": None}, "no_prompt"),
        ({"caption": "  "}, "no_prompt"),
        ({"image": None}, "no_image"),
        ({"image": "../../etc/passwd"}, "bad_image"),
        ({"seed": -1}, "bad_seed"),
        ({"image_sha256": "abc"}, "bad_sha256"),
        ({"color_hints": "barn"}, "bad_hint"),
        ({"target_prompts": ["a", "a"]}, "duplicate_prompt"),
        ({"image_bytes": b"x"}, "two_images"),
    ],
)
def test_each_fault_is_named_with_its_row(tmp_path, row, kind):
    path = write_manifest(tmp_path / "m.parquet", [{**GOOD, "id": "good"}, {**GOOD, "id": "b", **row}])
    with pytest.raises(ManifestError) as caught:
        validated(path)
    (problem,) = caught.value.problems
    assert (problem.kind, problem.row) == (kind, 1)
    assert "row 1" in str(caught.value)


def test_all_problems_come_in_one_report(tmp_path):
    rows = [GOOD, GOOD, {**GOOD, "id": "../x"}, {**GOOD, "id": "c", "caption": None}]
    assert kinds(write_manifest(tmp_path / "m.parquet", rows)) == ["duplicate_id", "bad_id", "no_prompt"]


def test_problems_survive_pickling(tmp_path):
    import pickle

    path = write_manifest(tmp_path / "m.parquet", [GOOD, GOOD])
    with pytest.raises(ManifestError) as caught:
        validated(path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ({"image": ["a"], "caption": ["b"]}, "missing_column"),
        ({"id": ["a"], "caption": ["b"]}, "missing_column"),
        ({"id": ["a"], "image": ["a"]}, "missing_column"),
        ({"id": [1], "image": ["a"], "caption": ["b"]}, "bad_type"),
        ({"id": ["a"], "image": ["a"], "caption": ["b"], "target_prompts": ["a|b"]}, "bad_type"),
        ({"id": ["a"], "image": ["a"], "caption": ["b"], "status": ["x"]}, "reserved_column"),
    ],
)
def test_faults_of_columns(tmp_path, table, kind):
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    assert kind in kinds(tmp_path / "m.parquet")


def test_no_result_column_can_be_taken_by_a_carried_one():
    from pipelines.ledger.results import SCHEMA as RESULTS

    assert set(RESULTS.names) - set(COLUMNS) <= RESERVED


def test_parts_that_carry_other_columns_are_refused_before_anything_runs(tmp_path):
    write_manifest(tmp_path / "a.parquet", [GOOD])
    write_manifest(tmp_path / "b.parquet", [{**GOOD, "id": "b", "shelf": 4}])
    assert kinds(tmp_path) == ["parts_differ"]


def test_parts_may_store_texts_in_any_way_and_other_types_are_named(tmp_path):
    def part(name: str, values: pa.Array) -> None:
        pq.write_table(pa.table({"id": [name], "image": ["a.png"], "caption": ["x"], "n": values}), tmp_path / name)

    part("a.parquet", pa.array(["x"], pa.string()))
    part("b.parquet", pa.array(["y"], pa.large_string()))
    part("c.parquet", pa.array(["z"]).dictionary_encode())
    assert validated(str(tmp_path)) == 3
    part("c.parquet", pa.array([0.5]))
    with pytest.raises(ManifestError, match=r"carries n \(double\), .* n \(string\)"):
        validated(str(tmp_path))


def test_files_that_are_no_manifest(tmp_path):
    (tmp_path / "m.parquet").write_text("id,image,caption\n")
    assert kinds(tmp_path / "m.parquet") == ["not_parquet"]
    assert kinds(tmp_path / "nothing.parquet") == ["not_found"]
    assert kinds("s4://nowhere/m.parquet") == ["unreadable"]
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in GOOD}), tmp_path / "empty.parquet")
    assert kinds(tmp_path / "empty.parquet") == ["empty"]


def test_mapped_columns(tmp_path):
    path = write_manifest(tmp_path / "m.parquet", [{"id": "a", "image": "a.png", "title": "a barn"}])
    (row,) = read_rows(path, {"caption": "title"})
    assert row.caption == "a barn"
    assert row.extra == {}
    assert "missing_column" in kinds(path, columns={"caption": "titel"})
    assert "unknown_column" in kinds(path, columns={"captoin": "title"})


def test_a_default_caption_is_used_and_said(tmp_path):
    path = write_manifest(tmp_path / "m.parquet", [{**GOOD, "caption": None}])
    (row,) = read_rows(path, defaults=Defaults(caption="a colorful photograph"))
    assert row.caption == "a colorful photograph"
    assert "default" in row.warnings[0]


@given(st.text())
def test_no_accepted_id_can_leave_its_folder(row_id):
    row = Validator("file:///m").check(0, {**GOOD, "id": row_id})
    if row is not None:
        assert "/" not in row_id
        assert "\\" not in row_id
        assert not row_id.startswith(".")
        assert row_id.isascii()
