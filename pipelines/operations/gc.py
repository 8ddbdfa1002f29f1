"""`gc`: deletes files that no result refers to, left by interrupted or concurrent runs."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

from pipelines.ledger.identity import sha256
from pipelines.ledger.layout import PLANS
from pipelines.ledger.ledger import Ledger
from pipelines.store.store import Store
from pipelines.worker.checkpoints import WORK

_OURS = re.compile(r"(\d{6})\.(\d+)")


def garbage(store: Store, grace_hours: float, log_days: float) -> Iterator[str]:
    """Keys that may be deleted. The caller holds the lease, so that no results are written meanwhile.

    Args:
        grace_hours: newer files are kept: a picture is stored before the record that refers to it, and `recolor` needs
            no lease.
        log_days: events of older runs are deleted as well.
    """
    ledger = Ledger(store)
    named = set()  # 16 bytes for each object of all plans

    def fingerprint(key: str) -> bytes:
        return bytes.fromhex(sha256(key.encode())[:32])

    plans, job = ledger.plans(), ledger.read_job()
    shared = {(one.home, one.shard, one.closed.generation) for plan in plans for one in ledger.adopted(plan).values()}
    for plan in plans:
        for _, _, row in ledger.outcomes(plan, ledger.own_closed(plan)):
            named |= {fingerprint(key) for key in row.files}
        yield from _leftovers(ledger, plan, shared)
    live, used = (job.plan, *job.previous, *job.superseded), {(home, shard) for home, shard, _ in shared}
    dead = set(plans) - set(live)
    known = {bytes.fromhex(row.row_digest[:32]) for _, _, row in ledger.outcomes(job.plan)} if dead else set()
    for plan in dead:
        yield from _superseded(ledger, plan, known, used)
    now = store.clock()

    def is_old(key: str, age: timedelta) -> bool:
        try:
            modified = store.modified(key)
        except FileNotFoundError:
            return False
        return now - modified >= age

    grace = timedelta(hours=grace_hours)
    for folder in ("images", "artifacts", "access", "report/previews"):
        for key in store.list(folder):
            if fingerprint(key) not in named and is_old(key, grace):
                yield key
    for key in [
        *store.list(WORK),
        *store.list("_engine/probe"),
        *store.list("_engine/clock"),
        *store.temporary_files(""),
    ]:
        if is_old(key, grace):
            yield key
    for key in store.list("_engine/runs"):
        if is_old(key, timedelta(days=log_days)):
            yield key


def _superseded(ledger: Ledger, plan: str, known: set[bytes], used: set[tuple[str, int]]) -> list[str]:
    """Files of the shards of an old plan of which the output's has every row; all, once it has no other shards."""
    gone = [
        shard
        for shard, one in ledger.own_closed(plan).items()
        if (plan, shard) not in used
        and all(bytes.fromhex(digest[:32]) in known for digest, *_ in ledger.digests(plan, shard, one.generation))
    ]
    return ledger.files_of(plan, gone)


def collect(
    store: Store,
    grace_hours: float = 24.0,
    log_days: float = 30.0,
    lost: Callable[[], bool] = lambda: False,
) -> int:
    """Deletes the garbage; returns the number of objects deleted.

    Args:
        lost: whether the lease was lost: then results may have been written since, and nothing is deleted.
    """
    keys = list(garbage(store, grace_hours, log_days))
    if lost():
        return 0
    store.delete(keys)
    store.prune(PLANS)
    return len(keys)


def _leftovers(ledger: Ledger, plan: str, shared: set[tuple[str, int, int]]) -> list[str]:
    """Records of closed shards, and files of generations that do not count any more, here or in another plan."""
    closed = ledger.closed(plan)
    opened = ledger.open_generations(plan, closed)
    left = []
    for key in ledger.store.list(f"{PLANS}/{plan}/rows"):
        name = _OURS.match(key.split("/")[-2])
        if name and int(name[2]) not in opened.get(int(name[1]), ()):
            left.append(key)
    for folder in ("shards", "closed"):
        for key in ledger.store.list(f"{PLANS}/{plan}/{folder}"):
            if name := _OURS.match(key.rpartition("/")[2]):
                shard, generation = int(name[1]), int(name[2])
                if (
                    shard in closed
                    and generation < closed[shard].generation
                    and (plan, shard, generation) not in shared
                ):
                    left.append(key)
    return left
