"""Progress of a running job: rich bars on a terminal, plain lines elsewhere; always on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipelines.operations.status import JobStatus
from pipelines.progress import RunState, Snapshot, WorkerProgress

PLAIN_SECONDS = 10.0


class Rate:
    """Time left, from the rows finished since the first snapshot; rows that were done before do not count.

    Rows finish by the batch: between two batches the time left counts down from what it was at the last one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.started = self.last_at = clock()
        self.done_before: int | None = None
        self.last_done = 0

    def eta(self, snapshot: Snapshot) -> float | None:
        """Seconds left; None before a first row of this run is done."""
        now = self.clock()
        if self.done_before is None:
            self.done_before = self.last_done = snapshot.done
        if snapshot.done != self.last_done:
            self.last_done, self.last_at = snapshot.done, now
        done = self.last_done - self.done_before
        if not done:
            return None
        per_row = (self.last_at - self.started) / done
        return max(0.0, (snapshot.rows - snapshot.done) * per_row - (now - self.last_at))


def summary(snapshot: Snapshot, eta: float | None) -> str:
    """One line: counts and time left."""
    left = "" if eta is None or snapshot.done == snapshot.rows else f", about {_clock(eta)} left"
    return (
        f"{snapshot.done}/{snapshot.rows} rows: {snapshot.ok} ok, {snapshot.failed} failed, "
        f"{snapshot.skipped} skipped{left}"
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def worker_line(progress: WorkerProgress) -> str:
    """What one worker does: stage, step, ids."""
    step = f" {progress.step}/{progress.steps}" if progress.steps is not None else ""
    ids = progress.ids
    shown = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    return f"{progress.stage}{step}" + (f": {shown}" if shown else "")


def status_line(status: JobStatus) -> str:
    """A job's status in one line."""
    heard = ""
    if status.state is RunState.running:
        heard = f", last heartbeat {status.heartbeat_age or 0:.0f} s ago from {status.host}"
    left = f", about {_clock(status.eta)} left" if status.eta else ""
    earlier = " (what they had before is still shown)" if status.shows_earlier and status.pending else ""
    return (
        f"{status.state}: {status.rows} rows, {status.ok} ok, {status.failed} failed, "
        f"{status.skipped} skipped, {status.pending} pending{earlier}{left}{heard}"
    )


def hours_line(name: str, spent: dict[str, Any]) -> str:
    """What some rows took to make."""
    cost = f", cost {spent['cost']:.2f}" if "cost" in spent else ""
    wasted = f"{spent['failed_hours']:.2f} of them for rows that failed"
    return f"  {name}: {spent['rows']} rows, {spent['worker_hours']:.2f} worker hours, {wasted}{cost}"


def event_line(event: dict[str, Any]) -> str:
    """One event as a line for people."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
    facts = {key: value for key, value in event.items() if key not in ("time", "writer", "event")}
    return f"{at} {event['writer']} {event['event']}" + "".join(f" {key}={value}" for key, value in facts.items())


@contextmanager
def watching(console: Console) -> Iterator[Callable[[Snapshot], None]]:
    """A watcher for `run_job`."""
    rate = Rate()
    if not console.is_terminal:
        yield _plain(console, rate)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def show(snapshot: Snapshot) -> None:
            table = Table.grid(padding=(0, 1))
            table.add_row(summary(snapshot, rate.eta(snapshot)))
            for progress in snapshot.workers:
                table.add_row(f"  {worker_line(progress)}")
            live.update(table)

        yield show


def _plain(console: Console, rate: Rate) -> Callable[[Snapshot], None]:
    last_time, last_done = 0.0, -1

    def show(snapshot: Snapshot) -> None:
        nonlocal last_time, last_done
        eta, now = rate.eta(snapshot), time.monotonic()
        if snapshot.done == last_done and now - last_time < PLAIN_SECONDS:
            return
        last_time, last_done = now, snapshot.done
        doing = "; ".join(worker_line(progress) for progress in snapshot.workers if progress.stage != "idle")
        console.print(
            summary(snapshot, eta) + (f" | {doing}" if doing else ""), soft_wrap=True, highlight=False, markup=False
        )

    return show
