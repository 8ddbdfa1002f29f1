"""The record of what is done, in the output store itself.

A plan is a manifest under given settings, cut into shards of consecutive rows. While a shard is open, each of its rows
is committed once, by a conditional create of one record. When all its rows have one, the shard is closed: one Parquet
file, again by conditional create, after which its records are garbage. A later generation of a shard (failed rows
tried again, a row recoloured) is a new file; the highest counts. Objects are stored before the record that names them.

A plan shares the shards that have the same rows with the plan before it. Until it has an outcome for every row, those
of earlier plans stay visible.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pyarrow as pa

from pipelines.ledger.layout import (
    DAMAGED_KEY,
    PLANS,
    Closed,
    record_key,
    shard_key,
    taken_over_key,
)
from pipelines.ledger.plan_store import STATUSES, PlanStore
from pipelines.ledger.results import FAILED, OK, SKIPPED, ResultRow
from pipelines.ledger.shard_file import (
    carried_schema,
    numbered_rows_of,
    numbered_to_parquet,
    origin_of,
    read_table,
    rows_of,
    to_parquet,
)
from pipelines.ledger.task import Place

_READERS = 16  # records read at once
# Names of ours; others in these folders are nobody's business.
_RECORD = re.compile(r"/\d{9}\.\d{6}\.json$")


class Ledger(PlanStore):
    """Plans, records and shards of one output store."""

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
        """The outcomes of an open shard by row number: taken over or committed, amendments included."""
        found = self.store.list(f"{PLANS}/{plan}/rows/{shard:06d}.{generation}")  # sorted: amendments come later
        keys = [key for key in found if _RECORD.search(key)]
        known = self._taken_over(plan, shard) if taken_over_key(plan, shard) in found else {}
        with ThreadPoolExecutor(_READERS) as threads:
            for key, row in zip(keys, threads.map(self._record, keys), strict=True):
                if row:
                    known[int(key.rpartition("/")[2].partition(".")[0])] = row
        return known

    def take_over(self, plan: str, shard: int, rows: dict[int, ResultRow]) -> None:
        """Makes outcomes of other plans those of an open shard, by row number, until it has better ones."""
        self.store.write(taken_over_key(plan, shard), numbered_to_parquet(rows))

    def _taken_over(self, plan: str, shard: int) -> dict[int, ResultRow]:
        try:
            return numbered_rows_of(self.store.read(taken_over_key(plan, shard)))
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # as with a record: done again
            return {}

    def _record(self, key: str) -> ResultRow | None:
        """A record; None if there is none. One that cannot be read is none: its row is done again."""
        try:
            return ResultRow.from_record(json.loads(self.store.read(key)), carried=False)
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # not found: its shard was closed
            return None

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
        key = shard_key(plan, shard, generation)
        content = to_parquet(rows, carried, origin=key)
        if not self.store.create(key, content):
            try:
                there = self.store.read(key)
                rows, content = rows_of(there), there
            except (ValueError, TypeError, KeyError):  # damaged: ours takes its place
                self.store.write(key, content)
        self._show(plan, shard, content)
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
        amended = [key for key in keys if _RECORD.search(key) and not key.endswith(f".{0:06d}.json")]
        if not amended:
            return None
        first, merged = shard * self.plan(plan).shard_rows, list(rows)
        for key in amended:
            index = int(key.rpartition("/")[2].partition(".")[0]) - first
            if (row := self._record(key)) and merged[index].status == OK:
                outputs = {output.key: output for output in (*merged[index].outputs, *row.outputs)}
                merged[index] = replace(merged[index], outputs=tuple(outputs.values()))
        return merged if merged != rows else None

    def _show(self, plan: str, shard: int, content: bytes) -> None:
        """Publishes a shard, unless `results/` would then lack a row that it has, show one twice, or one of a plan that
        is not the output's: `settle` does it in time."""
        try:
            job = self.read_job()
        except FileNotFoundError:
            job = None
        if job and job.plan != plan:
            return
        results = self.results(plan)
        if job and job.previous:
            moves = not job.extends or not results.ids(shard) <= {row.id for row in rows_of(content)}
            if moves:
                return
        results.write(shard, content)

    def _show_what_counts(self, plan: str, shard: int, generation: int) -> None:
        """Publishes the newest generation, in case a faster writer made one meanwhile, and puts back what it wrote over
        if the plan is no longer the output's."""
        while self.store.exists(shard_key(plan, shard, generation + 1)):
            generation += 1
            self._show(plan, shard, self.store.read(shard_key(plan, shard, generation)))
        try:
            job = self.read_job()
        except FileNotFoundError:
            return
        results = self.results(plan)
        if job.plan != plan and results.origin(shard) == shard_key(plan, shard, generation):
            for shown in (job.plan, *job.previous):
                if closed := self.closed(shown).get(shard):
                    results.write(shard, self.shard_content(shown, shard, closed.generation))
                    return

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

    def outcomes(
        self, plan: str, closed: dict[int, Closed] | None = None, where: Callable[[int], bool] | None = None
    ) -> Iterator[tuple[int, int, ResultRow]]:
        """Shard, row number and outcome of every row that has one, in manifest order; a shard at a time in memory.

        Args:
            closed: all closed shards of the plan, if not given.
            where: of which shards; all, if not given.
        """
        closed = self.closed(plan) if closed is None else closed
        opened = self.open_generations(plan, closed)
        for shard in filter(where, sorted({*closed, *opened})) if where else sorted({*closed, *opened}):
            rows = self.merged_outcomes(plan, shard, closed.get(shard), opened.get(shard, ()))
            for number in sorted(rows):
                yield shard, number, rows[number]

    def visible(self, where: Callable[[str, int], bool] | None = None) -> Iterator[tuple[str, int, int, ResultRow]]:
        """Plan, shard, row number and outcome of every row that has one: the current plan's in manifest order; then,
        while that is not complete, those of earlier plans for other rows. Memory: then, the ids.

        Args:
            where: of which plans' shards, by number; all, if not given.
        """
        job = self.read_job()
        seen: set[str] = set()
        for plan in (job.plan, *job.previous):
            for shard, number, row in self.outcomes(plan, where=partial(where, plan) if where else None):
                if not job.previous:
                    yield plan, shard, number, row
                elif row.id not in seen:
                    seen.add(row.id)
                    yield plan, shard, number, row

    def current(self) -> Iterator[ResultRow]:
        """The outcomes of `visible`."""
        for *_, row in self.visible():
            yield row

    def counts(self, plan: str) -> dict[str, int]:
        """How many rows of a plan ended how: closed shards by their markers, open ones by their records."""
        counts = dict.fromkeys(STATUSES, 0)
        closed = self.closed(plan)
        opened = self.open_generations(plan, closed)
        for number, shard in closed.items():
            if number not in opened:
                for name in counts:
                    counts[name] += getattr(shard, name)
        for number, generations in opened.items():
            for row in self.merged_outcomes(plan, number, closed.get(number), generations).values():
                counts[row.status] += 1
        return counts

    # What users read -----------------------------------------------------------------------------------------------

    def publish(self, plan: str) -> None:
        """Shows closed shards of the output's plan that `results/` lacks. Once there is no other plan whose results are
        to be seen, nothing else is shown."""
        closed, job, results = self.closed(plan), self.read_job(), self.results(plan)
        shown = results.shards()
        adopted = self.adopted(plan)
        for shard, one in sorted(closed.items()):
            if shard not in shown or (job.previous and shard not in adopted):
                self._show(plan, shard, self.shard_content(plan, shard, one.generation))
        if not job.previous:
            results.keep(set(closed))

    def settle(self, plan: str) -> None:
        """The plan has an outcome for every row: `results/` shows its shards, and nothing of earlier plans any more.

        Shards of which earlier plans have nothing that this one lacks are deleted when the next plan is complete, so
        that nobody is reading them.
        """
        job = self.read_job()
        if job.plan != plan or not job.previous:
            return
        closed, results = self.closed(plan), self.results(plan)
        shown = results.shards()
        before = {
            shard: self.shard_key(job.previous[0], shard, one.generation)
            for shard, one in self.closed(job.previous[0]).items()
        }
        for shard, one in sorted(closed.items(), reverse=True):  # where rows moved on to later shards, none is missed
            if job.extends and shard in shown and before.get(shard) == self.shard_key(plan, shard, one.generation):
                continue  # the file that was shown is this one's as well
            content = self.shard_content(plan, shard, one.generation)
            if (origin := origin_of(content)) is None or results.origin(shard) != origin:
                results.write(shard, content)
        results.keep(set(closed))
        self.write_job(replace(job, previous=(), extends=False, superseded=job.previous))
        for other in job.superseded:
            if other not in (plan, *job.previous):
                self.forget(other, plan, job.previous)

    def forget(self, other: str, plan: str, kept: Sequence[str]) -> None:
        """Deletes the shards of another plan of which the shard of the same number of `plan` has every row; its other
        files, too, once it has no shard left.

        Args:
            kept: plans whose shared shards stay as well.
        """
        closed, gone = self.closed(plan), []
        sharing = [one for each in (plan, *kept) for one in self.adopted(each).values()]
        used = {one.shard for one in sharing if one.home == other}
        for shard, one in self.own_closed(other).items():
            if shard in used or shard not in closed:
                continue
            there = {digest for digest, _, _ in self.digests(plan, shard, closed[shard].generation)}
            if {digest for digest, _, _ in self.digests(other, shard, one.generation)} <= there:
                gone.append(shard)
        self.store.delete(self.files_of(other, gone))
        self.store.prune(f"{PLANS}/{other}")
        self._facts.pop(other, None)

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
