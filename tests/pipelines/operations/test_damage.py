"""Every kind of file that the engine keeps, damaged in every way: no command shows a traceback, nothing is lost."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import app
from pipelines.ledger.ledger import Ledger
from pipelines.store.store import Store
from tests.pipelines.test_old_output import FIXTURE

FILES = {
    "job": "job.json",
    "plan": "_engine/plans/*/plan.json",
    "shard": "_engine/plans/*/shards/*.parquet",
    "marker": "_engine/plans/*/closed/*",
    "published": "results/*.parquet",
    "lease": "_engine/lease/*.json",
    "beat": "_engine/lease/*.beat",
    "events": "_engine/runs/*/events/*.jsonl",
}
WAYS = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(200)),
    "other JSON": lambda path: path.write_bytes(b"[1, {}]"),
    "foreign name beside it": lambda path: shutil.copy(path, path.with_name("copy of notes.txt")),
}
COMMANDS = ("status", "list", "logs", "report", "verify", "gc", "review", "export")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(folder)
    return folder


def run(command: str, output: Path, folder: Path):
    more: list[object] = {
        "list": [folder],
        "gc": [output, "--grace", "0"],
        "review": [output, "--decisions", folder / "d.csv"],
        "export": [output, folder / "exported", "--all"],
    }.get(command, [output])
    return CliRunner().invoke(app, [command, *map(str, more)])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", FILES)
def test_damage_is_named_and_loses_nothing(unpacked, tmp_path, kind, way):
    output = tmp_path / "finished"
    shutil.copytree(unpacked / "finished", output)
    rows = list(Ledger(Store(str(output))).current())
    (tmp_path / "d.csv").write_text("id,output_sha256,decision\n")
    for path in sorted(output.glob(FILES[kind])):
        WAYS[way](path)
    for command in COMMANDS:
        done = run(command, output, tmp_path)
        assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exception)
        assert "Traceback" not in done.output
        if done.exit_code == 5:
            assert "is damaged" in done.stderr, done.stderr
            assert "finished/" in done.stderr
    for row in rows:
        for key in row.files:
            assert (output / key).exists(), f"gc took {key}"
    if kind in ("shard", "marker", "lease", "beat", "events"):  # there is a copy, or it can be done without
        assert [row.id for row in Ledger(Store(str(output))).current()] == [row.id for row in rows]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "foreign name beside it"])
@pytest.mark.parametrize("kind", ["shard", "published"])
def test_a_file_of_the_engine_is_restored_from_its_copy(unpacked, tmp_path, kind, way):
    output = tmp_path / "finished"
    shutil.copytree(unpacked / "finished", output)
    before = {path: path.read_bytes() for path in output.glob(FILES[kind]) if path.name != "000000.0.parquet"}
    for path in before:
        WAYS[way](path)
    done = run("verify", output, tmp_path)
    assert done.exit_code == 3
    assert done.stdout.count("not what was written") + done.stdout.count("missing") == len(before)
    assert "verify --repair" in done.stdout
    done = CliRunner().invoke(app, ["verify", str(output), "--repair"])
    assert (done.exit_code, done.stdout.count("repaired: ")) == (0, len(before))
    assert {path: path.read_bytes() for path in before} == before
    assert run("verify", output, tmp_path).exit_code == 0


def test_a_shard_that_is_lost_with_its_copy_is_opened_again(unpacked, tmp_path):
    output = tmp_path / "finished"
    shutil.copytree(unpacked / "finished", output)
    lost = sorted(output.glob(FILES["shard"]))[1]  # the last generation of the first shard
    number, rows = lost.name.partition(".")[0], len(list(Ledger(Store(str(output))).current()))
    for path in (lost, lost.with_name(f"{number}.0.parquet"), *output.glob(f"results/*-{number}.parquet")):
        path.write_bytes(b"lost")
    done = CliRunner().invoke(app, ["verify", str(output)])
    assert done.exit_code == 3, done.output
    assert "lost with its copy" in done.stdout
    done = CliRunner().invoke(app, ["verify", str(output), "--repair"])
    assert done.exit_code == 0, done.output
    left = [row.id for row in Ledger(Store(str(output))).current()]
    assert 0 < len(left) < rows
    assert f"{rows - len(left)} pending" in run("status", output, tmp_path).stdout


def test_a_sample_reads_no_more_shards_than_it_has_rows(unpacked, tmp_path, monkeypatch):
    read: list[int] = []
    real = Ledger.merged_outcomes

    def noted(self, plan, shard, *more):
        read.append(shard)
        return real(self, plan, shard, *more)

    monkeypatch.setattr(Ledger, "merged_outcomes", noted)
    output = tmp_path / "finished"
    shutil.copytree(unpacked / "finished", output)
    done = CliRunner().invoke(app, ["verify", str(output), "--sample", "1"])
    assert done.stdout.startswith("1 rows")
    assert read == [0]


@pytest.mark.parametrize("column", ["primary_image", "artifact", "width", "preview", "source", "outputs"])
def test_results_that_lack_what_they_must_have_are_a_difference(unpacked, tmp_path, column):
    """A file that somebody has worked on, and that can be read."""
    output = tmp_path / "finished"
    shutil.copytree(unpacked / "finished", output)
    (tmp_path / "d.csv").write_text("id,output_sha256,decision\n")
    for path in [*output.glob(FILES["shard"]), *output.glob(FILES["published"])]:
        table = pq.read_table(path)
        empty = pa.nulls(len(table), table.schema.field(column).type)
        pq.write_table(table.set_column(table.schema.get_field_index(column), table.schema.field(column), empty), path)
    for command in COMMANDS:
        done = run(command, output, tmp_path)
        assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exception)
        if command == "verify" and column in ("primary_image", "artifact", "width"):
            assert done.exit_code == 3
            assert "names no picture" in done.output
