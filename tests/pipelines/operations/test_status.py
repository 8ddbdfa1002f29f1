"""What an output tells from the outside: status, list, logs, stop, gc, attach."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from diffcolor.identity import ModelIdentity
from pipelines.ledger.job_file import JobFile
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import FAILED, OK, SKIPPED, ResultRow
from pipelines.ledger.task import Place, blank_result
from pipelines.operations.gc import collect
from pipelines.operations.status import note_submitted, outputs, request_stop, starting, status
from pipelines.store.events import EventLog, read_events
from pipelines.store.lease import acquire, stop_key
from pipelines.store.store import Store
from tests.pipelines.ledger.test_ledger import begin, rows, work, worker

assert worker  # a fixture
runner = CliRunner()


@pytest.fixture
def half_done(tmp_path, worker):
    """25 rows: 10 ok in a closed shard; 2 failed, 1 skipped, 2 ok in an open one; nobody at work."""
    plan = begin(tmp_path, rows(25))
    work(plan, worker, 10)
    for most, ended in ((2, FAILED), (1, SKIPPED), (2, OK)):
        work(begin(tmp_path, rows(25)), worker, most, ended)
    store = Store(str(tmp_path / "out"))
    spec = replace(plan.request.spec, run="x")
    models = ModelIdentity(base_model="quick", base_model_digest="0", judge="quick", judge_digest="0")
    Ledger(store).write_job(JobFile.of(replace(plan.request, spec=spec), 25, models, plan.id))
    return store


def invoke(*arguments):
    return runner.invoke(cli.app, [str(argument) for argument in arguments])


def test_counts_come_from_markers_and_records_when_nobody_is_at_work(half_done):
    found = status(half_done)
    assert (found.state, found.rows, found.pending) == ("interrupted", 25, 10)
    assert (found.ok, found.failed, found.skipped) == (12, 2, 1)
    assert json.loads(invoke("status", half_done.root, "--json").stdout) == json.loads(json.dumps(found.to_json()))


def test_the_beat_is_what_is_shown_while_a_run_is_at_work(half_done):
    plan = Ledger(half_done).read_job().plan
    told = {"plan": plan, "ok": 14, "failed": 2, "skipped": 1, "rate": 0.5, "eta": 16.0, "gpu_seconds": 99.5}
    told |= {"workers": [{"stage": "embedding", "step": 3, "steps": 9, "ids": ["a"]}]}
    told |= {"errors": [{"id": "r10", "kind": "oom", "message": "out of memory"}]}
    lease = acquire(half_done, "x", told)
    found = status(half_done)
    assert (found.state, found.ok, found.rate, found.gpu_seconds) == ("running", 14, 0.5, 99.5)
    assert found.heartbeat_age < 5
    shown = invoke("status", half_done.root).stdout
    assert "running: 25 rows, 14 ok" in shown
    assert "about 16 s left" in shown
    assert "embedding 3/9: a" in shown
    assert "failed: r10: oom: out of memory" in shown
    lease.release(state="stopped")
    assert status(half_done).state == "stopped"
    assert status(half_done).ok == 12, "the store's own count again"


def test_list_finds_the_outputs_at_a_place(half_done, tmp_path):
    (tmp_path / "something else").mkdir()
    assert list(outputs(Store(str(tmp_path)))) == [half_done.uri]
    assert list(outputs(half_done)) == [half_done.uri]
    (document,) = json.loads(invoke("list", tmp_path, "--json").stdout)
    assert document["pending"] == 10
    assert "interrupted: 25 rows" in invoke("list", tmp_path).stdout
    assert "no outputs" in invoke("list", tmp_path / "something else").stderr


def test_logs_are_json_lines_in_order_and_what_could_not_be_written_is_not_lost(half_done, monkeypatch):
    log, other = EventLog(half_done, "x", "driver"), EventLog(half_done, "x", "worker")
    log("first", n=1)
    log.flush()
    time.sleep(0.01)
    other("second")
    other.close()
    from pipelines.errors import StoreError

    with monkeypatch.context() as patch:
        patch.setattr(half_done, "write", lambda *_: (_ for _ in ()).throw(StoreError("away")))
        log("third")
        log.flush()
    log.close()
    seen = set()
    assert [event["event"] for event in read_events(half_done, "x", seen)] == ["first", "second", "third"]
    assert list(read_events(half_done, "x", seen)) == []
    lines = [json.loads(line) for line in invoke("logs", half_done.root, "--json").stdout.splitlines()]
    assert lines[0] == {"time": lines[0]["time"], "writer": "driver", "event": "first", "n": 1}
    assert "driver first n=1" in invoke("logs", half_done.root, "--follow").stdout


def test_stop_asks_the_run_that_holds_the_output_and_says_when_there_is_none(half_done):
    assert request_stop(half_done) is None
    assert "no run holds" in invoke("stop", half_done.root).stderr
    lease = acquire(half_done, "busy", {"plan": "another"})
    assert invoke("stop", half_done.root, "--wait", 0).exit_code == 7
    assert half_done.exists(stop_key("busy"))
    lease.release(state="stopped")
    assert invoke("stop", half_done.root).exit_code == 0


def test_gc_removes_what_nothing_names_and_only_that(half_done, worker):
    plan = Ledger(half_done).read_job().plan
    named = ResultRow(id="r24", status=OK, row_digest="9" * 64, primary_image="images/r24/a.png")
    worker.ledger.commit(Place(plan=plan, shard=2, generation=0, row=24), named, "a")
    late = replace(named, id="r0", primary_image=None)
    worker.ledger.commit(Place(plan=plan, shard=0, generation=0, row=0), late, "late commit of a closed shard")
    half_done.write("images/r24/a.png", b"named")
    half_done.write("images/r24/b.png", b"of a lost race")
    half_done.write("_engine/checkpoints/ab/abc/0.checkpoint", b"stray")
    Path(half_done.root, "images", ".x.tmp").write_bytes(b"of a killed writer")
    before = status(half_done)
    assert collect(half_done) == 1, "younger than a day: the late record alone may go"
    assert collect(half_done, grace_hours=0) == 3
    assert half_done.list("images") == ["images/r24/a.png"]
    assert half_done.temporary_files("") == []
    assert replace(status(half_done), heartbeat_age=0) == replace(before, heartbeat_age=0)
    assert "0 objects removed" in invoke("gc", half_done.root, "--grace", 0).stdout


def test_attach_follows_the_run_that_holds_the_output_and_ends_as_it_does(half_done, tmp_path, monkeypatch):
    import threading

    plan = Ledger(half_done).read_job().plan
    told = {"plan": plan, "ok": 20, "failed": 2, "skipped": 1, "eta": 3.0}
    lease = acquire(half_done, "x", told)
    threading.Timer(1.0, lambda: lease.release(state="stopped")).start()
    said = invoke("submit", tmp_path / "m.parquet", "--output", half_done.root, "--on-running", "attach")
    assert said.exit_code == 4
    assert "attached to run x" in said.stderr
    assert "running: 25 rows, 20 ok" in said.stderr
    assert "stopped: 25 rows" in said.stderr


@pytest.mark.parametrize("value", ["many", "-1", "5 %%"])
def test_a_malformed_limit_of_failures_is_usage(tmp_path, value):
    assert invoke("submit", tmp_path / "m.parquet", "--max-failures", value).exit_code == 2


def test_a_run_without_a_plan_is_starting(tmp_path):
    store = Store(str(tmp_path / "out"))
    assert starting(store) is None
    note_submitted(store, "20260101-000000-abcdef", "raysubmit_x")
    said = runner.invoke(cli.app, ["status", store.uri])
    assert said.exit_code == 0
    assert said.stdout.startswith("starting: run 20260101-000000-abcdef, handed to a cluster ")
    lease = acquire(store, "another", {})
    said = runner.invoke(cli.app, ["status", store.uri])
    assert said.stdout.startswith("starting: run another, last seen on ")
    assert json.loads(runner.invoke(cli.app, ["status", store.uri, "--json"]).stdout)["state"] == "starting"
    lease.release()


def test_a_run_with_a_plan_has_started(half_done):
    note_submitted(half_done, "x", "raysubmit_x")
    assert starting(half_done) is None
    assert runner.invoke(cli.app, ["status", half_done.uri]).stdout.startswith("interrupted: 25 rows")


def test_the_hours_of_a_job_and_of_its_groups(tmp_path, worker):
    table = [{**one, "group_id": "barns" if number < 6 else None} for number, one in enumerate(rows(10))]
    plan = begin(tmp_path, table)
    for number, task in enumerate(plan.tasks()):
        if task:
            kind = FAILED if number in (2, 8) else OK
            row = replace(blank_result(task, worker.spec, worker.identity), status=kind, seconds=360.0)
            plan.finish(task.place, worker.ledger.commit(task.place, row, "a"))
    plan.complete()
    out = str(tmp_path / "out")
    said = runner.invoke(cli.app, ["status", out, "--hours", "--price", "2", "--by-group"]).stdout
    assert "all rows: 10 rows, 1.00 worker hours, 0.20 of them for rows that failed, cost 2.00" in said
    assert "barns: 6 rows, 0.60 worker hours, 0.10" in said
    assert "without a group: 4 rows, 0.40 worker hours" in said
    found = json.loads(runner.invoke(cli.app, ["status", out, "--hours", "--by-group", "--json"]).stdout)
    assert found["hours"]["groups"]["barns"] == {"rows": 6, "worker_hours": 0.6, "failed_hours": 0.1}
    assert "hours" not in json.loads(runner.invoke(cli.app, ["status", out, "--json"]).stdout)
