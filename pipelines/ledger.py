"""The truth about what is done, in the output store itself: one record per finished row, compacted into `results/`.

Order of writes: images and artifact first, the row's record last. What no record names was never finished.
"""

import io
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.results import FAILED, OK, SKIPPED, ResultRow, to_table
from pipelines.store import Store

SHARD_ROWS = 1000
JOB_KEY = "job.json"
_RECORDS = "_engine/rows"
_HEARTBEAT = "_engine/heartbeat.json"
_PLAN = "_engine/plan.parquet"
STALE_SECONDS = 60


class Ledger:
    """Results of one output store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # One row -------------------------------------------------------------------------------------------------------

    def commit(self, row: ResultRow) -> None:
        """Makes `row` the outcome of its digest. Everything that it names must be stored already."""
        self.store.write(self._record_key(row.row_digest), json.dumps(row.to_record()).encode())

    @staticmethod
    def _record_key(row_digest: str) -> str:
        return f"{_RECORDS}/{row_digest[:2]}/{row_digest}.json"

    # All rows ------------------------------------------------------------------------------------------------------

    def load(self) -> dict[str, ResultRow]:
        """Every known outcome by row digest: the published rows, then records that are not published (yet, or of
        other settings). Only those are read one by one."""
        known = {row.row_digest: row for row in self.published()}
        for key in self.store.list(_RECORDS):
            if key.rpartition("/")[2].removesuffix(".json") not in known:
                row = ResultRow.from_record(json.loads(self.store.read(key)))
                known[row.row_digest] = row
        return known

    def published(self) -> Iterator[ResultRow]:
        """The rows of `results/`."""
        for key in self.store.list("results"):
            for batch in pq.ParquetFile(pa.BufferReader(self.store.read(key))).iter_batches():
                yield from map(ResultRow.from_record, batch.to_pylist())

    def publish(self, rows: Iterable[ResultRow], carried: pa.Schema) -> None:
        """Writes `results/`, the rows in manifest order, `SHARD_ROWS` to a file, and drops what it replaces.

        Records stay: going back to earlier settings finds its results again.
        """
        written, shard = [], []

        def close() -> None:
            key = f"results/part-{len(written):05d}.parquet"
            buffer = io.BytesIO()
            pq.write_table(to_table(shard, carried), buffer)
            self.store.write(key, buffer.getvalue())
            written.append(key)
            shard.clear()

        for row in rows:
            shard.append(row)
            if len(shard) == SHARD_ROWS:
                close()
        if shard or not written:
            close()
        for key in set(self.store.list("results")) - set(written):
            self.store.delete(key)

    def replace(self, row: ResultRow) -> None:
        """Puts `row` in the place of the published row with its id."""
        for key in self.store.list("results"):
            table = pq.read_table(pa.BufferReader(self.store.read(key)))
            rows = [ResultRow.from_record(record) for record in table.to_pylist()]
            if any(one.id == row.id for one in rows):
                carried = pa.schema([item for item in table.schema if item.name in row.extra])
                buffer = io.BytesIO()
                pq.write_table(to_table([row if one.id == row.id else one for one in rows], carried), buffer)
                self.store.write(key, buffer.getvalue())
                return
        raise KeyError(row.id)

    # The job -------------------------------------------------------------------------------------------------------

    def write_job(self, facts: dict[str, Any]) -> None:
        self.store.write(JOB_KEY, json.dumps(facts, indent=2).encode())

    def read_job(self) -> dict[str, Any]:
        """What was asked. Raises FileNotFoundError when this is not an output folder."""
        return json.loads(self.store.read(JOB_KEY))

    def write_plan(self, row_digests: list[str]) -> None:
        """The rows of the current job, in manifest order."""
        buffer = io.BytesIO()
        pq.write_table(pa.table({"row_digest": row_digests}), buffer)
        self.store.write(_PLAN, buffer.getvalue())

    def beat(self, progress: dict[str, Any]) -> None:
        """Says that the driver lives, and what it sees."""
        self.store.write(_HEARTBEAT, json.dumps({"time": time.time(), **progress}).encode())

    def status(self) -> dict[str, Any]:
        """Counts and state, from the store alone.

        Returns:
            rows, ok, failed, skipped, pending, state ("running", "interrupted", "failed" or "finished"), workers.
        """
        job = self.read_job()
        beat = json.loads(self.store.read(_HEARTBEAT)) if self.store.exists(_HEARTBEAT) else {"time": 0}
        state = job["state"]
        if state == "running" and time.time() - beat["time"] > STALE_SECONDS:
            state = "interrupted"
        counts = dict.fromkeys((OK, FAILED, SKIPPED), 0)
        if self.store.exists(_PLAN):
            plan = pq.read_table(pa.BufferReader(self.store.read(_PLAN)))["row_digest"].to_pylist()
            known = self.load()
            for row_digest in plan:
                if row_digest in known:
                    counts[known[row_digest].status] += 1
        return {
            "output": self.store.uri,
            "rows": job["rows"],
            **counts,
            "pending": job["rows"] - sum(counts.values()),
            "state": state,
            "workers": beat.get("workers", []) if state == "running" else [],
        }
