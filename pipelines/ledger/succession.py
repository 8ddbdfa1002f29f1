"""How a plan follows those before it: which of their shards it shares, which of its rows have a result already, and
until when theirs are seen."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.errors import DamagedFileError, ReplanError
from pipelines.ledger.job_file import JobFile
from pipelines.ledger.layout import PLANS, Adopted, PlanFacts, shard_key
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import OK


class Succession:
    """A plan and those before it.

    Attributes:
        before: what was asked of the output before; None where that is lost, and this plan mends it.
    """

    def __init__(self, ledger: Ledger, plan: str) -> None:
        self.ledger, self.plan = ledger, plan
        try:
            self.before: JobFile | None = ledger.read_job()
        except (FileNotFoundError, DamagedFileError):
            self.before = None

    @property
    def is_same(self) -> bool:
        """Whether it is the output's plan already."""
        return self.before is not None and self.before.plan == self.plan

    @property
    def _seen(self) -> tuple[str, ...]:
        """The other plans whose results are seen, the latest first."""
        plans = (self.before.plan, *self.before.previous) if self.before else ()
        return tuple(plan for plan in plans if plan != self.plan)

    def without_lost(self, facts: PlanFacts) -> PlanFacts:
        """The facts of a plan that the output returns to: files of shards that it shared may have been deleted, since a
        later plan had their rows."""
        homes = {one.home: self.ledger.own_closed(one.home) for one in facts.adopted}
        kept = tuple(one for one in facts.adopted if homes[one.home].get(one.shard) == one.closed)
        return facts if kept == facts.adopted else replace(facts, adopted=kept)

    def adopted(self, facts: PlanFacts) -> tuple[Adopted, ...]:
        """The closed shards that the plan shares with those that are seen, or were until the last one was complete."""
        found: dict[int, Adopted] = {}
        files = set(
            self.ledger.store.list(PLANS)
        )  # that of a shard may have been deleted, since a later plan has its rows
        for other in (*self._seen, *(self.before.superseded if self.before else ())):
            for one in self._shared(facts, other):
                if shard_key(one.home, one.shard, one.closed.generation) in files:
                    found.setdefault(one.shard, one)
        return tuple(found[shard] for shard in sorted(found))

    def _shared(self, facts: PlanFacts, other: str) -> Iterator[Adopted]:
        theirs = self._facts_of(other)
        if theirs is None or (theirs.settings, theirs.shard_rows) != (facts.settings, facts.shard_rows):
            return  # without its facts, its rows are found one by one
        closed, own = self.ledger.closed(other), self.ledger.own_closed(other)
        opened = self.ledger.open_generations(other, closed)
        homes = {one.shard: one.home for one in theirs.adopted}
        for shard, (mine, their) in enumerate(zip(facts.digests, theirs.digests, strict=False)):
            if mine == their and shard in closed and shard not in opened:
                yield Adopted(shard=shard, home=other if shard in own else homes[shard], closed=closed[shard])

    def done(self, facts: PlanFacts) -> "Ids":
        """The rows that have a good result now, but for those of the shards that the plan shares."""
        ids, shared = Ids(), {(one.home, one.shard) for one in facts.adopted}
        for other in self._seen:
            for shard, one in self.ledger.own_closed(other).items():
                if (other, shard) not in shared:
                    rows = self.ledger.digests(other, shard, one.generation)
                    ids.add(row_id for _, status, row_id in rows if status == OK)
            for shard, generations in self.ledger.open_generations(other).items():
                outcomes = self.ledger.merged_outcomes(other, shard, None, generations)
                ids.add(row.id for row in outcomes.values() if row.status == OK)
        return ids.sorted()

    def refuse(self, output: str, settings: str, anew: int) -> None:
        """Raises ReplanError where rows that have a result would be made anew."""
        if not anew or self.before is None:
            return
        theirs = self._facts_of(self.before.plan)
        why = "their captions, prompts, seeds or images' addresses have changed"
        if theirs is None or theirs.settings != settings:
            why = "the models, the preset, an option or the program has changed"
        raise ReplanError(output, anew, why)

    def job(self, job: JobFile, facts: PlanFacts) -> JobFile:
        """What is asked of the output from now on, with the plans that are seen until this one is complete."""
        if self.before is None:
            return job
        if self.is_same:
            same = self.before
            return replace(job, previous=same.previous, extends=same.extends, superseded=same.superseded)
        extends = len(self._seen) == 1 and self._extends(facts, self._seen[0])
        return replace(job, previous=self._seen, extends=extends, superseded=self.before.superseded)

    def _extends(self, facts: PlanFacts, other: str) -> bool:
        theirs = self._facts_of(other)
        return theirs is not None and facts.extends(theirs)

    def _facts_of(self, plan: str) -> PlanFacts | None:
        try:
            return self.ledger.plan(plan)
        except DamagedFileError:
            return None


class Ids:
    """A set of ids of rows in 8 bytes each."""

    def __init__(self) -> None:
        self._hashes: Any = array("Q")

    def add(self, ids: Iterable[str]) -> None:
        self._hashes.extend(map(_hash_of, ids))

    def sorted(self) -> "Ids":
        """Itself, ready to be asked."""
        self._hashes = np.unique(np.frombuffer(self._hashes, np.uint64))
        return self

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, row_id: object) -> bool:
        at = np.searchsorted(self._hashes, wanted := np.uint64(_hash_of(str(row_id))))
        return bool(at < len(self) and self._hashes[at] == wanted)


def _hash_of(row_id: str) -> int:
    return int.from_bytes(hashlib.sha256(row_id.encode()).digest()[:8])
