"""`--address`: the same command line as a Ray job on a cluster started by hand, with its token."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_manifest
from tests.pipelines.driver.test_run import cli, published, rows


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """`ray start --head` with token authentication, in a HOME of its own; yields the dashboard's URL."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t" * 40}
    # As in an activated environment: the job's `python` is the cluster's own.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.pop("RAY_ADDRESS", None)
    ray, port = str(Path(sys.executable).with_name("ray")), free_port()
    command = [ray, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}", "--dashboard-host=127.0.0.1"]
    # Its own ports for all that another Ray on this machine, such as that of the tests before, has taken.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    command += [f"--dashboard-agent-grpc-port={free_port()}", f"--runtime-env-agent-port={free_port()}"]
    command += [f"--dashboard-port={port}", "--disable-usage-stats", f"--temp-dir={tmp_path_factory.mktemp('r')}"]
    with (home / "log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(port, head, home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        head.terminate()
        try:
            head.wait(timeout=40)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, 9)
            head.wait()


def wait_for(port, process, log) -> None:
    import time

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise AssertionError(log.read_text()[-2000:])


def test_the_job_runs_in_the_cluster_and_its_exit_code_comes_from_the_output(cluster, pictures, spec, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 40)
    manifest = write_manifest(pictures / "m.parquet", [*rows(1), {**rows(1)[0], "id": "gone", "image": "gone.png"}])
    job = cli(
        *("submit", manifest, "--output", spec.output, "--address", cluster, "--preset", "draft"),
        *("--base-model", spec.base_model, "--judge", spec.judge, "--cpus-per-worker", "1"),
    )
    output, _ = job.communicate(timeout=280)
    assert job.returncode == 3, output
    assert "submitted raysubmit_" in output
    assert {row["id"]: row["status"] for row in published(spec)} == {"r0": "ok", "gone": "failed"}


@pytest.mark.parametrize(("variable", "named"), [(None, "127.0.0.1"), ("http://elsewhere:8265", "RAY_ADDRESS")])
def test_a_cluster_that_is_not_there_or_not_the_one_meant_is_named(pictures, spec, monkeypatch, variable, named):
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    manifest = write_manifest(pictures / "m.parquet", rows(1))
    job = cli("submit", manifest, "--output", spec.output, "--address", f"http://127.0.0.1:{free_port()}")
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 5
    assert named in output
    assert "Traceback" not in output


def test_a_bad_manifest_on_the_cluster_is_usage_too(cluster, pictures, spec, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 40)
    manifest = write_manifest(pictures / "m.parquet", [*rows(1), *rows(1)])
    job = cli("submit", manifest, "--output", spec.output, "--address", cluster)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 2, output
    assert "duplicate_id" in output
