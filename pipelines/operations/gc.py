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

    for plan in ledger.plans():
        for _, _, row in ledger.outcomes(plan):
            named |= {fingerprint(key) for key in row.files}
        yield from _leftovers(ledger, plan)
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
    return len(keys)


def _leftovers(ledger: Ledger, plan: str) -> list[str]:
    """Records of closed shards, and files of generations that do not count any more."""
    closed, opened = ledger.closed(plan), ledger.open_generations(plan)
    left = []
    for key in ledger.store.list(f"{PLANS}/{plan}/rows"):
        name = _OURS.match(key.split("/")[-2])
        if name and int(name[2]) not in opened.get(int(name[1]), ()):
            left.append(key)
    for folder in ("shards", "closed"):
        for key in ledger.store.list(f"{PLANS}/{plan}/{folder}"):
            name = _OURS.match(key.rpartition("/")[2])
            if name and int(name[1]) in closed and int(name[2]) < closed[int(name[1])].generation:
                left.append(key)
    return left
