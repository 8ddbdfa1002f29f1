"""What an output says of its job, from the store alone: the cluster may be long gone."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.ledger.job_file import FailedRow, Heartbeat
from pipelines.ledger.layout import JOB_KEY, SUBMITTED_KEY
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import FAILED, OK, SKIPPED
from pipelines.progress import RunState, WorkerProgress
from pipelines.store.lease import LeaseState, read_lease, stop_key
from pipelines.store.store import Store
from pipelines.values import BadValueError, to_values


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """How far the job of an output is.

    Attributes:
        rate: rows per second; None unless it runs.
        eta: seconds left; None unless it runs.
        heartbeat_age: seconds.
        host: of the driver.
        preconditions: whether the store keeps conditional writes.
        shows_earlier: whether pending rows show what they had before the manifest or the settings changed.
        errors: the last rows that failed.
    """

    output: str
    run: str
    state: RunState
    rows: int
    ok: int
    failed: int
    skipped: int
    pending: int
    rate: float | None
    eta: float | None
    gpu_seconds: float
    heartbeat_age: float | None
    host: str | None
    preconditions: bool
    shows_earlier: bool
    workers: tuple[WorkerProgress, ...]
    errors: tuple[FailedRow, ...]

    def to_json(self) -> dict[str, Any]:
        """`shows_earlier` is there only where it is true."""
        values = to_values(self)
        return values if self.shows_earlier else {name: values[name] for name in values if name != "shows_earlier"}


def status(store: Store) -> JobStatus:
    """Reads how far the job of an output is.

    Raises:
        FileNotFoundError: not an output folder.
    """
    ledger = Ledger(store)
    job = ledger.read_job()
    lease = read_lease(store)
    is_running = lease is not None and lease.is_alive
    heartbeat = _heartbeat(lease)
    if is_running and heartbeat.plan == job.plan:
        counts = {OK: heartbeat.ok, FAILED: heartbeat.failed, SKIPPED: heartbeat.skipped}
    else:
        counts = ledger.counts(job.plan)
    return JobStatus(
        output=store.uri,
        run=job.run,
        state=RunState.running if is_running else heartbeat.ended_as,
        rows=job.rows,
        ok=counts[OK],
        failed=counts[FAILED],
        skipped=counts[SKIPPED],
        pending=job.rows - sum(counts.values()),
        rate=heartbeat.rate if is_running else None,
        eta=heartbeat.eta if is_running else None,
        gpu_seconds=heartbeat.gpu_seconds,
        heartbeat_age=round(lease.age, 1) if lease else None,
        host=lease.holder.host if lease else None,
        preconditions=job.preconditions,
        shows_earlier=bool(job.previous),
        workers=heartbeat.workers if is_running else (),
        errors=heartbeat.errors,
    )


NEVER_STARTED = 3600.0  # seconds after which a job that was handed to a cluster is not waited for


def note_submitted(store: Store, run: str, job: str) -> None:
    """Leaves word of a job that was handed to a cluster, whose driver is not up yet."""
    store.write(SUBMITTED_KEY, json.dumps({"run": run, "job": job, "time": time.time()}).encode())


def starting(store: Store) -> dict[str, Any] | None:
    """A run that has no plan yet: it reads its manifest and loads models, or waits for its cluster.

    Returns:
        `state` ("starting"), `run`, `host` (None where it waits) and `seconds` since it was submitted or last seen;
        None without such a run.
    """
    if store.exists(JOB_KEY):
        return None
    if (lease := read_lease(store)) and lease.is_alive:
        holder = lease.holder
        return {"state": "starting", "run": holder.run, "host": holder.host, "seconds": round(lease.age, 1)}
    try:
        said = json.loads(store.read(SUBMITTED_KEY))
        seconds = time.time() - float(said["time"])
        if seconds > NEVER_STARTED:
            return None
        return {"state": "starting", "run": said["run"], "host": None, "seconds": round(seconds, 1)}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _heartbeat(lease: LeaseState | None) -> Heartbeat:
    """What the holder of the lease said last; nothing where that cannot be read."""
    try:
        return Heartbeat.from_json(lease.heartbeat if lease else {})
    except BadValueError:
        return Heartbeat()


def outputs(root: Store) -> Iterator[str]:
    """URIs of the outputs at `root` and right below it."""
    if root.exists(JOB_KEY):
        yield root.uri
    for folder in root.folders(""):
        if root.exists(f"{folder}/{JOB_KEY}"):
            yield f"{root.uri.rstrip('/')}/{folder}"


def request_stop(store: Store) -> str | None:
    """Asks the run that holds the output to stop; returns its id, None if no run holds it."""
    lease = read_lease(store)
    if lease is None or not lease.is_alive:
        return None
    store.write(stop_key(lease.holder.run), json.dumps({"stop": True}).encode())
    return lease.holder.run
