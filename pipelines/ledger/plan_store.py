"""Plans and their closed shards, as files of the output store."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DamagedFileError, StoreError
from pipelines.ledger.job_file import JobFile
from pipelines.ledger.layout import JOB_KEY, PLANS, Adopted, Closed, PlanFacts, shard_key
from pipelines.ledger.results import FAILED, OK, SKIPPED, ResultRow
from pipelines.ledger.results_folder import ResultsFolder
from pipelines.ledger.shard_file import origin_of, read_table, rows_of
from pipelines.store.store import Store
from pipelines.values import from_values, to_values

STATUSES = (OK, FAILED, SKIPPED)
# Names of ours; others in these folders are nobody's business.
_GENERATION = re.compile(r"\d{6}\.\d+")
_MARKER = re.compile(r"/(\d{6}(?:\.\d+){4})$")
_SHARD = re.compile(r"/(\d{6})\.(\d+)\.parquet$")
Value = TypeVar("Value")


class PlanStore:
    """The job file, the plans and the closed shards of one output store; see `Ledger`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._facts: dict[str, PlanFacts] = {}

    # The job and its plans -------------------------------------------------------------------------------------------

    def write_job(self, job: JobFile) -> None:
        self.store.write(JOB_KEY, job.to_bytes())

    def read_job(self) -> JobFile:
        """What was asked.

        Raises:
            FileNotFoundError: not an output folder.
            DamagedFileError: its job file is damaged.
        """
        return self._parsed(JOB_KEY, JobFile.from_bytes)

    def write_plan(self, plan: str, facts: PlanFacts) -> None:
        self.store.write(f"{PLANS}/{plan}/plan.json", json.dumps(to_values(facts), indent=2).encode())
        self.remember(plan, facts)

    def remember(self, plan: str, facts: PlanFacts) -> None:
        """Makes them the facts of a plan that may not be written yet."""
        self._facts[plan] = facts

    def plan(self, plan: str) -> PlanFacts:
        """What `write_plan` wrote.

        Raises:
            DamagedFileError: it is lost, or cannot be read.
        """
        key = f"{PLANS}/{plan}/plan.json"
        try:
            if plan not in self._facts:
                self._facts[plan] = self._parsed(key, lambda content: from_values(json.loads(content), PlanFacts))
            return self._facts[plan]
        except FileNotFoundError as error:
            raise DamagedFileError(self.store.uri, key, error) from error

    def plans(self) -> list[str]:
        """Ids of all plans that this output has seen."""
        return self.store.folders(PLANS)

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

    # Closed shards ---------------------------------------------------------------------------------------------------

    def closed(self, plan: str) -> dict[int, Closed]:
        """The closed shards: those that the plan shares with others, and its own."""
        return {shard: one.closed for shard, one in self.adopted(plan).items()} | self.own_closed(plan)

    def own_closed(self, plan: str) -> dict[int, Closed]:
        """The shards that the plan itself has closed, from their markers. A shard's file that has lost its marker
        counts as well, unless there are records still: then its closing was interrupted, and is done again."""
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
                found[shard] = Closed(generation, *(sum(row.status == kind for row in rows) for kind in STATUSES))
        return found

    def adopted(self, plan: str) -> dict[int, Adopted]:
        """The shards that a plan shares with earlier ones."""
        try:
            return {one.shard: one for one in self.plan(plan).adopted}
        except DamagedFileError as error:
            if isinstance(error.error, FileNotFoundError):  # it has shared nothing yet, or is taken over again
                return {}
            raise

    def open_generations(self, plan: str, closed: dict[int, Closed] | None = None) -> dict[int, list[int]]:
        """Shards with records that may not be in a closed file yet: shard to generations, sorted."""
        closed = self.closed(plan) if closed is None else closed
        opened: dict[int, list[int]] = {}
        for name in filter(_GENERATION.fullmatch, self.store.folders(f"{PLANS}/{plan}/rows")):
            shard, generation = map(int, name.split("."))
            if shard not in closed or generation > closed[shard].generation:
                opened[shard] = sorted([*opened.get(shard, ()), generation])
        return opened

    def shard(self, plan: str, shard: int, generation: int) -> list[ResultRow]:
        """The rows of a closed shard; those of its published copy where its own file is lost or damaged.

        Raises:
            DamagedFileError: both are.
        """
        return rows_of(self.shard_content(plan, shard, generation))

    def shard_content(self, plan: str, shard: int, generation: int) -> bytes:
        """A closed shard's file, or its published copy; see `shard`."""
        key, fault = self.shard_key(plan, shard, generation), None
        copy = ResultsFolder(self.store).key(shard)
        for place in (key, copy, ResultsFolder(self.store, plan).key(shard)):  # the last: version 0.1.0
            try:
                content = self.store.read(place)
                read_table(content)
                if place != copy or origin_of(content) == key:
                    return content
            except StoreError:
                raise
            except (OSError, ValueError, TypeError, KeyError) as error:  # as Arrow raises of files that are none
                fault = fault or error
        assert fault is not None
        raise DamagedFileError(self.store.uri, key, fault)

    def shard_key(self, plan: str, shard: int, generation: int) -> str:
        """Where a closed shard's file is: with the plan that closed it."""
        adopted = self.adopted(plan).get(shard)
        return shard_key(
            adopted.home if adopted and adopted.closed.generation == generation else plan, shard, generation
        )

    def digests(self, plan: str, shard: int, generation: int) -> list[tuple[str, str, str]]:
        """Of each row of a closed shard its digest, status and id; reads those columns only."""
        content = self.shard_content(plan, shard, generation)
        table = pq.read_table(pa.BufferReader(content), columns=["row_digest", "status", "id"])
        return list(zip(*(table[name].to_pylist() for name in ("row_digest", "status", "id")), strict=True))

    def results(self, plan: str) -> ResultsFolder:
        """Where a plan's shards are shown."""
        try:
            return ResultsFolder(self.store, None if self.plan(plan).digests else plan)
        except DamagedFileError:
            return ResultsFolder(self.store)

    def files_of(self, plan: str, shards: Collection[int]) -> list[str]:
        """The keys of some of a plan's own shards; of the whole plan, where it has no others."""
        files = self.store.list(f"{PLANS}/{plan}")
        if len(shards) == len(self.own_closed(plan)) and not self.open_generations(plan):
            return files
        return [key for key in files if any(f"/{shard:06d}." in key for shard in shards)]

    def reopen(self, plan: str, shard: int, generation: int) -> None:
        """Forgets a generation of a closed shard whose file is lost: the one before it counts again, or its rows are
        pending."""
        facts = self.plan(plan)
        kept = tuple(one for one in facts.adopted if (one.shard, one.closed.generation) != (shard, generation))
        if kept != facts.adopted:
            self.write_plan(plan, replace(facts, adopted=kept))
        files = [key for folder in ("closed", "shards") for key in self.store.list(f"{PLANS}/{plan}/{folder}")]
        lost = [key for key in files if f"/{shard:06d}.{generation}." in key]
        self.store.delete([*lost, self.results(plan).key(shard)])
