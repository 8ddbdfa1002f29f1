"""The main job against a real S3 server over HTTP: manifest, images and outputs in buckets."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import s3fs

from pipelines.ledger import Ledger
from pipelines.run import run_job
from pipelines.store import Store
from pipelines.verify import verify
from tests.conftest import write_manifest
from tests.pipelines.test_run import request, rows

KEY, SECRET = "archive", "not-a-real-secret"


def free_port() -> int:
    # gRPC ports are the HTTP ports plus 10000: keep both below 65536.
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            if probe.getsockname()[1] < 55_000:
                return probe.getsockname()[1]


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory):
    """SeaweedFS with credentials on loopback; yields its endpoint."""
    folder = tmp_path_factory.mktemp("weed")
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
    command = [
        str(Path(sys.executable).with_name("weed")),
        "server",
        "-dir",
        str(folder),
        "-ip",
        "127.0.0.1",
        "-ip.bind",
        "127.0.0.1",
    ]
    command += ["-filer", "-s3", "-s3.config", str(folder / "s3.json"), "-volume.max=20"]
    command += ["-master.volumeSizeLimitMB=64", f"-s3.port={ports['s3']}", f"-master.port={ports['master']}"]
    command += [f"-volume.port={ports['volume']}", f"-filer.port={ports['filer']}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    try:
        wait_until_it_takes_writes(endpoint, server, folder / "log")
        yield endpoint
    finally:
        server.kill()
        server.wait()


def wait_until_it_takes_writes(endpoint, server, log) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            fs = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=endpoint, skip_instance_cache=True)
            fs.mkdir("archive")
            fs.pipe_file("archive/probe", b"x")
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture
def credentials(s3_server, monkeypatch):
    """The environment that any S3 tool reads; fsspec's cached connections are dropped before and after."""
    values = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield values
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def ray_with_credentials(credentials):
    """An embedded Ray of its own: its workers inherit this process's environment."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {"env_vars": {"PYTHONPATH": root}}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


def test_from_bucket_to_bucket_and_no_credential_is_stored(ray_with_credentials, pictures, spec):
    write_manifest(pictures / "m.parquet", rows(2))
    fs, _ = fsspec.core.url_to_fs("s3://archive/")
    for path in pictures.glob("*.p*"):
        fs.put_file(str(path), f"archive/in/{path.name}")
    spec = replace(spec, output="s3://archive/out")
    snapshot = run_job(request("s3://archive/in/m.parquet", spec))
    assert (snapshot.ok, snapshot.failed) == (2, 0)
    found = verify("s3://archive/out")
    assert (found.pictures, found.against_input, found.differences) == (4, 4, [])
    status = Ledger(Store("s3://archive/out")).status()
    assert (status["state"], status["ok"]) == ("finished", 2)
    before = fs.find("archive/out/artifacts", detail=True)
    assert run_job(request("s3://archive/in/m.parquet", spec)).ok == 2
    assert before
    after = fs.find("archive/out/artifacts", detail=True)
    assert {key: facts["ETag"] for key, facts in after.items()} == {key: facts["ETag"] for key, facts in before.items()}
    stored = fs.find("archive/out")
    assert len(stored) > 4
    assert not any(SECRET.encode() in fs.cat_file(path) for path in stored)
