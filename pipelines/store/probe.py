"""Does a store keep conditional writes? Everything that may happen once relies on it."""

import uuid
from concurrent.futures import ThreadPoolExecutor

from pipelines.errors import StoreError
from pipelines.store.retry import Patience
from pipelines.store.store import Store


def probe_preconditions(uri: str, patience: Patience | None = None) -> bool:
    """Whether this store keeps conditional writes: a second create fails, and of 8 at once one wins, 3 times."""
    store, folder = Store(uri, patience=patience), f"_engine/probe/{uuid.uuid4().hex}"
    used = [f"{folder}/{number}" for number in range(4)]

    def created(key: str, writer: int) -> bool:
        return store.create(key, f"writer {writer}".encode())

    try:
        if not created(used[0], 1) or created(used[0], 2):
            return False
        with ThreadPoolExecutor(8) as threads:
            return all(
                sum(threads.map(lambda writer, key=key: created(key, writer), range(8))) == 1 for key in used[1:]
            )
    except (StoreError, TypeError, ValueError, NotImplementedError):  # it does not even know them
        return False
    finally:
        store.delete(used)
