"""Results that other plans of an output have already: they are taken over instead of being made again."""

import re
from array import array
from functools import lru_cache

import numpy as np

from pipelines.ledger.layout import PLANS, PlanFacts
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import FAILED, ResultRow

_FILE = re.compile(rf"{PLANS}/(?P<plan>[^/]+)/(?:rows|shards)/(?P<shard>\d{{6}})\.")
_INDEX_BITS = 24  # of a locator: the row within its shard; the rest says which shard


class PriorResults:
    """The outcomes of an output's other plans under the same settings, by row digest. Memory: 16 bytes for every row.

    Args:
        facts: of the plan; shards that it shares with others have none of its other rows.
        failures: whether failed rows count as well.
    """

    def __init__(self, ledger: Ledger, plan: str, facts: PlanFacts, failures: bool) -> None:
        self.ledger = ledger
        self.open_rows: dict[str, ResultRow] = {}
        self.sources: list[tuple[str, int, int]] = []
        keys, locators = array("Q"), array("Q")
        shared = {(one.home, one.shard) for one in facts.adopted}
        for other in _with_more(ledger.store.list(PLANS), plan, shared):
            if ledger.plan(other).settings != facts.settings:  # another digest for every row
                continue
            for shard, closed in ledger.own_closed(other).items():
                if (other, shard) in shared:
                    continue
                source = len(self.sources) << _INDEX_BITS
                self.sources.append((other, shard, closed.generation))
                for index, (digest, status, _) in enumerate(ledger.digests(other, shard, closed.generation)):
                    if failures or status != FAILED:
                        keys.append(int(digest[:16], 16))
                        locators.append(source | index)
            for shard, generations in ledger.open_generations(other).items():
                rows = ledger.merged_outcomes(other, shard, None, generations).values()
                self.open_rows |= {row.row_digest: row for row in rows if failures or row.status != FAILED}
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")
        self._keys = np.frombuffer(keys, np.uint64)[order]
        self._locators = np.frombuffer(locators, np.uint64)[order]
        self._shard = lru_cache(maxsize=8)(ledger.shard)

    @property
    def is_empty(self) -> bool:
        return not len(self._keys) and not self.open_rows

    def find(self, digest: str) -> ResultRow | None:
        """The outcome of a row digest; of several, none that failed if there is another."""
        key = np.uint64(int(digest[:16], 16))
        first, end = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        failed = None
        for locator in self._locators[first:end].tolist():
            row = self._shard(*self.sources[locator >> _INDEX_BITS])[locator & ((1 << _INDEX_BITS) - 1)]
            if row.row_digest == digest and row.status != FAILED:
                return row
            failed = row if row.row_digest == digest else failed
        return self.open_rows.get(digest) or failed


def _with_more(keys: list[str], plan: str, shared: set[tuple[str, int]]) -> list[str]:
    """The other plans that have more than what they share with this one, from the names of all plans' files."""
    return sorted(
        {
            name["plan"]
            for key in keys
            if (name := _FILE.match(key)) and name["plan"] != plan and (name["plan"], int(name["shard"])) not in shared
        }
    )
