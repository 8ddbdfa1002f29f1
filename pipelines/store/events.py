"""The event log of a run, as JSON lines in the output store. Objects cannot be appended to, so each writer stores a new
one every few seconds."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from pipelines.errors import StoreError
from pipelines.store.store import Store

FLUSH_SECONDS = 5.0
RUNS = "_engine/runs"


class EventLog:
    """Events of one writer of a run. Logging never fails and never waits: what cannot be stored is tried again later.

    Args:
        writer: unique in the run.
    """

    def __init__(self, store: Store, run: str, writer: str) -> None:
        self.store, self.folder, self.writer = store, f"{RUNS}/{run}/events", writer
        self._lines: list[str] = []
        self._written = 0
        self._lock, self._flushing, self._over = threading.Lock(), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._flush_on, name="events", daemon=True)
        self._thread.start()

    def __call__(self, event: str, **facts: Any) -> None:
        """Logs an event by its name, with its facts."""
        line = json.dumps({"time": round(time.time(), 3), "writer": self.writer, "event": event, **facts}, default=str)
        with self._lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Stores the events logged so far."""
        with self._flushing:
            with self._lock:
                lines, self._lines = self._lines, []
            if not lines:
                return
            try:
                key = f"{self.folder}/{self.writer}-{self._written:06d}.jsonl"
                self.store.write(key, "".join(f"{line}\n" for line in lines).encode())
                self._written += 1
            except StoreError:
                with self._lock:
                    self._lines[:0] = lines

    def _flush_on(self) -> None:
        while not self._over.wait(FLUSH_SECONDS):
            self.flush()

    def close(self) -> None:
        """Stores the remaining events."""
        self._over.set()
        self._thread.join()
        self.flush()


def read_events(store: Store, run: str, seen: set[str]) -> Iterator[dict[str, Any]]:
    """Events of a run in order of time, from objects that are not in `seen`, to which they are added."""
    new = [key for key in store.list(f"{RUNS}/{run}/events") if key not in seen]
    events = [event for key in new for event in _events_of(store.read(key))]
    seen.update(new)
    yield from sorted(events, key=lambda event: event["time"])


def _events_of(content: bytes) -> Iterator[dict[str, Any]]:
    """The events of an object; lines that are none are left out."""
    for line in content.decode(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("time"), int | float) and "event" in event:
            yield event
