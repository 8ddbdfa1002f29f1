"""The driver's policies, with real Ray and workers that are quick or misbehave."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.driver import cluster, run
from pipelines.driver.run import run_job
from pipelines.errors import JobError, OutputInUseError, StoreError
from pipelines.ledger.ledger import Ledger
from pipelines.operations.status import request_stop, status
from pipelines.store import lease
from pipelines.store.events import read_events
from pipelines.store.lease import look, take
from pipelines.store.store import Store
from tests.check_store import check_store, results
from tests.conftest import write_manifest
from tests.pipelines.quick import quick_request

ROOT = Path(__file__).parents[3]


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


def manifest(folder: Path, captions: dict[int, str], count: int = 24) -> str:
    """Rows r000 ...; `captions` says which misbehave."""
    rows = [
        {"id": f"r{k:03}", "image": f"{k}.png", "caption": f"a barn that {captions.get(k, 'stands')}"}
        for k in range(count)
    ]
    return write_manifest(folder / "m.parquet", rows)


def ids(count: int = 24) -> list[str]:
    return [f"r{k:03}" for k in range(count)]


def events(out: str, name: str) -> list[dict]:
    store = Store(out)
    found = read_events(store, Ledger(store).read_job()["run"], set())
    return [event for event in found if event["event"] == name]


def test_every_row_once_in_order_and_the_events_tell(local_ray, tmp_path, out):
    seen = []
    assert run_job(quick_request(manifest(tmp_path, {}), out), seen.append).state == "finished"
    assert [event["state"] for event in events(out, "run_ended")] == ["finished"]
    assert len(events(out, "worker_up")) >= 1
    check_store(ids(), out)
    assert seen[-1].done == 24


def test_more_workers_than_places_is_no_deadlock(local_ray, tmp_path, out):
    assert run_job(quick_request(manifest(tmp_path, {}), out, workers=4)).ok == 24


def test_a_poisoned_row_among_its_batch_fails_alone(local_ray, tmp_path, out):
    snapshot = run_job(quick_request(manifest(tmp_path, {5: "dies"}), out, k=8))
    assert (snapshot.ok, snapshot.failed) == (23, 1)
    assert len(events(out, "worker_lost")) == 2
    assert check_store(ids(), out, ok=23)[5]["error_kind"] == "process_died"


@pytest.mark.slow
def test_a_worker_that_dies_and_loads_for_long_is_waited_for(local_ray, tmp_path, out):
    request = quick_request(manifest(tmp_path, {2: "dies"}, 6), out, k=1, workers=1)
    snapshot = run_job(replace(request, worker="tests.pipelines.quick:SlowlyLoadedWorker"))
    assert (snapshot.ok, snapshot.failed) == (5, 1)


def test_a_worker_without_a_step_is_killed_and_its_row_quarantined(local_ray, tmp_path, out):
    table = manifest(tmp_path, {3: "hangs"}, 6)
    snapshot = run_job(quick_request(table, out, k=1, stall_seconds=3.0))
    assert (snapshot.ok, snapshot.failed) == (5, 1)
    assert len(events(out, "worker_stalled")) == 2
    assert check_store(ids(6), out, ok=5)[3]["error_kind"] == "process_died"


def test_too_many_failures_stop_the_run_and_the_rest_stays_pending(local_ray, tmp_path, out):
    table = manifest(tmp_path, dict.fromkeys(range(6), "fails"), 60)
    snapshot = run_job(quick_request(table, out, k=1, max_failures="3"))
    assert snapshot.state == "too_many_failures"
    assert 4 <= snapshot.failed <= 6
    assert snapshot.done < 60
    found = status(Store(out))
    assert (found["state"], found["pending"]) == ("too_many_failures", 60 - snapshot.done)
    assert found["errors"][0]["kind"] == "test"
    assert run_job(quick_request(table, out)).done == 60
    check_store(ids(60), out, ok=54)


def test_a_share_of_failures_counts_all_rows(local_ray, tmp_path, out):
    table = manifest(tmp_path, dict.fromkeys(range(6), "fails"))
    assert run_job(quick_request(table, out, max_failures="50%")).state == "finished"


def test_a_full_disk_stops_the_run_and_nothing_is_lost(local_ray, tmp_path, out):
    table = manifest(tmp_path, {})
    (tmp_path / "full").write_text("")
    with pytest.raises(StoreError, match="no space is left"):
        run_job(quick_request(table, out))
    assert status(Store(out))["state"] == "failed"
    (tmp_path / "full").unlink()
    assert run_job(quick_request(table, out)).ok == 24
    check_store(ids(), out)


def test_a_draining_node_gives_its_rows_back_and_they_do_not_count_as_deaths(local_ray, tmp_path, out, monkeypatch):
    node = local_ray.nodes()[0]["NodeID"]
    looks = itertools.count()
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(cluster, "draining_nodes", lambda: {node} if next(looks) == 3 else set())
    table = manifest(tmp_path, dict.fromkeys(range(4), "is slow"))
    assert run_job(quick_request(table, out, k=1)).ok == 24
    assert events(out, "node_drains")
    check_store(ids(), out)


def test_workers_that_never_come_up_end_the_run_with_the_reason(local_ray, tmp_path, out):
    with pytest.raises(JobError, match="no such worker here"):
        run_job(quick_request(manifest(tmp_path, {}), out, worker="tests.pipelines.quick:BrokenWorker"))
    assert not (Path(out) / "job.json").exists()
    assert not look(Store(out)).is_alive


def test_a_dry_run_counts_and_touches_nothing(local_ray, tmp_path, out):
    table = manifest(tmp_path, {})
    snapshot = run_job(quick_request(table, out, dry_run=True))
    assert (snapshot.state, snapshot.rows, snapshot.done) == ("planned", 24, 0)
    assert not (Path(out) / "job.json").exists()
    run_job(quick_request(table, out))
    before = results(out)
    assert run_job(quick_request(manifest(tmp_path, {}, 30), out, dry_run=True)).rows == 30
    assert results(out) == before


def test_an_output_in_use_is_refused_or_waited_for(local_ray, tmp_path, out):
    table = manifest(tmp_path, {})
    held = take(Store(out), "another", dict)
    with pytest.raises(OutputInUseError, match="another"):
        run_job(quick_request(table, out))
    notices = []
    threading.Timer(1.0, held.release).start()
    assert run_job(quick_request(table, out, on_running="wait"), notice=notices.append).ok == 24
    assert notices[0].startswith("waiting: the output is in use by run another")
    check_store(ids(), out)


def test_a_run_that_lost_its_lease_leaves(local_ray, tmp_path, out, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    table = manifest(tmp_path, dict.fromkeys(range(24), "is slow"))

    def usurp() -> None:
        store = Store(out)
        while (held := look(store)) is None or "plan" not in held.beat:
            time.sleep(0.1)
        store.create(f"_engine/lease/{held.epoch + 1:08d}.json", store.read(f"_engine/lease/{held.epoch:08d}.json"))

    threading.Thread(target=usurp, daemon=True).start()
    with pytest.raises(OutputInUseError):
        run_job(quick_request(table, out))


# Processes and signals ----------------------------------------------------------------------------------------------


def drive(table: str, out: str, environment: dict[str, str] | None = None, **options) -> subprocess.Popen:
    """A driver in a process group of its own."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
    command = [sys.executable, "-m", "tests.pipelines.quick", table, out, json.dumps(options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=variables, cwd=ROOT, start_new_session=True, **pipes)


def until(condition, seconds: float = 60.0):
    """The condition's value once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except FileNotFoundError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def done(out: str) -> int:
    store = Store(out)
    ledger = Ledger(store)
    return sum(1 for _ in ledger.current())


def finish(process: subprocess.Popen, code: int, seconds: float = 120.0) -> str:
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == code, said[-3000:]
    return said


@pytest.mark.parametrize("way", ["SIGTERM", "Ctrl-C", "stop"])
def test_a_stopped_run_ends_within_the_grace_and_goes_on_where_it_was(tmp_path, out, way):
    table, log = manifest(tmp_path, {}, 30), tmp_path / "log"
    environment = {"QUICK_LOG": str(log), "QUICK_SECONDS": "0.8"}
    driver = drive(table, out, environment, grace_seconds=20.0)
    until(lambda: done(out) >= 4)
    asked = time.monotonic()
    if way == "SIGTERM":
        driver.terminate()
    elif way == "Ctrl-C":
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver and all that it started
    else:
        assert request_stop(Store(out))
    finish(driver, 4)
    assert time.monotonic() - asked < 20
    found = status(Store(out))
    assert (found["state"], found["failed"]) == ("stopped", 0)
    assert 0 < found["pending"] < 30
    finish(drive(table, out, environment | {"QUICK_SECONDS": "0.05"}), 0)
    check_store(ids(30), out)
    begun = Counter(log.read_text().split())
    assert sum(begun.values()) <= 30 + 2 * 2, "a batch in each of two workers may be begun twice"


def test_a_second_signal_leaves_at_once(tmp_path, out):
    driver = drive(manifest(tmp_path, {0: "hangs"}, 4), out, grace_seconds=60.0)
    until(lambda: Ledger(Store(out)).read_job() and status(Store(out))["workers"])
    time.sleep(3)
    driver.terminate()
    time.sleep(2)
    assert driver.poll() is None
    driver.terminate()
    finish(driver, 130, 30)


@pytest.mark.parametrize("number", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 20))])
def test_two_submits_at_once_never_count_a_row_twice(tmp_path, out, number):
    table = manifest(tmp_path, {}, 20)
    both = [drive(table, out, {"QUICK_SECONDS": "0.2"}) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
    assert sorted(process.returncode for process in both) in ([0, 7], [0, 0])
    check_store(ids(20), out)


def test_a_frozen_driver_that_thaws_changes_nothing(tmp_path, out):
    """Frozen past its lease, so that another run takes over and finishes; then it wakes up amid its work."""
    table = manifest(tmp_path, {}, 30)
    environment = {"QUICK_LEASE": "[0.5, 3.0]", "QUICK_SECONDS": "0.3"}
    frozen = drive(table, out, environment)
    until(lambda: done(out) >= 4)
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        finish(drive(table, out, environment | {"QUICK_SECONDS": "0.05"}, on_running="wait"), 0)
        before = check_store(ids(30), out)
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    finish(frozen, 7)
    assert check_store(ids(30), out) == before
