"""The record of what is done, in the output store itself.

A plan is a manifest under given settings, cut into shards of consecutive rows. While a shard is open, each of its rows
is committed once, by a conditional create of one record. When all its rows have one, the shard is closed: one Parquet
file, again by conditional create, after which its records are garbage. A later generation of a shard (failed rows
tried again, a row recoloured) is a new file; the highest counts. Objects are stored before the record that names them.

"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DamagedFileError, StoreError
from pipelines.ledger.job_file import JobFile
from pipelines.ledger.layout import (
    DAMAGED_KEY,
    JOB_KEY,
    PLANS,
    Closed,
    PlanFacts,
    published_key,
    record_key,
    shard_key,
)
from pipelines.ledger.results import FAILED, OK, SKIPPED, ResultRow
from pipelines.ledger.shard_file import carried_schema, read_table, rows_of, to_parquet
from pipelines.ledger.task import Place
from pipelines.store.store import Store
from pipelines.values import from_values, to_values

_READERS = 16  # records read at once
_STATUSES = (OK, FAILED, SKIPPED)
# Names of ours; others in these folders are nobody's business.
_RECORD = re.compile(r"/\d{9}\.\d{6}\.json$")
_GENERATION = re.compile(r"\d{6}\.\d+")
_MARKER = re.compile(r"/(\d{6}(?:\.\d+){4})$")
_SHARD = re.compile(r"/(\d{6})\.(\d+)\.parquet$")
Value = TypeVar("Value")


class Ledger:
    """Plans, records and shards of one output store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # One row -------------------------------------------------------------------------------------------------------

    def commit(self, place: Place, row: ResultRow, attempt: str) -> ResultRow:
        """Makes `row` the outcome of its place, unless it has one. Everything that it names must be stored already.

        Args:
            attempt: unique to this try, so that a lost reply is told from a lost race.

        Returns:
            The outcome that counts: `row`, or the one that was committed first.
        """
        record = json.dumps({"attempt": attempt, **row.to_record()}).encode()
        if self.store.create(record_key(place), record):
            return row
        return self.find(place) or row  # gone again: the shard was closed meanwhile, by the run that closed it

    def find(self, place: Place) -> ResultRow | None:
        """The record of one row, None without one."""
        return self._record(record_key(place))

    # A shard -------------------------------------------------------------------------------------------------------

    def records(self, plan: str, shard: int, generation: int) -> dict[int, ResultRow]:
        """The committed outcomes of an open shard by row number, amendments included."""
        found = self.store.list(f"{PLANS}/{plan}/rows/{shard:06d}.{generation}")  # sorted: amendments come later
        keys = [key for key in found if _RECORD.search(key)]
        with ThreadPoolExecutor(_READERS) as threads:
            rows = threads.map(self._record, keys)
            return {
                int(key.rpartition("/")[2].partition(".")[0]): row for key, row in zip(keys, rows, strict=True) if row
            }

    def _record(self, key: str) -> ResultRow | None:
        """A record; None if there is none. One that cannot be read is none: its row is done again."""
        try:
            return ResultRow.from_record(json.loads(self.store.read(key)), carried=False)
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # not found: its shard was closed
            return None

    def open_generations(self, plan: str) -> dict[int, list[int]]:
        """Shards with records that may not be in a closed file yet: shard to generations, sorted."""
        closed = self.closed(plan)
        opened: dict[int, list[int]] = {}
        for name in filter(_GENERATION.fullmatch, self.store.folders(f"{PLANS}/{plan}/rows")):
            shard, generation = map(int, name.split("."))
            if shard not in closed or generation > closed[shard].generation:
                opened[shard] = sorted([*opened.get(shard, ()), generation])
        return opened

    def merged_outcomes(
        self, plan: str, shard: int, closed: Closed | None, generations: Sequence[int]
    ) -> dict[int, ResultRow]:
        """The outcomes of a shard by row number: the closed file's, then those of each open generation over them."""
        rows: dict[int, ResultRow] = {}
        if closed:
            first = shard * self.plan(plan).shard_rows
            rows = dict(enumerate(self.shard(plan, shard, closed.generation), start=first))
        for generation in generations:
            for number, row in self.records(plan, shard, generation).items():
                rows[number] = replace(row, extra=rows[number].extra if number in rows else {})
        return rows

    def close(
        self, plan: str, shard: int, generation: int, rows: list[ResultRow], carried: pa.Schema
    ) -> list[ResultRow]:
        """Makes `rows` the outcome of a shard, unless it has one; publishes that outcome and returns it.

        A crash in between leaves the shard open, and closing it again finds what was written.
        """
        content = to_parquet(rows, carried)
        key = shard_key(plan, shard, generation)
        if not self.store.create(key, content):
            try:
                there = self.store.read(key)
                rows, content = rows_of(there), there
            except (ValueError, TypeError, KeyError):  # damaged: ours takes its place
                self.store.write(key, content)
        self.store.write(published_key(plan, shard), content)
        counts = [sum(row.status == status for row in rows) for status in (OK, FAILED, SKIPPED)]
        marker = ".".join(map(str, (f"{shard:06d}", generation, *counts)))
        self.store.write(f"{PLANS}/{plan}/closed/{marker}", b"closed")
        if amended := self._with_amendments(plan, shard, generation, rows):
            return self.close(plan, shard, generation + 1, amended, carried)
        for earlier in range(generation + 1):
            self.store.delete(self.store.list(f"{PLANS}/{plan}/rows/{shard:06d}.{earlier}"))
        self._show_what_counts(plan, shard, generation)
        return rows

    def _with_amendments(self, plan: str, shard: int, generation: int, rows: list[ResultRow]) -> list[ResultRow] | None:
        """The rows with amendments that were written before the shard was marked closed and are not in its file yet;
        None if there are none. Later ones see the mark."""
        keys = self.store.list(f"{PLANS}/{plan}/rows/{shard:06d}.{generation}")
        amended = [key for key in keys if not key.endswith(f".{0:06d}.json")]
        if not amended:
            return None
        first, merged = shard * self.plan(plan).shard_rows, list(rows)
        for key in amended:
            index = int(key.rpartition("/")[2].partition(".")[0]) - first
            if (row := self._record(key)) and merged[index].status == OK:
                outputs = {output.key: output for output in (*merged[index].outputs, *row.outputs)}
                merged[index] = replace(merged[index], outputs=tuple(outputs.values()))
        return merged if merged != rows else None

    def _show_what_counts(self, plan: str, shard: int, generation: int) -> None:
        """Publishes the newest generation, in case a faster writer made one meanwhile, and nothing of a plan that is no
        longer the output's."""
        key = published_key(plan, shard)
        while self.store.exists(shard_key(plan, shard, generation + 1)):
            generation += 1
            self.store.write(key, self.store.read(shard_key(plan, shard, generation)))
        try:
            current = self.read_job().plan
        except FileNotFoundError:
            return
        if current != plan:
            self.store.delete(key)

    def closed(self, plan: str) -> dict[int, Closed]:
        """The closed shards, from their markers. A shard's file that has lost its marker counts as well, unless there
        are records still: then its closing was interrupted, and is done again."""
        found: dict[int, Closed] = {}
        for key in self.store.list(f"{PLANS}/{plan}/closed"):
            if name := _MARKER.search(key):
                shard, *counts = map(int, name[1].split("."))
                if shard not in found or counts[0] > found[shard].generation:
                    found[shard] = Closed(*counts)
        unmarked = [
            (int(name[1]), int(name[2]))
            for key in self.store.list(f"{PLANS}/{plan}/shards")
            if (name := _SHARD.search(key))
            and (int(name[1]) not in found or int(name[2]) > found[int(name[1])].generation)
        ]
        for shard, generation in sorted(unmarked):
            if not self.store.list(f"{PLANS}/{plan}/rows/{shard:06d}.{generation}"):
                rows = self.shard(plan, shard, generation)
                found[shard] = Closed(generation, *(sum(row.status == kind for row in rows) for kind in _STATUSES))
        return found

    def shard(self, plan: str, shard: int, generation: int) -> list[ResultRow]:
        """The rows of a closed shard; those of its published copy where its own file is lost or damaged.

        Raises:
            DamagedFileError: both are.
        """
        return rows_of(self.shard_content(plan, shard, generation))

    def shard_content(self, plan: str, shard: int, generation: int) -> bytes:
        """A closed shard's file, or its published copy; see `shard`."""
        key, fault = shard_key(plan, shard, generation), None
        for place in (key, published_key(plan, shard)):
            try:
                content = self.store.read(place)
                read_table(content)
                return content
            except StoreError:
                raise
            except (OSError, ValueError, TypeError, KeyError) as error:  # as Arrow raises of files that are none
                fault = fault or error
        assert fault is not None
        raise DamagedFileError(self.store.uri, key, fault)

    def _parsed(self, key: str, parse: Callable[[bytes], Value]) -> Value:
        """A file of ours.

        Raises:
            FileNotFoundError: there is none.
            DamagedFileError: it cannot be read.
        """
        content = self.store.read(key)
        try:
            return parse(content)
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedFileError(self.store.uri, key, error) from error

    def amend(self, plan: str, shard: int, number: int, change: Callable[[ResultRow], ResultRow]) -> ResultRow:
        """Changes one outcome, even while others write: by a further record in an open shard, by a new generation of a
        closed one. Tried again until it is in what counts; `change` of a changed row must change nothing."""
        while True:
            opened, closed = self.open_generations(plan).get(shard), self.closed(plan).get(shard)
            index = number - shard * self.plan(plan).shard_rows
            if opened:
                place = Place(plan=plan, shard=shard, generation=opened[-1], row=number)
                before = self.merged_outcomes(plan, shard, closed, opened)[number]
                changed = change(before)
                if changed != before:
                    folder = record_key(place).rpartition("/")[0]
                    later = sum(key.startswith(f"{folder}/{number:09d}.") for key in self.store.list(folder))
                    self.store.create(record_key(place, max(later, 1)), json.dumps(changed.to_record()).encode())
                elif self.open_generations(plan).get(shard) == opened:  # not closed without us while we wrote
                    return changed
            elif closed is not None:
                table = read_table(self.shard_content(plan, shard, closed.generation))
                rows = [ResultRow.from_record(record) for record in table.to_pylist()]
                changed = change(rows[index])
                if changed == rows[index]:
                    return changed
                rows[index] = changed
                self.close(plan, shard, closed.generation + 1, rows, carried_schema(table.schema))
            else:
                raise KeyError(f"shard {shard} of plan {plan} has no outcomes")

    # All rows ------------------------------------------------------------------------------------------------------

    def outcomes(self, plan: str) -> Iterator[tuple[int, int, ResultRow]]:
        """Shard, row number and outcome of every row that has one, in manifest order; a shard at a time in memory."""
        closed, opened = self.closed(plan), self.open_generations(plan)
        for shard in sorted({*closed, *opened}):
            rows = self.merged_outcomes(plan, shard, closed.get(shard), opened.get(shard, ()))
            for number in sorted(rows):
                yield shard, number, rows[number]

    def current(self) -> Iterator[ResultRow]:
        """The outcomes of the current plan's rows, in manifest order; rows without one are left out."""
        for _, _, row in self.outcomes(self.read_job().plan):
            yield row

    # Plans ---------------------------------------------------------------------------------------------------------

    def write_plan(self, plan: str, facts: PlanFacts) -> None:
        self.store.write(f"{PLANS}/{plan}/plan.json", json.dumps(to_values(facts), indent=2).encode())

    def plan(self, plan: str) -> PlanFacts:
        """What `write_plan` wrote.

        Raises:
            DamagedFileError: it is lost, or cannot be read.
        """
        key = f"{PLANS}/{plan}/plan.json"
        try:
            return self._parsed(key, lambda content: from_values(json.loads(content), PlanFacts))
        except FileNotFoundError as error:
            raise DamagedFileError(self.store.uri, key, error) from error

    def plans(self) -> list[str]:
        """Ids of all plans that this output has seen."""
        return self.store.folders(PLANS)

    def done_digests(self, plan: str, shard: int, generation: int) -> list[tuple[str, bool]]:
        """Of each row of a closed shard its digest, and whether it is ok or skipped; reads those columns only."""
        path = self.shard_content(plan, shard, generation)
        table = pq.read_table(pa.BufferReader(path), columns=["row_digest", "status"])
        return [(key, status != FAILED) for key, status in zip(*table.to_pydict().values(), strict=True)]

    def publish(self, plan: str) -> None:
        """Makes `results/` show the closed shards of this plan, and nothing else."""
        wanted = {published_key(plan, shard): (shard, one.generation) for shard, one in self.closed(plan).items()}
        shown = set(self.store.list("results"))
        self.store.delete(sorted(shown - wanted.keys()))
        for key in sorted(wanted.keys() - shown):
            self.store.write(key, self.shard_content(plan, *wanted[key]))

    # Damage --------------------------------------------------------------------------------------------------------

    def damaged(self) -> dict[str, list[str]]:
        """What `verify` found missing or damaged: files by the digest of their row."""
        try:
            return dict(json.loads(self.store.read(DAMAGED_KEY)))
        except (FileNotFoundError, ValueError, TypeError):  # `verify` writes it anew
            return {}

    def write_damaged(self, files: dict[str, list[str]]) -> None:
        """What `submit --retry-failed` is to do again."""
        if files != self.damaged():
            self.store.write(DAMAGED_KEY, json.dumps(files).encode())

    # The job -------------------------------------------------------------------------------------------------------

    def write_job(self, job: JobFile) -> None:
        self.store.write(JOB_KEY, job.to_bytes())

    def read_job(self) -> JobFile:
        """What was asked.

        Raises:
            FileNotFoundError: not an output folder.
            DamagedFileError: its job file is damaged.
        """
        return self._parsed(JOB_KEY, JobFile.from_bytes)
