"""What an output tells about its job, from the store alone: the cluster may be long gone."""

import json
from collections.abc import Iterator
from typing import Any

from pipelines.ledger.ledger import JOB_KEY, Ledger
from pipelines.ledger.results import FAILED, OK, SKIPPED
from pipelines.store.lease import look, stop_key
from pipelines.store.store import Store


def status(store: Store) -> dict[str, Any]:
    """How far the job of an output is.

    Returns:
        output, run, state ("running", "interrupted", "stopped", "too_many_failures", "failed" or "finished"), rows, ok,
        failed, skipped, pending; rate (rows per second), eta (s), gpu_seconds, heartbeat_age (s), host, preconditions,
        workers (what each does), errors (the last ones).

    Raises:
        FileNotFoundError: not an output folder.
    """
    ledger = Ledger(store)
    job = ledger.read_job()
    held = look(store)
    running = held is not None and held.is_alive
    beat = held.beat if held else {}
    if running and beat.get("plan") == job["plan"]:
        counts = {name: beat[name] for name in (OK, FAILED, SKIPPED)}
    else:
        counts = _counted(ledger, job["plan"])
    done = sum(counts.values())
    state = "running" if running else beat.get("state", "interrupted")
    if not running and state == "running":
        state = "interrupted"
    return {
        "output": store.uri,
        "run": job["run"],
        "state": state,
        "rows": job["rows"],
        **counts,
        "pending": job["rows"] - done,
        "rate": beat.get("rate") if running else None,
        "eta": beat.get("eta") if running else None,
        "gpu_seconds": beat.get("gpu_seconds", 0.0),
        "heartbeat_age": round(held.age, 1) if held else None,
        "host": held.holder.host if held else None,
        "preconditions": job["preconditions"],
        "workers": beat.get("workers", []) if running else [],
        "errors": beat.get("errors", []),
    }


def _counted(ledger: Ledger, plan: str) -> dict[str, int]:
    """Closed shards by their markers, open ones by their records."""
    counts = dict.fromkeys((OK, FAILED, SKIPPED), 0)
    closed, opened = ledger.closed(plan), ledger.open_generations(plan)
    for shard, one in closed.items():
        if shard not in opened:
            for name in counts:
                counts[name] += getattr(one, name)
    for shard, generations in opened.items():
        for row in ledger.known(plan, shard, closed.get(shard), generations).values():
            counts[row.status] += 1
    return counts


def outputs(root: Store) -> Iterator[str]:
    """URIs of the outputs at `root` and right below it."""
    if root.exists(JOB_KEY):
        yield root.uri
    for folder in root.folders(""):
        if root.exists(f"{folder}/{JOB_KEY}"):
            yield f"{root.uri.rstrip('/')}/{folder}"


def request_stop(store: Store) -> str | None:
    """Asks the run that holds the output to stop; returns its id, None if none is alive."""
    held = look(store)
    if held is None or not held.is_alive:
        return None
    store.write(stop_key(held.holder.run), json.dumps({"stop": True}).encode())
    return held.holder.run
