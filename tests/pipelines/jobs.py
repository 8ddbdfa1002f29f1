"""Jobs of quick workers and of the tiny models, as this process or another drives them."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.job import JobRequest, JobSpec
from pipelines.ledger.ledger import Ledger
from pipelines.store.events import read_events
from pipelines.store.store import Store
from tests.conftest import write_manifest
from tests.processes import Processes

# Rows of quick workers ----------------------------------------------------------------------------------------------


def manifest(folder: Path, captions: dict[int, str], count: int = 24) -> str:
    """Rows r000 ...; `captions` says which misbehave."""
    rows = [
        {"id": f"r{k:03}", "image": f"{k}.png", "caption": f"a barn that {captions.get(k, 'stands')}"}
        for k in range(count)
    ]
    return write_manifest(folder / "m.parquet", rows)


def ids(count: int = 24) -> list[str]:
    return [f"r{k:03}" for k in range(count)]


def drive(
    processes: Processes, table: str, out: str, environment: dict[str, str] | None = None, **options
) -> subprocess.Popen:
    """A driver of quick workers as a process."""
    command = [sys.executable, "-m", "tests.pipelines.quick", table, out, json.dumps(options)]
    return processes.start(command, environment)


def done(out: str) -> int:
    """Rows that have an outcome."""
    return sum(1 for _ in Ledger(Store(out)).current())


def events(out: str, name: str) -> list[dict]:
    store = Store(out)
    found = read_events(store, Ledger(store).read_job().run, set())
    return [event for event in found if event["event"] == name]


# Rows of the tiny models --------------------------------------------------------------------------------------------


def rows(count: int = 3, **more) -> list[dict]:
    return [
        {"id": f"r{k}", "image": f"p{k}.png", "caption": "a photo of a barn", "target_prompts": ["a red barn"], **more}
        for k in range(count)
    ]


def request(manifest: str, spec: JobSpec, **more) -> JobRequest:
    return JobRequest(manifest=manifest, spec=spec, cpus_per_worker=1, **more)


def published(spec: JobSpec) -> list[dict]:
    return pq.read_table(Path(spec.output) / "results").to_pylist()


def cli(processes: Processes, *arguments, **options) -> subprocess.Popen:
    """The command line as a process."""
    return processes.start([sys.executable, "-m", "cli", *arguments], **options)


def submitted(processes: Processes, table: str, place, spec, *more: str) -> subprocess.Popen:
    """A real submit of the tiny models, a checkpoint at every step."""
    arguments = ["submit", table, "--output", place, "--preset", "draft", "-k", 1, "--checkpoint-every", 0, *more]
    return cli(processes, *arguments, "--base-model", spec.base_model, "--judge", spec.judge)
