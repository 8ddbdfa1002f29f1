"""What the results of an output took to make, from the rows themselves."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import FAILED
from pipelines.store.store import Store


@dataclass(kw_only=True)
class Hours:
    """Worker time, one GPU's or one CPU worker's, of some rows; what was lost with a worker is not known.

    Attributes:
        failed: of `worker`, what went into rows that failed.
    """

    rows: int = 0
    worker: float = 0.0
    failed: float = 0.0

    def to_json(self, price: float | None) -> dict[str, Any]:
        """With the cost, where an hour has a price."""
        values = {"rows": self.rows, "worker_hours": round(self.worker, 4), "failed_hours": round(self.failed, 4)}
        return values if price is None else {**values, "cost": round(self.worker * price, 2)}


def hours_by_group(store: Store) -> dict[str, Hours]:
    """Reads all results; rows without a `group_id` are under ""."""
    found: dict[str, Hours] = defaultdict(Hours)
    for row in Ledger(store).current():
        group = found[row.group_id or ""]
        group.rows += 1
        group.worker += row.seconds / 3600
        group.failed += row.seconds / 3600 if row.status == FAILED else 0.0
    return dict(found)


def total(groups: dict[str, Hours]) -> Hours:
    """Of all groups."""
    return Hours(
        rows=sum(one.rows for one in groups.values()),
        worker=sum(one.worker for one in groups.values()),
        failed=sum(one.failed for one in groups.values()),
    )
