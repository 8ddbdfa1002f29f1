"""The truth about what is done, in the output store itself: one record per finished row, compacted into `results/`.

Order of writes: images and artifact first, the row's record last. What no record names was never finished.
"""

import io
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
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

    def find(self, row_digest: str) -> ResultRow | None:
        """The record of one row, None without one."""
        try:
            return ResultRow.from_record(json.loads(self.store.read(self._record_key(row_digest))))
        except FileNotFoundError:
            return None

    def load(self) -> dict[str, ResultRow]:
        """Every known outcome by row digest. A record is newer than the published row of its digest."""
        known = {row.row_digest: row for row in self.published()}
        for key in self.store.list(_RECORDS):
            row = ResultRow.from_record(json.loads(self.store.read(key)))
            extra = known[row.row_digest].extra if row.row_digest in known else {}
            known[row.row_digest] = replace(row, extra=extra)
        return known

    def current(self) -> list[ResultRow]:
        """The outcomes of the current job's rows, in manifest order; rows without one are left out."""
        known = self.load()
        return [known[key] for key in self._plan() if key in known]

    def published(self) -> Iterator[ResultRow]:
        """The rows of `results/`."""
        for key in self.store.list("results"):
            for batch in pq.ParquetFile(pa.BufferReader(self.store.read(key))).iter_batches():
                yield from map(ResultRow.from_record, batch.to_pylist())

    def publish(self, rows: Iterable[ResultRow], carried: pa.Schema) -> None:
        """Writes `results/`, the rows in manifest order, `SHARD_ROWS` to a file.

        Published rows of other settings become records again first, so that going back to those settings finds them;
        records that are published now are dropped last. A crash in between leaves nothing out.
        """
        before = {row.row_digest: row for row in self.published()}
        written, shard = [], []

        def close() -> None:
            key = f"results/part-{len(written):05d}.parquet"
            self._write_table(key, to_table(shard, carried))
            written.append(key)
            shard.clear()

        rows = list(rows)
        digests = {row.row_digest for row in rows}
        for row_digest, row in before.items():
            if row_digest not in digests and self.find(row_digest) is None:
                self.commit(row)
        for row in rows:
            shard.append(row)
            if len(shard) == SHARD_ROWS:
                close()
        if shard or not written:
            close()
        for key in set(self.store.list("results")) - set(written):
            self.store.delete(key)
        for key in {self._record_key(row_digest) for row_digest in digests} & set(self.store.list(_RECORDS)):
            self.store.delete(key)

    def _write_table(self, key: str, table: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.store.write(key, buffer.getvalue())

    def replace(self, row: ResultRow) -> None:
        """Puts `row` in the place of the published row with its id; nothing happens before a first publishing."""
        for key in self.store.list("results"):
            table = pq.read_table(pa.BufferReader(self.store.read(key)))
            rows = [ResultRow.from_record(record) for record in table.to_pylist()]
            if any(one.id == row.id for one in rows):
                carried = pa.schema([item for item in table.schema if item.name in row.extra])
                self._write_table(key, to_table([row if one.id == row.id else one for one in rows], carried))
                return

    # The job -------------------------------------------------------------------------------------------------------

    def write_job(self, facts: dict[str, Any]) -> None:
        self.store.write(JOB_KEY, json.dumps(facts, indent=2).encode())

    def read_job(self) -> dict[str, Any]:
        """What was asked. Raises FileNotFoundError when this is not an output folder."""
        return json.loads(self.store.read(JOB_KEY))

    def write_plan(self, row_digests: list[str]) -> None:
        """The rows of the current job, in manifest order."""
        self._write_table(_PLAN, pa.table({"row_digest": pa.array(row_digests, pa.string())}))

    def _plan(self) -> list[str]:
        if not self.store.exists(_PLAN):
            return []
        return pq.read_table(pa.BufferReader(self.store.read(_PLAN)))["row_digest"].to_pylist()

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
        for row in self.current():
            counts[row.status] += 1
        return {
            "output": self.store.uri,
            "rows": job["rows"],
            **counts,
            "pending": job["rows"] - sum(counts.values()),
            "state": state,
            "workers": beat.get("workers", []) if state == "running" else [],
        }
