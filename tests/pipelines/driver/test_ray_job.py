"""`--address`: the same command line as a Ray job on a cluster started by hand, with its token."""

import os
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pipelines.driver.ray_job import stage_code
from pipelines.job import JobSpec
from tests.conftest import TINY, write_manifest
from tests.pipelines.jobs import cli, published, rows
from tests.processes import deadline, finish, owned_processes, until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """`ray start --head` with token authentication, in a HOME of its own; yields the dashboard's URL."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "t" * 40,
        "PYTHONPATH": "",
    }
    # As in an activated environment: the job's `python` is the cluster's own.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.pop("RAY_ADDRESS", None)
    port = free_port()
    # A short path: those of Ray's sockets, which are below it, may have 107 bytes.
    with TemporaryDirectory(prefix="ray") as folder, owned_processes() as owned, (home / "log").open("wb") as log:
        head = owned.start(head_command(port, folder), environment, stdout=log, stderr=log)
        until(lambda: is_open(port) or head.poll() is not None)
        assert head.poll() is None, (home / "log").read_text()[-2000:]
        yield f"http://127.0.0.1:{port}"
        head.terminate()
        head.wait(timeout=deadline(60))


def head_command(port: int, folder: str) -> list[str]:
    """A head with a dashboard on `port`, and ports of its own for all that another Ray on this machine has taken."""
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}"]
    command += [f"--dashboard-agent-grpc-port={free_port()}", f"--runtime-env-agent-port={free_port()}"]
    return [*command, f"--dashboard-port={port}", "--disable-usage-stats", f"--temp-dir={folder}"]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_job_runs_in_the_cluster_and_its_exit_code_comes_from_the_output(
    processes, cluster, pictures, spec, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 40)
    manifest = write_manifest(pictures / "m.parquet", [*rows(1), {**rows(1)[0], "id": "gone", "image": "gone.png"}])
    job = cli(
        processes,
        *("submit", manifest, "--output", spec.output, "--address", cluster, "--preset", "draft"),
        *("--base-model", spec.base_model, "--judge", spec.judge, "--cpus-per-worker", "1"),
    )
    output = finish(job, 3)
    assert "submitted raysubmit_" in output
    assert {row["id"]: row["status"] for row in published(spec)} == {"r0": "ok", "gone": "failed"}


@pytest.mark.parametrize(("variable", "named"), [(None, "127.0.0.1"), ("http://elsewhere:8265", "RAY_ADDRESS")])
def test_a_cluster_that_is_not_there_or_not_the_one_meant_is_named(
    processes, pictures, spec, monkeypatch, variable, named
):
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    manifest = write_manifest(pictures / "m.parquet", rows(1))
    job = cli(processes, "submit", manifest, "--output", spec.output, "--address", f"http://127.0.0.1:{free_port()}")
    output = finish(job, 5)
    assert named in output
    assert "Traceback" not in output


def test_a_bad_manifest_on_the_cluster_is_usage_too(processes, cluster, pictures, spec, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 40)
    manifest = write_manifest(pictures / "m.parquet", [*rows(1), *rows(1)])
    job = cli(processes, "submit", manifest, "--output", spec.output, "--address", cluster)
    output = finish(job, 2)
    assert "duplicate_id" in output


@pytest.mark.parametrize(
    ("models", "most"), [({}, 90e6), ({"base_model": "x"}, 40e6), ({"base_model": "none", "judge": "x"}, 25e6)]
)
def test_weights_that_a_job_does_not_use_are_not_sent(tmp_path, models, most):
    spec = JobSpec(**{"output": "o", "base_model": "mini", "judge": "mini", "config": TINY, **models})
    stage_code(tmp_path, spec)
    sizes = {
        path.relative_to(tmp_path).as_posix(): path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()
    }
    assert most / 2 < sum(sizes.values()) < most
    assert sizes["diffcolor/embedded/coarse/model.safetensors"] > 17e6
    assert "diffcolor/embedded/mini/tokenizer/vocab.json" in sizes
