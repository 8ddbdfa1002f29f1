"""The driver's policies, with real Ray and workers that are quick or misbehave."""

import http.server
import itertools
import json
import os
import re
import signal
import sys
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from diffcolor.config import PRESETS
from manifests.errors import ManifestError
from pipelines.driver import cluster, run
from pipelines.driver.run import run_job
from pipelines.errors import JobError, OutputInUseError, ReplanError, StoreError
from pipelines.operations.status import request_stop, status
from pipelines.store import lease
from pipelines.store.lease import acquire, read_lease
from pipelines.store.store import Store
from tests.check_store import check_store, results
from tests.pipelines.jobs import done, drive, events, ids, manifest
from tests.pipelines.quick import quick_request
from tests.processes import ended, finish, until


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
    assert (found.state, found.pending) == ("too_many_failures", 60 - snapshot.done)
    assert found.errors[0].kind == "test"
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
    assert status(Store(out)).state == "failed"
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
    assert not read_lease(Store(out)).is_alive


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
    held = acquire(Store(out), "another", {})
    with pytest.raises(OutputInUseError, match="another"):
        run_job(quick_request(table, out))
    notices = []
    threading.Timer(1.0, held.release).start()
    assert run_job(quick_request(table, out, on_running="wait"), notice=notices.append).ok == 24
    assert notices[0].startswith("waiting: the output is in use by run another")
    check_store(ids(), out)


def test_a_run_that_lost_its_lease_leaves(local_ray, tmp_path, out, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.2)
    table = manifest(tmp_path, dict.fromkeys(range(24), "is slow"))

    def usurp() -> None:
        store = Store(out)
        while (held := read_lease(store)) is None or not held.heartbeat.get("plan"):
            time.sleep(0.1)
        store.create(f"_engine/lease/{held.epoch + 1:08d}.json", store.read(f"_engine/lease/{held.epoch:08d}.json"))

    threading.Thread(target=usurp, daemon=True).start()
    with pytest.raises(OutputInUseError):
        run_job(quick_request(table, out))


_LISTENING = """
import os
import ray
from pathlib import Path
from pipelines.driver.cluster import connected
from tests.processes import descendants

with connected(None):
    ray.get(ray.remote(lambda: 1).remote())
    links = [link for pid in descendants(os.getsid(0)) for link in Path(f"/proc/{pid}/fd").iterdir()]
    ours = {os.readlink(link) for link in links if link.exists() or link.is_symlink()}
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path("/proc/net", kind).read_text().splitlines()[1:]]
    print(*(line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in ours))
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_an_embedded_ray_opens_no_port_to_the_network(processes):
    opened = finish(processes.start([sys.executable, "-c", _LISTENING]), 0).splitlines()[-1].split()
    assert len(opened) > 4
    assert all(address.rpartition(":")[0].endswith("0100007F") for address in opened), opened


# Processes and signals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["SIGTERM", "Ctrl-C", "stop"])
def test_a_stopped_run_ends_within_the_grace_and_goes_on_where_it_was(tmp_path, out, way, processes):
    table, log = manifest(tmp_path, {}, 30), tmp_path / "log"
    environment = {"QUICK_LOG": str(log), "QUICK_SECONDS": "0.8"}
    driver = drive(processes, table, out, environment, grace_seconds=20.0)
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
    assert (found.state, found.failed) == ("stopped", 0)
    assert 0 < found.pending < 30
    finish(drive(processes, table, out, environment | {"QUICK_SECONDS": "0.05"}), 0)
    check_store(ids(30), out)
    begun = Counter(log.read_text().split())
    assert sum(begun.values()) <= 30 + 2 * 2, "a batch in each of two workers may be begun twice"


def test_a_second_signal_leaves_at_once(tmp_path, out, processes):
    log = tmp_path / "log"
    driver = drive(processes, manifest(tmp_path, {0: "hangs"}, 4), out, {"QUICK_LOG": str(log)}, grace_seconds=3600.0)
    until(lambda: "r000" in log.read_text())
    driver.terminate()
    until(lambda: events(out, "stopping"))
    assert driver.poll() is None
    driver.terminate()
    finish(driver, 130)


@pytest.mark.parametrize("number", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 20))])
def test_two_submits_at_once_never_count_a_row_twice(tmp_path, out, number, processes):
    table = manifest(tmp_path, {}, 20)
    both = [drive(processes, table, out, {"QUICK_SECONDS": "0.2"}) for _ in range(2)]
    assert sorted(ended(process)[0] for process in both) in ([0, 7], [0, 0])
    check_store(ids(20), out)


def test_a_frozen_driver_that_thaws_changes_nothing(tmp_path, out, processes):
    """Frozen past its lease, so that another run takes over and finishes; then it wakes up amid its work."""
    table = manifest(tmp_path, {}, 30)
    environment = {"QUICK_LEASE": "[0.5, 3.0]", "QUICK_SECONDS": "0.3"}
    frozen = drive(processes, table, out, environment)
    until(lambda: done(out) >= 4)
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        finish(drive(processes, table, out, environment | {"QUICK_SECONDS": "0.05"}, on_running="wait"), 0)
        before = check_store(ids(30), out)
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    finish(frozen, 7)
    assert check_store(ids(30), out) == before


# Nights -------------------------------------------------------------------------------------------------------------


def test_a_night_with_nothing_to_do_asks_for_no_worker(local_ray, tmp_path, out, monkeypatch):
    """And one row more is done, with the old ones left as they are."""
    for module in ("pipelines.driver.idle", "pipelines.ledger.job_file"):
        monkeypatch.setattr(f"{module}.software", lambda: "diffcolor-batch 1.0")
    table = manifest(tmp_path, {3: "fails"}, 12)
    first = run_job(quick_request(table, out))
    assert (first.ok, first.failed) == (11, 1)
    before = {path: path.stat().st_mtime_ns for path in Path(out, "results").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "start_workers", None)
        patch.setattr(cluster, "connected", None)
        again = run_job(quick_request(table, out))
        assert (again.state, again.ok, again.failed) == ("finished", 11, 1)
        assert (status(Store(out)).state, status(Store(out)).ok) == ("finished", 11)
        assert len(events(out, "run_ended")) == 1
        with pytest.raises(TypeError):
            run_job(quick_request(table, out, retry_failed=True))
    grown = run_job(quick_request(manifest(tmp_path, {3: "fails"}, 13), out, replan=False))
    assert (grown.ok, grown.failed, grown.imported) == (12, 1, 12)
    assert [row["id"] for row in results(out)] == ids(13)
    assert before[Path(out, "results", "000000.parquet")] == Path(out, "results", "000000.parquet").stat().st_mtime_ns


def test_other_settings_on_a_finished_output_ask_first(local_ray, tmp_path, out, capsys):
    table = manifest(tmp_path, {}, 12)
    run_job(quick_request(table, out))
    request, said = quick_request(table, out, replan=False), []
    other = replace(request, spec=replace(request.spec, config=PRESETS["balanced"]))
    with pytest.raises(ReplanError, match="results of 12 rows"):
        run_job(other)
    check_store(ids(12), out)
    run_job(replace(other, dry_run=True), notice=said.append)
    assert said == ["12 rows have a result that would be made anew; that takes --replan"]
    assert run_job(replace(other, replan=True)).ok == 12
    check_store(ids(12), out)


class _Told(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_how_a_run_ended_is_told(local_ray, tmp_path, out):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Told)
    server.told = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, table = f"http://127.0.0.1:{server.server_address[1]}/", manifest(tmp_path, {3: "fails"}, 6)
    run_job(quick_request(table, out, on_end=url))
    with pytest.raises(ManifestError):
        run_job(quick_request(str(tmp_path / "no.parquet"), out, on_end=url))
    server.shutdown()
    server.server_close()
    assert [(one["state"], one.get("failed")) for one in server.told] == [("finished", 1), ("failed", None)]
    assert server.told[0]["output"] == out
    assert "no such file" in server.told[1]["error"]
    said: list[str] = []
    place = tmp_path / "told.json"
    run_job(quick_request(table, out, on_end=f"tee {place}"), notice=said.append)
    assert json.loads(place.read_text())["ok"] == 5
    for command, reason in (("false", "exit code 1"), ("no-such-program", "FileNotFoundError"), (url, "URLError")):
        run_job(quick_request(table, out, on_end=command), notice=said.append)
        assert reason in said[-1]


def test_a_budget_stops_a_run_that_can_be_resumed(local_ray, tmp_path, out):
    table = manifest(tmp_path, {}, 24)
    stopped = run_job(quick_request(table, out, k=1, budget_hours=0.2 / 3600))
    assert stopped.state == "stopped"
    assert 4 <= stopped.ok < 24
    assert "budget of" in events(out, "stopping")[-1]["reason"]
    assert run_job(quick_request(table, out)).ok == 24
    check_store(ids(), out)


def test_ray_exports_what_a_run_does(local_ray, tmp_path, out):
    import ray

    run_job(quick_request(manifest(tmp_path, {3: "fails"}, 6), out))
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def exported() -> str:
        return urllib.request.urlopen(address, timeout=10).read().decode()

    until(lambda: "ray_diffcolor_rows" in exported(), 60)
    text = exported()
    assert re.search(r'ray_diffcolor_rows\w*\{[^}]*status="failed"[^}]*\} 1', text)
    for name in re.findall(
        r"ray_(diffcolor_\w+?)(?:_total)?[{ \[]", (Path(__file__).parents[3] / "deploy" / "grafana.json").read_text()
    ):
        assert f"ray_{name}" in text or name in ("diffcolor_store_retries", "diffcolor_rows_lost"), name


_GROWING = """
import os, sys
from ray.cluster_utils import Cluster
from pipelines.driver.run import run_job
from tests.pipelines.quick import quick_request

table, out = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})

def watch(snapshot):
    if snapshot.ok and len(cluster.list_all_nodes()) == 1:
        cluster.add_node(num_cpus=1)

request = quick_request(table, out, address=cluster.address, workers=None, cpus_per_worker=1)
print(run_job(request, watch).ok, flush=True)
os._exit(0)  # what the cluster has started ends with this process's group
"""


@pytest.mark.slow
def test_a_machine_that_joins_the_cluster_gets_a_worker(processes, tmp_path, out):
    table = manifest(tmp_path, {}, 40)
    said = processes.start([sys.executable, "-c", _GROWING, table, out], {"QUICK_SECONDS": "1.0"})
    assert finish(said, 0).splitlines()[-1] == "40"
    assert events(out, "workers_added")[0]["count"] == 1
    assert len({event["pid"] for event in events(out, "worker_up")}) == 2
    check_store(ids(40), out)
