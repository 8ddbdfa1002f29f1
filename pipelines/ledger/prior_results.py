"""Results that other plans of an output have already: they are taken over instead of being made again."""

from array import array
from functools import lru_cache

import numpy as np

from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import FAILED, ResultRow

_INDEX_BITS = 24  # of a locator: the row within its shard; the rest says which shard


class PriorResults:
    """The ok and skipped outcomes of an output's other plans, by row digest. Memory: 16 bytes for every row."""

    def __init__(self, ledger: Ledger, plan: str) -> None:
        self.ledger = ledger
        self.open_rows: dict[str, ResultRow] = {}
        self.sources: list[tuple[str, int, int]] = []
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
                rows = ledger.merged_outcomes(other, shard, None, generations).values()
                self.open_rows |= {row.row_digest: row for row in rows if row.status != FAILED}
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")
        self._keys = np.frombuffer(keys, np.uint64)[order]
        self._locators = np.frombuffer(locators, np.uint64)[order]
        self._shard = lru_cache(maxsize=8)(ledger.shard)

    def find(self, digest: str) -> ResultRow | None:
        """The outcome of a row digest."""
        if digest in self.open_rows:
            return self.open_rows[digest]
        key = np.uint64(int(digest[:16], 16))
        first, end = np.searchsorted(self._keys, key, "left"), np.searchsorted(self._keys, key, "right")
        for locator in self._locators[first:end].tolist():
            row = self._shard(*self.sources[locator >> _INDEX_BITS])[locator & ((1 << _INDEX_BITS) - 1)]
            if row.row_digest == digest:
                return row
        return None
