"""The way of a manifest's rows from the plan through open shards into closed ones. Knows nothing of Ray."""

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.locations import redacted
from manifests.read import extra_columns, numbered_rows, read_schema, validated
from manifests.schema import ManifestRow
from pipelines.errors import JobError
from pipelines.identity import ManifestDigest, row_digest
from pipelines.jobspec import JobRequest, Place, Task
from pipelines.ledger import Ledger
from pipelines.results import FAILED, OK, SKIPPED, ResultRow
from pipelines.retry import is_transient, retrying

_INDEX_BITS = 24  # of a locator: the row within its shard; the rest says which shard


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A manifest that was read through once: how many rows, what identifies them, what is carried."""

    rows: int
    digest: ManifestDigest
    carried: pa.Schema


def survey(request: JobRequest) -> Survey:
    """Reads the manifest through.

    Raises:
        ManifestError: with every problem of the manifest.
        JobError: its store was away for longer than our patience.
    """

    def read() -> Survey:
        carried = extra_columns(read_schema(request.manifest), request.columns).remove_metadata()
        digest = ManifestDigest(str(carried))
        rows = validated(request.manifest, request.columns, request.default_caption, digest.add)
        return Survey(rows=rows, digest=digest, carried=carried)

    try:
        return retrying(read, request.spec.patience)
    except Exception as error:
        if is_transient(error):
            raise _unreadable(request, error) from error
        raise


def _unreadable(request: JobRequest, error: BaseException) -> JobError:
    return JobError(f"the manifest {redacted(request.manifest)} cannot be read: {type(error).__name__}: {error}")


class Earlier:
    """Outcomes that other plans of this output have, by row digest: ok and skipped ones. 16 bytes for every row."""

    def __init__(self, ledger: Ledger, plan: str) -> None:
        self.ledger, self.loose, self.sources = ledger, {}, []
        keys, locators = array("Q"), array("Q")
        for other in ledger.plans():
            if other == plan:
                continue
            for shard, closed in ledger.closed(other).items():
                source = len(self.sources) << _INDEX_BITS
                self.sources.append((other, shard, closed.generation))
                for index, (digest, done) in enumerate(ledger.done_digests(other, shard, closed.generation)):
                    if done:
                        keys.append(int(digest[:16], 16))
                        locators.append(source | index)
            for shard, generation in ledger.open_generations(other).items():
                rows = ledger.records(other, shard, generation).values()
                self.loose |= {row.row_digest: row for row in rows if row.status != FAILED}
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")
        self._keys = np.frombuffer(keys, np.uint64)[order]
        self._locators = np.frombuffer(locators, np.uint64)[order]
        self._shard = lru_cache(maxsize=8)(ledger.shard)

    def find(self, digest: str) -> ResultRow | None:
        """The outcome of a row digest."""
        if digest in self.loose:
            return self.loose[digest]
        key = np.uint64(int(digest[:16], 16))
        first, end = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        for locator in self._locators[first:end].tolist():
            row = self._shard(*self.sources[locator >> _INDEX_BITS])[locator & ((1 << _INDEX_BITS) - 1)]
            if row.row_digest == digest:
                return row
        return None


@dataclass
class _OpenShard:
    number: int
    generation: int
    size: int
    recorded: dict[int, ResultRow]  # committed in this generation, by an earlier run
    previous: dict[int, ResultRow]  # the generation before: outcomes that are kept
    carried: dict[int, dict[str, Any]] = field(default_factory=dict)
    rows: dict[int, ResultRow] = field(default_factory=dict)
    ran: set[int] = field(default_factory=set)


class Plan:
    """One plan at work: what is left of it, and where outcomes go. Memory: the open shards.

    Args:
        settings: digest of what all rows share.
        damaged: row digests that are to be done again.
    """

    def __init__(
        self, request: JobRequest, ledger: Ledger, found: Survey, settings: str, damaged: frozenset[str] = frozenset()
    ) -> None:
        self.request, self.ledger, self.settings, self.carried = request, ledger, settings, found.carried
        self.total, self.size, self.damaged = found.rows, request.shard_rows, damaged
        self.id = found.digest.plan_id(settings, request.shard_rows)
        self.closed = ledger.closed(self.id)
        self.reopened = ledger.open_generations(self.id)
        if request.retry_failed:
            spoilt = {shard for shard, one in self.closed.items() if one.failed} | self._damaged_shards()
            self.reopened |= {shard: self.closed[shard].generation + 1 for shard in spoilt - self.reopened.keys()}
        kept = [one for shard, one in self.closed.items() if shard not in self.reopened]
        self.counts = {
            OK: sum(one.ok for one in kept),
            FAILED: sum(one.failed for one in kept),
            SKIPPED: sum(one.skipped for one in kept),
        }
        self.imported = 0
        self.handed_out = 0  # rows of this run that have no outcome yet
        complete = len(kept) * self.size >= self.total
        self.earlier = None if complete else Earlier(ledger, self.id)
        self._open: dict[int, _OpenShard] = {}

    def _damaged_shards(self) -> set[int]:
        if not self.damaged:
            return set()
        return {
            shard
            for shard, one in self.closed.items()
            if self.damaged & {digest for digest, _ in self.ledger.done_digests(self.id, shard, one.generation)}
        }

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """Rows without an outcome that have not been handed out."""
        return self.total - self.done - self.handed_out

    def tasks(self) -> Iterator[Task]:
        """Streams the manifest; only rows without an outcome, the others are booked on the way."""
        for number, row in self._rows():
            shard_number = number // self.size
            if not self._is_open(shard_number):
                continue
            shard = self._open.get(shard_number) or self._opened(shard_number)
            shard.carried[number] = {"extra": dict(row.extra), "group_id": row.group_id}
            digest = row_digest(row, self.settings)
            known = self._known(shard, number, digest)
            if known is None:
                shard.ran.add(number)
                self.handed_out += 1
                place = Place(plan=self.id, shard=shard_number, generation=shard.generation, row=number)
                yield Task(row=_without_carried(row), row_digest=digest, place=place)
            else:
                self._book(shard, number, known)

    def _rows(self) -> Iterator[tuple[int, ManifestRow]]:
        """The manifest's rows but for closed shards; taken up again where its store failed."""
        request, following, delays = self.request, 0, self.request.spec.patience.delays()
        while True:

            def is_wanted(first: int, end: int, following: int = following) -> bool:
                return end > following and self._is_wanted(first, end)

            try:
                rows = numbered_rows(request.manifest, request.columns, request.default_caption, wanted=is_wanted)
                for number, row in rows:
                    if number >= following:
                        following, delays = number + 1, request.spec.patience.delays()
                        yield number, row
                return
            except Exception as error:
                delay = next(delays, None) if is_transient(error) else None
                if delay is None:
                    raise _unreadable(request, error) from error
                self.ledger.store.on_retry(error, delay)
                time.sleep(delay)

    def _is_open(self, shard: int) -> bool:
        return shard not in self.closed or shard in self.reopened

    def _is_wanted(self, first: int, end: int) -> bool:
        return any(self._is_open(shard) for shard in range(first // self.size, (end - 1) // self.size + 1))

    def _opened(self, number: int) -> _OpenShard:
        generation = self.reopened.get(number, 0)
        previous = {}
        if number in self.closed:
            rows = self.ledger.shard(self.id, number, self.closed[number].generation)
            previous = dict(enumerate(rows, start=number * self.size))
        shard = _OpenShard(
            number=number,
            generation=generation,
            size=min(self.size, self.total - number * self.size),
            recorded=self.ledger.records(self.id, number, generation),
            previous=previous,
        )
        self._open[number] = shard
        return shard

    def _known(self, shard: _OpenShard, number: int, digest: str) -> ResultRow | None:
        if number in shard.recorded:
            return shard.recorded[number]
        if number in shard.previous:
            kept = shard.previous[number]
            again = self.request.retry_failed and (kept.status == FAILED or kept.row_digest in self.damaged)
            return None if again else kept
        found = self.earlier.find(digest) if self.earlier and digest not in self.damaged else None
        self.imported += found is not None
        return found

    def finish(self, place: Place, row: ResultRow) -> None:
        """Takes the outcome of a task; a shard whose rows all have one is closed."""
        self.handed_out -= 1
        self._book(self._open[place.shard], place.row, row)

    def _book(self, shard: _OpenShard, number: int, row: ResultRow) -> None:
        shard.rows[number] = replace(row, **shard.carried.pop(number))
        self.counts[row.status] += 1
        if len(shard.rows) == shard.size:
            self._close(shard)

    def _close(self, shard: _OpenShard) -> None:
        rows, generation = [shard.rows[number] for number in sorted(shard.rows)], shard.generation
        first = shard.number * self.size
        while True:
            stored = self.ledger.close(self.id, shard.number, generation, rows, self.carried)
            mine = {number - first for number in shard.ran if shard.rows[number].status != FAILED}
            if not any(stored[index].status == FAILED for index in mine):
                break
            # Somebody recoloured a row of this shard meanwhile: his file has not what was repaired here.
            rows = [rows[index] if index in mine else row for index, row in enumerate(stored)]
            generation += 1
        del self._open[shard.number]

    def write(self, facts: dict[str, Any]) -> None:
        """Makes this the output's plan: from now on `results/` shows its closed shards and nothing of others."""
        self.ledger.write_plan(self.id, {"rows": self.total, "shard_rows": self.size, "settings": self.settings})
        self.ledger.write_job({**facts, "plan": self.id})
        self.ledger.publish(self.id)


def _without_carried(row: ManifestRow) -> ManifestRow:
    """What a worker needs of a row."""
    return replace(row, extra={})
