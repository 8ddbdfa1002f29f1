"""The real driver, ledger and store with an adaptation that does nothing: what a run of many rows costs by itself.

python benchmarks/scale.py FOLDER [--rows 100000] [--images-per-step 8] [--output URI]

Makes a manifest, runs it, kills everything at 90 %, runs it again, times the commands that read all of it, and prints
the figures.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from diffcolor.config import PRESETS  # noqa: E402
from diffcolor.identity import ModelIdentity  # noqa: E402
from pipelines.job import JobRequest, JobSpec  # noqa: E402
from pipelines.ledger.ledger import Ledger  # noqa: E402
from pipelines.ledger.results import OK, ResultRow  # noqa: E402
from pipelines.ledger.task import Task, blank_result  # noqa: E402
from pipelines.operations.status import status  # noqa: E402
from pipelines.progress import WorkerProgress  # noqa: E402
from pipelines.store.store import Store  # noqa: E402


class NoopWorker:
    """Commits every row as ok, as a real worker would, and does nothing else."""

    identity = ModelIdentity(base_model="none", base_model_digest="0", judge="none", judge_digest="0")

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.store = Store(spec.output, preconditions=spec.preconditions)
        self.ledger = Ledger(self.store)
        self.done, self.at_work = 0, lambda _ids: None

    def process(self, tasks: list[Task]) -> list[ResultRow]:
        """One conditional create per row."""
        rows = []
        for task in tasks:
            row = replace(blank_result(task, self.spec, self.identity), status=OK, seconds=0.001)
            rows.append(self.ledger.commit(task.place, row, uuid.uuid4().hex))
            self.done += 1
        return rows

    def progress(self) -> WorkerProgress:
        return WorkerProgress(stage="no-op", ticks=self.done)

    def request_stop(self, seconds: float) -> None:
        """Rows take no time: those in hand end."""


def write_manifest(path: Path, rows: int) -> None:
    """Rows that name pictures nobody reads, in row groups."""
    with pq.ParquetWriter(
        path, pa.schema([("id", pa.string()), ("image", pa.string()), ("caption", pa.string())])
    ) as file:
        for first in range(0, rows, 50_000):
            numbers = range(first, min(rows, first + 50_000))
            columns = {
                "id": [f"row-{number:08d}" for number in numbers],
                "image": [f"scans/{number:08d}.png" for number in numbers],
                "caption": [f"a photograph of house number {number}" for number in numbers],
            }
            file.write_table(pa.table(columns))


def drive(manifest: str, output: str, images_per_step: int) -> None:
    """One run; prints its own figures as JSON."""
    from pipelines.driver.run import run_job

    started, seen, requests, do = time.monotonic(), {}, Counter(), Store._do

    def do_and_count(store: Store, verb: str, *arguments):
        requests[verb] += 1  # the driver's, tries again not counted; a worker adds one for each row
        return do(store, verb, *arguments)

    Store._do = do_and_count

    def watch(snapshot) -> None:
        seen.setdefault("before", snapshot.done)
        if snapshot.done > seen["before"]:
            seen.setdefault("first_row", time.monotonic() - started)

    spec = JobSpec(
        output=output,
        base_model="none",
        judge="none",
        config=PRESETS["draft"],
        device="cpu",
        images_per_step=images_per_step,
    )
    request = JobRequest(
        manifest=manifest, spec=spec, workers=2, cpus_per_worker=1, worker="benchmarks.scale:NoopWorker"
    )
    snapshot = run_job(request, watch)
    figures = {"seconds": time.monotonic() - started, "rows": snapshot.rows, "ok": snapshot.ok, "requests": requests}
    print(json.dumps({**figures, **seen}))


def resident(pid: int) -> float:
    """MB of a process; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return 0.0


def run(arguments: argparse.Namespace, kill_at: float | None) -> dict:
    """Starts a driver process and watches its memory; kills it, and all that it started, at a share of the rows."""
    command = [sys.executable, __file__, arguments.folder, "--drive", "--rows", str(arguments.rows)]
    command += ["--images-per-step", str(arguments.images_per_step), "--output", arguments.output]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    memory, marks, store = [], {}, Store(arguments.output)
    while driver.poll() is None:
        time.sleep(2.0)
        memory.append(resident(driver.pid))
        try:
            share = status(store).ok / arguments.rows
        except FileNotFoundError:
            continue
        for mark in (0.1, 0.5, 0.9):
            if share >= mark:
                marks.setdefault(mark, (round(memory[-1]), round(time.monotonic() - started, 1)))
        if kill_at is not None and share >= kill_at:
            os.killpg(driver.pid, signal.SIGKILL)
    out, _ = driver.communicate()
    figures = json.loads(out.splitlines()[-1]) if out.strip() else {}
    return {"peak_mb": round(max(memory)), "mb_and_seconds_at": marks, **figures}


def command(*arguments: str) -> dict:
    """Seconds, MB at most and exit code of a command of the command line."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    seconds = round(time.monotonic() - started, 1)
    return {"seconds": seconds, "peak_mb": round(usage.ru_maxrss / 1024), "exit_code": process.returncode}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--images-per-step", type=int, default=8)
    parser.add_argument("--output")
    parser.add_argument("--drive", action="store_true")
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    arguments.output = arguments.output or str(folder / "out")
    manifest = folder / f"{arguments.rows}.parquet"
    if arguments.drive:
        drive(str(manifest), arguments.output, arguments.images_per_step)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(manifest, arguments.rows)
    for name, kill_at in (("killed at 90 %", 0.9), ("resumed", None), ("nothing left to do", None)):
        print(name, json.dumps(run(arguments, kill_at)), flush=True)
    for words in ("manifest validate", "status", "report", "verify --sample 100", "gc"):
        place = str(manifest) if words.startswith("manifest") else arguments.output
        print(words, json.dumps(command(*words.split(), place)), flush=True)


if __name__ == "__main__":
    main()
