"""The way of a manifest's rows from the plan through open shards into closed ones. Knows nothing of Ray."""

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.errors import ManifestError, Problem
from manifests.locations import absolute, redacted
from manifests.read import extra_columns, numbered_rows, read_schema, stamp, validated
from manifests.schema import ManifestRow
from pipelines.errors import JobError
from pipelines.job import JobRequest
from pipelines.ledger.identity import ManifestDigest, row_digest
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import FAILED, OK, SKIPPED, Output, ResultRow
from pipelines.ledger.task import Place, Task
from pipelines.store.retry import is_transient, retrying

_NAMED_PROBLEMS = 10
_INDEX_BITS = 24  # of a locator: the row within its shard; the rest says which shard


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A manifest that was read through once: how many rows, what identifies them, what is carried; its files' stamp."""

    rows: int
    digest: ManifestDigest
    carried: pa.Schema
    stamp: list[tuple]


def survey(request: JobRequest) -> Survey:
    """Reads the manifest through.

    Raises:
        ManifestError: with every problem of the manifest.
        JobError: its store was away for longer than our patience.
    """

    def read() -> Survey:
        carried = extra_columns(read_schema(request.manifest), request.columns).remove_metadata()
        digest = ManifestDigest(str(carried))
        before, place, inside = stamp(request.manifest), f"{absolute(request.spec.output).rstrip('/')}/", []

        def seen(row: ManifestRow) -> None:
            digest.add(row)
            if row.image and absolute(row.image).startswith(place) and len(inside) < _NAMED_PROBLEMS:
                message = f"{redacted(row.image)} is inside the output; choose another --output, where no master is"
                inside.append(Problem("unsafe_output", None, row.id, message))

        rows = validated(request.manifest, request.columns, request.default_caption, seen)
        if inside:
            raise ManifestError(request.manifest, inside)
        return Survey(rows=rows, digest=digest, carried=carried, stamp=before)

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
            for shard, generations in ledger.open_generations(other).items():
                rows = ledger.known(other, shard, None, generations).values()
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
    known: dict[int, ResultRow]  # what earlier runs left
    carried: dict[int, dict[str, Any]] = field(default_factory=dict)
    rows: dict[int, ResultRow] = field(default_factory=dict)
    ran: set[int] = field(default_factory=set)


class Plan:
    """One plan at work: what is left of it, and where outcomes go. Memory: the open shards.

    Args:
        settings: digest of what all rows share.
        damaged: files of rows that are to be done again, by row digest; those that were are left out in time.
    """

    def __init__(
        self,
        request: JobRequest,
        ledger: Ledger,
        found: Survey,
        settings: str,
        damaged: dict[str, list[str]] | None = None,
    ) -> None:
        self.request, self.ledger, self.settings, self.carried = request, ledger, settings, found.carried
        self.total, self.size, self.damaged, self.stamp = found.rows, request.shard_rows, damaged or {}, found.stamp
        self.id = found.digest.plan_id(settings, request.shard_rows)
        self.closed = ledger.closed(self.id)
        self.generations = ledger.open_generations(self.id)
        self.reopened = set(self.generations)
        if request.retry_failed:
            self.reopened |= {shard for shard, one in self.closed.items() if one.failed} | self._damaged_shards()
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
            if any(digest in self.damaged for digest, _ in self.ledger.done_digests(self.id, shard, one.generation))
        }

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """Rows without an outcome that have not been handed out."""
        return self.total - self.done - self.handed_out

    def tasks(self) -> Iterator[Task | None]:
        """Streams the manifest; only rows without an outcome, the others are booked on the way.

        None: a shard was closed without any work, which may have taken a moment.
        """
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
                kept = self._recolored(shard.known.get(number), row)
                yield Task(row=replace(row, extra={}), row_digest=digest, place=place, kept=kept)
            else:
                self._book(shard, number, known)
                if shard_number not in self._open:
                    yield None

    def _rows(self) -> Iterator[tuple[int, ManifestRow]]:
        """The manifest's rows but for closed shards; taken up again where its store failed."""
        request, following, delays = self.request, 0, self.request.spec.patience.delays()
        while True:

            def is_wanted(first: int, end: int, following: int = following) -> bool:
                return end > following and self._is_wanted(first, end)

            try:
                self._check_unchanged()
                rows = numbered_rows(request.manifest, request.columns, request.default_caption, wanted=is_wanted)
                for number, row in rows:
                    if number >= following:
                        following, delays = number + 1, request.spec.patience.delays()
                        yield number, row
                return
            except Exception as error:
                if not is_transient(error):
                    raise
                delay = next(delays, None)
                if delay is None:
                    raise _unreadable(request, error) from error
                self.ledger.store.on_retry(error, delay)
                time.sleep(delay)

    def _check_unchanged(self) -> None:
        if stamp(self.request.manifest) != self.stamp:
            raise JobError(f"the manifest {redacted(self.request.manifest)} changed meanwhile; submit again")

    def check_complete(self) -> None:
        """Raises JobError when rows are left though the manifest has ended: it is not the one that was read before."""
        if self.done < self.total:
            self._check_unchanged()
            raise JobError(
                f"{self.total - self.done} rows have no outcome though nothing is left to do; please report it"
            )

    def _is_open(self, shard: int) -> bool:
        return shard not in self.closed or shard in self.reopened

    def _is_wanted(self, first: int, end: int) -> bool:
        return any(self._is_open(shard) for shard in range(first // self.size, (end - 1) // self.size + 1))

    def _opened(self, number: int) -> _OpenShard:
        generations, closed = self.generations.get(number, []), self.closed.get(number)
        known, recorded, generation = {}, {}, closed.generation + 1 if closed else 0
        if closed or generations:
            known = self.ledger.known(self.id, number, closed, generations[:-1])
        if generations:
            generation = generations[-1]
            recorded = self.ledger.records(self.id, number, generation)
            generation += any(map(self._is_again, recorded.values()))  # its place in that generation is taken
        shard = _OpenShard(
            number=number,
            generation=generation,
            size=min(self.size, self.total - number * self.size),
            known=known | recorded,
        )
        self._open[number] = shard
        return shard

    def _is_again(self, row: ResultRow) -> bool:
        """Whether an outcome is to be replaced by another try."""
        return self.request.retry_failed and (row.status == FAILED or row.row_digest in self.damaged)

    def _known(self, shard: _OpenShard, number: int, digest: str) -> ResultRow | None:
        if number in shard.known:
            return None if self._is_again(shard.known[number]) else shard.known[number]
        found = self.earlier.find(digest) if self.earlier and digest not in self.damaged else None
        self.imported += found is not None
        return found

    def _recolored(self, before: ResultRow | None, row: ManifestRow) -> tuple[Output, ...]:
        """What a row that is done again keeps: they go into its record, whatever its outcome, so that nothing can come
        in between."""
        if before is None:
            return ()
        spoilt = self.damaged.get(before.row_digest, ())
        return tuple(
            one
            for one in before.outputs
            if one.source == "recolor" and one.image not in spoilt and one.prompt not in row.target_prompts
        )

    def finish(self, place: Place, row: ResultRow) -> None:
        """Takes the outcome of a task; a shard whose rows all have one is closed."""
        self.handed_out -= 1
        shard = self._open[place.shard]
        if row.status == OK:
            self.damaged.pop(row.row_digest, None)
        self._book(shard, place.row, row)

    def _book(self, shard: _OpenShard, number: int, row: ResultRow) -> None:
        carried = shard.carried.pop(number)
        shard.rows[number] = None if self.request.dry_run else replace(row, **carried)
        self.counts[row.status] += 1
        if len(shard.rows) == shard.size:
            self._close(shard)

    def _close(self, shard: _OpenShard) -> None:
        rows, generation = [shard.rows[number] for number in sorted(shard.rows)], shard.generation
        first = shard.number * self.size
        while not self.request.dry_run:
            stored = self.ledger.close(self.id, shard.number, generation, rows, self.carried)
            ran = {number - first for number in shard.ran}
            if generation == 0 or all(_same(stored[index], rows[index]) for index in ran):
                break
            # Somebody recoloured a row of this shard meanwhile: his file has not what was done again here.
            rows = [rows[index] if index in ran else row for index, row in enumerate(stored)]
            generation = self.ledger.closed(self.id)[shard.number].generation + 1
        del self._open[shard.number]

    def write(self, facts: dict[str, Any]) -> None:
        """Makes this the output's plan: from now on `results/` shows its closed shards and nothing of others."""
        self.ledger.write_plan(self.id, {"rows": self.total, "shard_rows": self.size, "settings": self.settings})
        self.ledger.write_job({**facts, "plan": self.id})
        self.ledger.publish(self.id)


def _same(one: ResultRow, other: ResultRow) -> bool:
    """Whether two outcomes of a row are one; a recolouring more does no harm."""
    return (one.status, one.artifact_sha256) == (other.status, other.artifact_sha256) and one.files >= other.files
