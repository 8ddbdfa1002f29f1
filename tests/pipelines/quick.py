"""A worker that adapts nothing but stores what a real one stores, in the same order: for faults by the dozen.

Run as a program it is a driver with such workers: `python -m tests.pipelines.quick MANIFEST OUTPUT [JSON options]`.
"""

import errno
import io
import json
import os
import signal
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

from diffcolor.config import PRESETS
from diffcolor.identity import ModelIdentity
from pipelines.job import JobRequest, JobSpec
from pipelines.ledger.identity import sha256
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import FAILED, OK, Output, ResultRow
from pipelines.ledger.task import Task, blank_result
from pipelines.progress import WorkerProgress
from pipelines.store import local
from pipelines.store.retry import Patience
from pipelines.store.store import Store

STEPS = 5


class QuickWorker:
    """`QUICK_SECONDS` for a row (default 0.05). `QUICK_LOG` names a file that gets a line for every row begun.

    Rows whose caption says so misbehave: "fails", "hangs" (no step, deaf to a stop), "slow" (many steps), "dies".
    While a file `full` stands beside a local output, the disk is full.
    """

    identity = ModelIdentity(base_model="quick", base_model_digest="0", judge="quick", judge_digest="0")

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.store = Store(spec.output, patience=spec.patience, preconditions=spec.preconditions)
        self.ledger = Ledger(self.store)
        if self.store.is_local:
            full, write = Path(self.store.root).with_name("full"), local.write_temporary
            local.write_temporary = lambda *given: _raise_if(full.exists()) or write(*given)
        self.ticks, self.stop_at, self.at_work = 0, None, lambda _ids: None
        self.lock = threading.Lock()
        self.seconds = float(os.environ.get("QUICK_SECONDS", "0.05"))

    def progress(self) -> WorkerProgress:
        return WorkerProgress(stage="quick", ticks=self.ticks)

    def request_stop(self, seconds: float) -> None:
        self.stop_at = time.monotonic() + seconds

    def process(self, tasks: list[Task]) -> list[ResultRow]:
        with self.lock:
            return self._process(tasks)

    def _process(self, tasks: list[Task]) -> list[ResultRow]:
        rows = []
        for task in tasks:
            if self.stop_at is not None:
                return rows
            self.at_work([task.row.id])
            if "QUICK_LOG" in os.environ:
                with open(os.environ["QUICK_LOG"], "a") as log:
                    log.write(f"{task.row.id}\n")
            if "hangs" in task.row.caption:
                time.sleep(3600)
            if "dies" in task.row.caption:
                os.kill(os.getpid(), signal.SIGKILL)
            for _ in range(STEPS * (100 if "slow" in task.row.caption else 1)):
                if self.stop_at is not None:
                    return rows
                time.sleep(self.seconds / STEPS)
                self.ticks += 1
            rows.append(self._outcome(task))
        return rows

    def _outcome(self, task: Task) -> ResultRow:
        blank, row = blank_result(task, self.spec, self.identity), task.row
        if "fails" in row.caption:
            failed = replace(blank, status=FAILED, error_kind="test", error_message="as it was told")
            return self.ledger.commit(task.place, failed, uuid.uuid4().hex)
        buffer = io.BytesIO()
        color = tuple(sha256(row.id.encode()).encode()[:3])
        Image.new("RGB", (8, 8), color).save(buffer, "PNG")
        picture, artifact = buffer.getvalue(), save({"x": np.frombuffer(row.id.encode(), np.uint8)})
        image, key = f"images/{row.id}/1-{sha256(picture)[:8]}.png", f"artifacts/{row.id}/quick.safetensors"
        self.store.write(image, picture)
        self.store.create(key, artifact)
        output = Output(
            prompt="p", image=image, sha256=sha256(picture), eta=1.0, colorfulness=0.0, clip_margin=0.0, candidates=()
        )
        result = replace(
            blank,
            status=OK,
            outputs=(output, *blank.outputs),
            primary_image=image,
            primary_sha256=sha256(picture),
            artifact=key,
            artifact_sha256=sha256(artifact),
            seconds=self.seconds,
        )
        return self.ledger.commit(task.place, result, uuid.uuid4().hex)


def _raise_if(full: bool) -> None:
    if full:
        raise OSError(errno.ENOSPC, "No space left on device")


def SlowlyLoadedWorker(spec: JobSpec) -> QuickWorker:
    """As long as a large model takes to load, for our purposes."""
    time.sleep(9)
    return QuickWorker(spec)


class BrokenWorker:
    """Raises in its constructor."""

    def __init__(self, spec: JobSpec) -> None:
        raise RuntimeError("no such worker here")


def quick_request(manifest: str, output: str, **options) -> JobRequest:
    """A job of quick workers; options of JobRequest, and `k`, `patience` (seconds)."""
    spec = JobSpec(
        output=output,
        base_model="quick",
        judge="quick",
        config=PRESETS["draft"],
        device="cpu",
        images_per_step=options.pop("k", 2),
        patience=Patience(total=options.pop("patience", 60.0)),
    )
    settings = {"workers": 2, "cpus_per_worker": 1, "shard_rows": 10, "worker": "tests.pipelines.quick:QuickWorker"}
    return JobRequest(manifest=manifest, spec=spec, **{**settings, **options})


def main() -> None:
    from pipelines.commands.exit_codes import of_run
    from pipelines.commands.terminal import reported
    from pipelines.driver.run import run_job
    from pipelines.store import lease

    if "QUICK_LEASE" in os.environ:  # the lease's seconds, for tests that cannot wait a minute
        lease.HEARTBEAT_SECONDS, lease.EXPIRY_SECONDS = json.loads(os.environ["QUICK_LEASE"])
    manifest, output, *more = sys.argv[1:]
    with reported():
        snapshot = run_job(quick_request(manifest, output, **json.loads(more[0] if more else "{}")), notice=print)
    sys.exit(of_run(snapshot.state, snapshot.failed))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import typer

    try:
        main()
    except typer.Exit as stopped:
        sys.exit(stopped.exit_code)
