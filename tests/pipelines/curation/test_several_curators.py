"""Decisions of several people: merged, with conflicts named; as many as must approve; and taken back."""

import csv
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app
from pipelines.curation.review import Decision, approvals_needed, approved, decisions, merged
from pipelines.job import JobSpec
from pipelines.ledger.ledger import Ledger
from pipelines.store.store import Store
from tests.conftest import TINY, write_manifest, write_picture


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base_folder, judge_folder, local_ray):
    from pipelines.curation.report.report import refresh_report
    from pipelines.driver.run import run_job
    from tests.pipelines.driver.test_run import request

    folder = tmp_path_factory.mktemp("curators")
    for number, name in enumerate("abc"):
        write_picture(folder / f"{name}.png", number)
    rows = [{"id": name, "image": f"{name}.png", "caption": "a barn"} for name in "abc"]
    spec = JobSpec(output=str(folder / "out"), base_model=str(base_folder), judge=str(judge_folder), config=TINY)
    run_job(request(write_manifest(folder / "m.parquet", rows), spec), at_end=refresh_report)
    return spec


@pytest.fixture
def out(finished, tmp_path):
    shutil.copytree(finished.output, tmp_path / "out")
    return str(tmp_path / "out")


def saved(path, out, reviewer, **decided) -> Path:
    """A CSV of one person's decisions, by id."""
    sums = {row.id: row.outputs[0].sha256 for row in Ledger(Store(out)).current()}
    lines = [
        asdict(Decision(id=row_id, output_sha256=sums[row_id], decision=what, reviewer=reviewer))
        for row_id, what in decided.items()
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return path


def review(out, *files, more=()):
    return CliRunner().invoke(app, ["review", out, *(x for file in files for x in ("--decisions", str(file))), *more])


def filed(out) -> list[str]:
    return sorted(path.name.partition("_")[0] for path in (Path(out) / "final").glob("*.png"))


def test_files_of_several_people_are_merged_and_what_they_disagree_on_is_named(out, tmp_path):
    ann = saved(tmp_path / "ann.csv", out, "Ann", a="approve", b="approve")
    bob = saved(tmp_path / "bob.csv", out, "Bob", b="reject", c="approve")
    done = review(out, ann, bob)
    assert done.exit_code == 3
    assert "conflict: b: Ann says approve" in done.stderr
    assert "Bob says reject" in done.stderr
    assert filed(out) == ["a", "c"]
    assert "b" not in decisions(Store(out))
    again = review(out, saved(tmp_path / "both.csv", out, "Ann and Bob", b="approve"))
    assert again.exit_code == 0
    assert filed(out) == ["a", "b", "c"]


def test_equal_decisions_are_no_conflict_and_a_pick_of_the_same_picture_is_an_approval():
    one = Decision(id="a", output_sha256="1", decision="approve", reviewer="Ann")
    two = replace(one, decision="pick", reviewer="Bob")
    assert merged([[one], [two], [one]]) == ([one, two], [])
    other = replace(two, output_sha256="2")
    agreed, (conflict,) = merged([[one], [other]])
    assert (agreed, conflict.id, conflict.decisions) == ([], "a", (one, other))


def test_a_picture_is_final_when_as_many_as_must_have_approved_it(out, tmp_path):
    ann = saved(tmp_path / "ann.csv", out, "Ann", a="approve", b="approve")
    done = review(out, ann, more=["--approvals", "2"])
    assert done.exit_code == 0, done.output
    assert "2 pictures wait for the approval of others" in done.stderr
    assert filed(out) == []
    assert review(out, ann).exit_code == 0
    assert filed(out) == [], "the same person twice is one"
    assert review(out, saved(tmp_path / "bob.csv", out, "Bob", a="approve", b="reject")).exit_code == 0
    assert filed(out) == ["a"]
    assert review(out, saved(tmp_path / "bob2.csv", out, "Bob", b="approve")).exit_code == 0
    assert filed(out) == ["a", "b"]
    assert [row.id for row, _, _ in approved(Store(out), Ledger(Store(out)))] == ["a", "b"]
    assert review(out, saved(tmp_path / "carl.csv", out, "Carl", a="reject")).exit_code == 0
    assert filed(out) == ["b"], "one no is a no"
    unsigned = review(out, saved(tmp_path / "x.csv", out, "", c="approve"))
    assert unsigned.exit_code == 2
    assert "--approvals" in unsigned.stderr
    assert review(out, tmp_path / "x.csv", more=["--approvals", "3"]).exit_code == 2
    assert (approvals_needed(Store(out)), filed(out)) == (2, ["b"]), "what is refused changes nothing"
    assert review(out, ann, more=["--approvals", "1"]).exit_code == 0
    assert approvals_needed(Store(out)) == 1


def test_what_was_applied_last_is_taken_back_step_by_step(out, tmp_path):
    review(out, saved(tmp_path / "1.csv", out, "Ann", a="approve", b="approve"))
    review(out, saved(tmp_path / "2.csv", out, "Ann", a="reject", c="approve"))
    assert filed(out) == ["b", "c"]
    done = review(out, more=["--undo"])
    assert done.exit_code == 0
    assert "2 decisions taken back" in done.stdout
    assert filed(out) == ["a", "b"]
    assert len(Store(out).list("review/undone")) == 1
    assert review(out, more=["--undo"]).exit_code == 0
    assert filed(out) == []
    nothing = review(out, more=["--undo"])
    assert (nothing.exit_code, "0 decisions taken back" in nothing.stdout) == (0, True)
    assert review(out).exit_code == 2
    assert review(out, tmp_path / "1.csv", more=["--undo"]).exit_code == 2
