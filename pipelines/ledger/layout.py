"""Where the ledger keeps what, below the output's root:

results/<plan>-<shard>.parquet                        what users read: a copy of each closed shard's last generation
_engine/plans/<plan>/plan.json                        rows, shard_rows, settings
_engine/plans/<plan>/rows/<shard>.<generation>/<row>.<amendment>.json
_engine/plans/<plan>/shards/<shard>.<generation>.parquet
_engine/plans/<plan>/closed/<shard>.<generation>.<ok>.<failed>.<skipped>
"""

from dataclasses import dataclass

from pipelines.ledger.task import Place

JOB_KEY = "job.json"
PLANS = "_engine/plans"
DAMAGED_KEY = "_engine/damaged.json"


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """A manifest under given settings: its rows, the rows of each shard, the digest of the settings."""

    rows: int
    shard_rows: int
    settings: str


@dataclass(frozen=True)
class Closed:
    """A closed shard: its last generation, and how its rows ended."""

    generation: int
    ok: int
    failed: int
    skipped: int


def record_key(place: Place, amendment: int = 0) -> str:
    """The record of one outcome; amendments are counted from 1."""
    return f"{PLANS}/{place.plan}/rows/{place.shard:06d}.{place.generation}/{place.row:09d}.{amendment:06d}.json"


def shard_key(plan: str, shard: int, generation: int) -> str:
    """A closed shard's file."""
    return f"{PLANS}/{plan}/shards/{shard:06d}.{generation}.parquet"


def published_key(plan: str, shard: int) -> str:
    """The copy of a closed shard's file that users read."""
    return f"results/{plan}-{shard:06d}.parquet"
