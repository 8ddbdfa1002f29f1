"""Outputs on S3, over HTTP: a real server, a real server behind a proxy that fails, one that ignores conditions."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from manifests.build import build
from manifests.errors import ManifestError
from manifests.read import validated
from manifests.schema import Defaults
from pipelines.curation.verify import verify
from pipelines.driver.run import run_job
from pipelines.errors import StoreError
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import OK, ResultRow
from pipelines.ledger.task import Place
from pipelines.operations.status import outputs, status
from pipelines.store.fetch import fetch_uri
from pipelines.store.lease import acquire
from pipelines.store.probe import probe_preconditions
from pipelines.store.retry import Patience
from pipelines.store.store import Store
from tests.check_store import check_store
from tests.conftest import write_manifest, write_picture
from tests.pipelines.jobs import done, drive, ids, manifest, request, rows, submitted
from tests.processes import finish, kill_everything, until
from tests.servers import SECRET, FaultProxy, Faults, Rclone, SeaweedFS, connect


@pytest.fixture
def s3(seaweed, s3_environment):
    """The environment of the server; a bucket is there."""
    seaweed.bucket("archive")
    s3_environment(seaweed.environment)
    return seaweed


@pytest.fixture
def ray_with_credentials(s3):
    """An embedded Ray of its own: its workers inherit this process's environment."""
    import ray

    ray.shutdown()
    environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[3])}}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


def test_from_bucket_to_bucket_and_no_credential_is_stored(ray_with_credentials, pictures, spec):
    write_manifest(pictures / "m.parquet", rows(2))
    fs, _ = fsspec.core.url_to_fs("s3://archive/")
    for path in pictures.glob("*.p*"):
        fs.put_file(str(path), f"archive/in/{path.name}")
    spec = replace(spec, output="s3://archive/jobs/out")
    snapshot = run_job(request("s3://archive/in/m.parquet", spec))
    assert (snapshot.ok, snapshot.failed) == (2, 0)
    found = verify("s3://archive/jobs/out")
    assert (found.pictures, found.against_input, found.differences) == (4, 4, [])
    before = fs.find("archive/jobs/out/artifacts", detail=True)
    assert run_job(request("s3://archive/in/m.parquet", spec)).ok == 2
    after = fs.find("archive/jobs/out/artifacts", detail=True)
    assert {key: facts["ETag"] for key, facts in after.items()} == {key: facts["ETag"] for key, facts in before.items()}
    stored = fs.find("archive/jobs/out")
    assert len(stored) > 4
    assert not any(SECRET.encode() in fs.cat_file(path) for path in stored)
    assert list(outputs(Store("s3://archive/jobs"))) == ["s3://archive/jobs/out"]
    check_store(["r0", "r1"], "s3://archive/jobs/out")


def test_sixteen_concurrent_commits_of_one_row_have_one_winner(s3):
    """Each writer has a connection of its own, as processes have."""
    ledgers = []
    for _ in range(16):
        store = Store("s3://archive/commits")
        store.fs = connect(s3.endpoint)
        ledgers.append(Ledger(store))

    def round_winner_and_what_all_were_told(number: int) -> tuple[str, set[str]]:
        place, ready = Place(plan="p", shard=0, generation=0, row=number), threading.Barrier(16)

        def commit(writer: int) -> str:
            row = ResultRow(id=f"writer-{writer}", status=OK, row_digest="0")
            ready.wait()
            return ledgers[writer].commit(place, row, f"attempt {writer}").id

        with ThreadPoolExecutor(16) as threads:
            told = set(threads.map(commit, range(16)))
        return ledgers[0].find(place).id, told

    # Side by side, because this server lets losers wait for seconds.
    with ThreadPoolExecutor(10) as rounds:
        for winner, told in rounds.map(round_winner_and_what_all_were_told, range(10)):
            assert told == {winner}


def test_a_lease_is_held_by_one_and_its_age_is_the_servers(s3):
    store = Store("s3://archive/lease")

    def attempt(number: int):
        try:
            return acquire(Store("s3://archive/lease"), f"run {number}", {})
        except Exception as error:
            return error

    with ThreadPoolExecutor(4) as threads:
        got = [one for one in threads.map(attempt, range(4)) if not isinstance(one, Exception)]
    assert len(got) == 1
    got[0].release()
    assert probe_preconditions("s3://archive/lease")
    assert store.list("_engine/probe") == []


FAULTY = ("503", "500", "reset", "lost_reply", "truncate", "truncate_request", "delay")


def test_a_job_with_known_colours_and_a_reference_that_is_killed_goes_on(processes, s3, tmp_path, spec):
    fs, place = connect(s3.endpoint), "s3://archive/hinted"
    more = {"color_points": [{"x": 20, "y": 30, "color": "olive drab"}], "reference": "colour.png"}
    for number in range(4):
        write_picture(tmp_path / f"p{number}.png", number)
    Image.open(tmp_path / "p0.png").convert("RGB").save(tmp_path / "colour.png")
    write_manifest(tmp_path / "m.parquet", rows(4, **more))
    for path in tmp_path.glob("*.p*"):
        fs.put_file(str(path), f"archive/in/{path.name}")
    driver = submitted(processes, "s3://archive/in/m.parquet", place, spec)
    until(lambda: driver.poll() is not None or (fs.exists("archive/hinted/job.json") and done(place)), 240)
    assert driver.poll() is None, "there is something left to kill"
    kill_everything(driver)
    finish(submitted(processes, "s3://archive/in/m.parquet", place, spec, "--on-running", "wait"), 0, 300)
    found = check_store([f"r{number}" for number in range(4)], place)
    assert all(list(row["outputs"][0]["hints"]) == ["20,30,olive drab"] for row in found)
    assert {row["outputs"][0]["reference"] for row in found} == {"s3://archive/in/colour.png"}
    assert verify(place).differences == []


def test_a_store_that_fails_one_request_in_eight_costs_time_only(processes, s3, tmp_path):
    table = manifest(tmp_path, {}, 20)
    with FaultProxy(s3.endpoint) as proxy:
        proxy.faults = Faults(seed=3, rate=0.125, kinds=FAULTY)
        variables = {"AWS_ENDPOINT_URL": proxy.endpoint}
        finish(drive(processes, table, "s3://archive/faulty", variables, patience=120.0), 0, 400)
        injected = proxy.injected
    assert sum(injected.values()) > 10
    assert len(injected) >= 5, injected
    check_store(ids(20), "s3://archive/faulty")


def test_a_server_that_is_killed_and_restarted_amid_writes_loses_nothing(processes, tmp_path, s3_environment):
    with SeaweedFS(tmp_path / "weed") as server:
        server.bucket("archive")
        s3_environment(server.environment)
        place = "s3://archive/out"
        driver = drive(processes, manifest(tmp_path, {}, 40), place, {"QUICK_SECONDS": "0.2"}, patience=120.0)
        for wanted in (4, 16):
            until(lambda wanted=wanted: status(Store(place)).ok >= wanted, 120)
            server.kill()
            time.sleep(2)
            server.restart()
        finish(driver, 0, 240)
        check_store(ids(40), place)


def test_a_server_that_stays_away_ends_the_run_resumable(processes, tmp_path, s3_environment):
    with SeaweedFS(tmp_path / "weed") as server:
        server.bucket("archive")
        s3_environment(server.environment)
        place = "s3://archive/out"
        unending = manifest(tmp_path, {39: "is slow"}, 40)  # it still runs when the server goes, however late that is
        driver = drive(processes, unending, place, {"QUICK_SECONDS": "0.5"}, patience=2.0)
        until(lambda: status(Store(place)).ok >= 4, 120)
        server.kill()
        said = finish(driver, 5, 240)
        assert "s3://archive/out/" in said
        assert SECRET not in said
        server.restart()
        finish(drive(processes, unending, place, on_running="wait"), 0, 240)
        check_store(ids(40), place)


@pytest.mark.slow
def test_a_stop_is_heard_while_the_store_is_away(processes, tmp_path, s3_environment):
    with SeaweedFS(tmp_path / "weed") as server:
        server.bucket("archive")
        s3_environment(server.environment)
        place = "s3://archive/out"
        driver = drive(
            processes, manifest(tmp_path, {}, 40), place, {"QUICK_SECONDS": "0.5"}, patience=600.0, grace_seconds=3.0
        )
        until(lambda: status(Store(place)).ok >= 4, 120)
        server.kill()
        time.sleep(3)
        driver.terminate()
        assert "SIGTERM" in finish(driver, 5, 100)


def test_two_submits_at_once_on_s3(processes, s3, tmp_path):
    table = manifest(tmp_path, {}, 20)
    both = [drive(processes, table, "s3://archive/two", on_running=way) for way in ("wait", "wait")]
    for process in both:
        finish(process, 0, 200)
    check_store(ids(20), "s3://archive/two")


def test_a_store_that_ignores_conditions_is_found_out_and_still_right(processes, tmp_path, s3_environment):
    with Rclone(tmp_path / "rclone") as server:
        server.bucket("archive")
        s3_environment(server.environment)
        assert not probe_preconditions("s3://archive/out")
        place = "s3://archive/out"
        said = finish(drive(processes, manifest(tmp_path, {}, 10), place), 0)
        assert "ignores conditional writes" in said
        assert status(Store(place)).preconditions is False
        assert all("ignores conditional writes" in row["warnings"][0] for row in check_store(ids(10), place))


def test_refusals_name_bucket_and_key_at_once_and_never_a_credential(s3, s3_environment):
    s3_environment({"AWS_SECRET_ACCESS_KEY": "wrong-secret-of-mine"})
    store, started = Store("s3://archive/out", patience=Patience(total=300)), time.monotonic()
    with pytest.raises(StoreError, match="s3://archive/out/some/key: permission denied") as caught:
        store.write("some/key", b"x")
    assert "wrong-secret-of-mine" not in str(caught.value)
    s3_environment({"AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"]} | s3.environment)
    with pytest.raises(FileNotFoundError):
        Store("s3://archive/out").read("nothing/there")
    assert time.monotonic() - started < 60


def test_profiles_and_read_without_credentials(s3, s3_environment, tmp_path, monkeypatch):
    """A profile's keys for writing; then the same object by a presigned-free, unsigned request, which is refused here
    and allowed by public buckets: what counts is that it was not signed."""
    (tmp_path / "credentials").write_text(
        f"[museum]\naws_access_key_id = {s3.environment['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3_environment({"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "museum"})
    Store("s3://archive/profile").write("a", b"by profile")
    assert fetch_uri("s3://archive/profile/a").read() == b"by profile"
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})
    s3_environment({})
    with pytest.raises(PermissionError):
        fetch_uri("s3://archive/profile/a")


def test_a_manifest_is_built_from_a_bucket_into_a_bucket(s3, tmp_path):
    fs = connect(s3.endpoint)
    write_picture(tmp_path / "a.png", 1)
    fs.put_file(str(tmp_path / "a.png"), "archive/scans/box 1/a.png")
    assert build("s3://archive/scans", "s3://archive/q.parquet", {".png"}).rows == 1
    assert validated("s3://archive/q.parquet", defaults=Defaults(caption="x")) == 1
    for folder in ("s3://archive/none", "s3://nowhere/a"):
        with pytest.raises(ManifestError, match="not_found"):
            build(folder, "s3://archive/q.parquet", {".png"})


def test_a_manifest_on_s3_is_read_row_group_by_row_group(s3, tmp_path):
    path = write_manifest(tmp_path / "m.parquet", rows(3))
    connect(s3.endpoint).put_file(path, "archive/read/m.parquet")
    assert validated("s3://archive/read/m.parquet") == 3
