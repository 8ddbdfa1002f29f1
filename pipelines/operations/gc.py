"""`gc`: removes what no result names: leavings of killed writers, of lost races, of closed shards."""

from collections.abc import Callable, Iterator
from datetime import timedelta

from pipelines.ledger.identity import sha256
from pipelines.ledger.ledger import Ledger
from pipelines.store.store import Store
from pipelines.worker.checkpoints import WORK


def garbage(store: Store, grace_hours: float, log_days: float) -> Iterator[str]:
    """Keys that may go. The caller holds the lease: nobody writes results meanwhile.

    Args:
        grace_hours: what is younger stays: a picture is stored before the record that names it, and `recolor` needs no
            lease.
        log_days: events of older runs go, too.
    """
    ledger = Ledger(store)
    named = set()  # 16 bytes for each object of all plans

    def fingerprint(key: str) -> bytes:
        return bytes.fromhex(sha256(key.encode())[:32])

    for plan in ledger.plans():
        for _, _, row in ledger.outcomes(plan):
            named |= {fingerprint(key) for key in row.files}
        yield from ledger.leftovers(plan)
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
    for key in [*store.list(WORK), *store.list("_engine/probe"), *store.list("_engine/clock"), *store.litter("")]:
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
    """Removes the garbage; returns how many objects went.

    Args:
        lost: whether the lease was lost: then results were written since we looked, and nothing goes.
    """
    keys = list(garbage(store, grace_hours, log_days))
    if lost():
        return 0
    store.delete(keys)
    return len(keys)
