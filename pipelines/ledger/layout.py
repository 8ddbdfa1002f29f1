"""Where the ledger keeps what, below the output's root:

results/<shard>.parquet                               what users read: a copy of each closed shard's last generation
_engine/plans/<plan>/plan.json                        see PlanFacts
_engine/plans/<plan>/rows/<shard>.<generation>/<row>.<amendment>.json
_engine/plans/<plan>/rows/<shard>.0/taken-over.parquet   what other plans had of an open shard
_engine/plans/<plan>/shards/<shard>.<generation>.parquet
_engine/plans/<plan>/closed/<shard>.<generation>.<ok>.<failed>.<skipped>
"""

from dataclasses import dataclass

from pipelines.ledger.task import Place

JOB_KEY = "job.json"
PLANS = "_engine/plans"
SUBMITTED_KEY = "_engine/submitted.json"  # to a cluster, whose driver may not be up yet
DAMAGED_KEY = "_engine/damaged.json"


@dataclass(frozen=True)
class Closed:
    """A closed shard: its last generation, and how its rows ended."""

    generation: int
    ok: int
    failed: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """A shard that a plan shares with an earlier one, `home`, which has its file."""

    shard: int
    home: str
    closed: Closed


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """A manifest under given settings.

    Attributes:
        settings: digest of what all rows share.
        digests: of each shard, over its rows and what they carry: equal digests, equal shards.
        ids: of each shard, a digest of its rows' ids.
        adopted: the shards that an earlier plan had closed.
    """

    rows: int
    shard_rows: int
    settings: str
    digests: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    adopted: tuple[Adopted, ...] = ()

    def extends(self, other: "PlanFacts") -> bool:
        """Whether each of the other's rows is in the shard of the same number here, but for its last shard, of which
        this is not known."""
        before = other.ids[:-1]
        return self.shard_rows == other.shard_rows and bool(other.ids) and self.ids[: len(before)] == before


def record_key(place: Place, amendment: int = 0) -> str:
    """The record of one outcome; amendments are counted from 1."""
    return f"{PLANS}/{place.plan}/rows/{place.shard:06d}.{place.generation}/{place.row:09d}.{amendment:06d}.json"


def shard_key(plan: str, shard: int, generation: int) -> str:
    """A closed shard's file."""
    return f"{PLANS}/{plan}/shards/{shard:06d}.{generation}.parquet"


def taken_over_key(plan: str, shard: int) -> str:
    """What other plans had of an open shard."""
    return f"{PLANS}/{plan}/rows/{shard:06d}.0/taken-over.parquet"
