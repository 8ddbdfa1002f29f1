"""Tracks which rows of a manifest are pending, in open shards, or in closed shards."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from diffcolor.identity import ModelIdentity
from manifests.locations import redacted
from manifests.read import numbered_rows, stamp
from manifests.schema import ManifestRow
from pipelines.errors import DamagedFileError, JobError
from pipelines.job import JobRequest
from pipelines.ledger.identity import row_digest
from pipelines.ledger.job_file import JobFile
from pipelines.ledger.layout import Closed, PlanFacts
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.manifest_summary import ManifestSummary, unreadable
from pipelines.ledger.prior_results import PriorResults
from pipelines.ledger.results import FAILED, OK, SKIPPED, Output, OutputKey, ResultRow
from pipelines.ledger.succession import Succession
from pipelines.ledger.task import Place, Task
from pipelines.store.retry import is_transient


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
    """One plan at work: which of its rows are pending, and where outcomes go. Memory: the open shards.

    Args:
        settings: digest of what all rows share.
        damaged: files of rows that are to be done again, by row digest; those that were are left out in time.
    """

    def __init__(
        self,
        request: JobRequest,
        ledger: Ledger,
        manifest: ManifestSummary,
        settings: str,
        damaged: dict[str, list[str]] | None = None,
    ) -> None:
        self.request, self.ledger, self.settings, self.carried = request, ledger, settings, manifest.carried
        self.total, self.size, self.stamp = manifest.rows, request.shard_rows, manifest.stamp
        self.damaged = damaged or {}
        self.id = manifest.digest.plan_id(settings)
        self.succession = Succession(ledger, self.id)
        self.facts = self._facts(manifest)
        if self.is_new:
            ledger.remember(self.id, self.facts)
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
        if not self.succession.is_same:
            shared = [one.closed for one in self.facts.adopted]
            self.imported = sum(one.ok + one.failed + one.skipped for one in shared)
        self.handed_out = 0  # rows of this run that have no outcome yet
        complete = len(kept) * self.size >= self.total
        self.prior = None if complete else PriorResults(ledger, self.id, self.facts, not request.retry_failed)
        self._open: dict[int, _OpenShard] = {}

    def _damaged_shards(self) -> set[int]:
        if not self.damaged:
            return set()
        return {
            shard
            for shard, one in self.closed.items()
            if any(digest in self.damaged for digest, *_ in self.ledger.digests(self.id, shard, one.generation))
        }

    def _facts(self, manifest: ManifestSummary) -> PlanFacts:
        """What is known of this plan already, or which shards it shares with those before it."""
        try:
            facts, self.is_new = self.ledger.plan(self.id), False
            if self.succession.is_same:
                return facts
            kept = self.succession.without_lost(facts)
            self.is_new = kept != facts
            return kept
        except DamagedFileError:
            self.is_new = True
        facts = PlanFacts(
            rows=self.total,
            shard_rows=self.size,
            settings=self.settings,
            digests=manifest.digest.shards,
            ids=manifest.digest.ids,
        )
        return replace(facts, adopted=self.succession.adopted(facts))

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """Rows without an outcome that have not been handed out."""
        return self.total - self.done - self.handed_out

    def tasks(self) -> Iterator[Task | None]:
        """Streams the manifest's rows that have no outcome; the others are entered on the way.

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
                self._enter(shard, number, known)
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
                rows = numbered_rows(request.manifest, request.columns, request.defaults, wanted=is_wanted)
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
                    raise unreadable(request, error) from error
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
            known = self.ledger.merged_outcomes(self.id, number, closed, generations[:-1])
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
        found = self.prior.find(digest) if self.prior and digest not in self.damaged else None
        self.imported += found is not None
        return found

    def _recolored(self, before: ResultRow | None, row: ManifestRow) -> tuple[Output, ...]:
        """The recolourings that a row keeps when it is done again. They go into its record, whatever its outcome, so
        that nothing can come in between."""
        if before is None:
            return ()
        spoilt = self.damaged.get(before.row_digest, ())
        hints = tuple(str(place) for place in row.color_places)
        reference = redacted(row.reference) if row.reference else None
        own = {OutputKey(prompt, hints, reference) for prompt in row.target_prompts}
        return tuple(
            output
            for output in before.outputs
            if output.source == "recolor" and output.image not in spoilt and output.key not in own
        )

    def finish(self, place: Place, row: ResultRow) -> None:
        """Takes the outcome of a task; a shard whose rows all have one is closed."""
        self.handed_out -= 1
        shard = self._open[place.shard]
        if row.status == OK:
            self.damaged.pop(row.row_digest, None)
        self._enter(shard, place.row, row)

    def _enter(self, shard: _OpenShard, number: int, row: ResultRow) -> None:
        carried = shard.carried.pop(number)
        shard.rows[number] = replace(row, **carried)
        self.counts[row.status] += 1
        if len(shard.rows) == shard.size:
            self._close(shard)

    def _close(self, shard: _OpenShard) -> None:
        del self._open[shard.number]
        if self.request.dry_run:
            return
        rows = [row for _, row in sorted(shard.rows.items())]
        first, generation = shard.number * self.size, shard.generation
        while True:
            stored = self.ledger.close(self.id, shard.number, generation, rows, self.carried)
            ran = {number - first for number in shard.ran}
            if generation == 0 or all(_same(stored[index], rows[index]) for index in ran):
                return
            # A row of this shard was recoloured meanwhile: that shard file lacks the rows that we ran again.
            rows = [rows[index] if index in ran else row for index, row in enumerate(stored)]
            generation = self.ledger.closed(self.id)[shard.number].generation + 1

    def write(self, models: ModelIdentity) -> None:
        """Makes this the output's plan. What earlier plans have of its rows is its own from then on; what they have of
        others stays visible until it is complete.

        Raises:
            ReplanError: rows that have a result would be made anew, and nobody has said that they may.
        """
        if not self.succession.is_same and not self.request.replan:
            # Before anything is written, so that asking twice is asking twice.
            self.succession.refuse(redacted(self.request.spec.output), self.settings, self.anew())
        if self.is_new:
            self.ledger.write_plan(self.id, self.facts)
        if not self.succession.is_same:
            self._take_over()
        job = JobFile.of(self.request, self.total, models, self.id)
        self.ledger.write_job(self.succession.job(job, self.facts))
        self.ledger.publish(self.id)

    def complete(self) -> None:
        """Every row has an outcome: what earlier plans have is seen no longer."""
        self.ledger.settle(self.id)

    def anew(self) -> int:
        """How many rows have a result now and would be made anew."""
        return self._take_over(write=False)

    def _take_over(self, write: bool = True) -> int:
        """Enters what other plans have of the rows of open shards, whole shards and others; returns how many rows that
        have a result now are not among them."""
        done, anew = self.succession.done(self.facts), 0
        if self.prior is None or (self.prior.is_empty and not self.generations):
            return len(done) if self.prior else 0
        for shard, numbered in groupby(self._rows(), key=lambda one: one[0] // self.size):
            if shard in self.closed:
                continue
            begun = self.generations.get(shard)
            known_here = self.ledger.merged_outcomes(self.id, shard, None, begun) if begun else {}
            found: dict[int, ResultRow] = {}
            for number, row in numbered:
                if number in known_here:
                    continue
                digest = row_digest(row, self.settings)
                known = self.prior.find(digest) if digest not in self.damaged else None
                if known:
                    found[number] = replace(known, extra=dict(row.extra), group_id=row.group_id)
                else:
                    anew += row.id in done
            if found and write and not begun:
                self._enter_all(shard, found)
        return anew

    def _enter_all(self, shard: int, found: dict[int, ResultRow]) -> None:
        """Makes outcomes of other plans those of a shard."""
        self.imported += len(found)
        if len(found) < min(self.size, self.total - shard * self.size):
            self.ledger.take_over(self.id, shard, found)
            self.generations[shard] = [0]
            self.reopened.add(shard)
            return
        self.ledger.close(self.id, shard, 0, list(found.values()), self.carried)
        counts = Counter(row.status for row in found.values())
        self.closed[shard] = Closed(0, counts[OK], counts[FAILED], counts[SKIPPED])
        for status in self.counts:
            self.counts[status] += counts[status]


def _same(one: ResultRow, other: ResultRow) -> bool:
    """Whether two outcomes of a row are the same; an additional recolouring does no harm."""
    return (one.status, one.artifact_sha256) == (other.status, other.artifact_sha256) and one.files >= other.files
