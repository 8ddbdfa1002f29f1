"""The engine's own files: each closed shard against its copy in `results/`, from which it can be restored."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.errors import DamagedFileError
from pipelines.ledger.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class ShardFault:
    """A file that is lost or not what was written.

    Attributes:
        is_lost: whether there is no whole copy either.
        repaired: whether it is whole again, or the shard is open again.
    """

    plan: str
    shard: int
    key: str
    what: str
    is_lost: bool = False
    repaired: bool = False


def check_shards(ledger: Ledger, repair: bool) -> Iterator[ShardFault]:
    """Compares every closed shard of the plans that are seen with its copy.

    Args:
        repair: restore each from the other; open a shard again that is lost with its copy, so that the next `submit`
            does its rows anew (their fits are known still).
    """
    job = ledger.read_job()
    for plan in (job.plan, *job.previous):
        is_shown = plan == job.plan and not job.previous  # else a copy may be another plan's
        for shard in sorted(ledger.closed(plan)):
            yield from _check_shard(ledger, plan, shard, is_shown, repair)


def _check_shard(ledger: Ledger, plan: str, shard: int, is_shown: bool, repair: bool) -> Iterator[ShardFault]:
    """Of a shard as it is now: it may have been closed again since it was listed."""
    while one := ledger.closed(plan).get(shard):
        key, copy = ledger.shard_key(plan, shard, one.generation), ledger.results(plan).key(shard)
        try:
            content = ledger.shard_content(plan, shard, one.generation)
        except DamagedFileError as error:
            if ledger.closed(plan).get(shard) != one:
                continue
            what = f"lost with its copy {copy} ({error.error})"
            yield ShardFault(plan=plan, shard=shard, key=key, what=what, is_lost=True, repaired=repair)
            if not repair:
                return
            ledger.reopen(plan, shard, one.generation)  # and looks at the generation before it
            continue
        for place in (key, copy) if is_shown else (key,):
            if (fault := _fault(ledger, place, content)) and ledger.closed(plan).get(shard) == one:
                if repair:
                    ledger.store.write(place, content)
                yield ShardFault(plan=plan, shard=shard, key=place, what=fault, repaired=repair)
        return


def _fault(ledger: Ledger, key: str, expected: bytes) -> str | None:
    try:
        return None if ledger.store.read(key) == expected else "not what was written"
    except FileNotFoundError:
        return "missing"
