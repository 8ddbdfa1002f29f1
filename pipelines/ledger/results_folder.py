"""`results/`: what users read. One Parquet file for each shard, named by its number and always replaced whole: a reader
never meets a row twice."""

import re

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ledger.shard_file import origin_of
from pipelines.store.store import Store

FOLDER = "results"


class ResultsFolder:
    """The files of `results/`, without a thought of which of them count.

    Args:
        plan: of version 0.1.0, whose files have its name before their number.
    """

    def __init__(self, store: Store, plan: str | None = None) -> None:
        self.store, self._prefix = store, f"{FOLDER}/{plan}-" if plan else f"{FOLDER}/"

    def key(self, shard: int) -> str:
        return f"{self._prefix}{shard:06d}.parquet"

    def write(self, shard: int, content: bytes) -> None:
        self.store.write(self.key(shard), content)

    def shards(self) -> set[int]:
        """The numbers of the shards that are shown."""
        ours = re.compile(re.escape(self._prefix) + r"(\d{6})\.parquet")
        return {int(name[1]) for key in self.store.list(FOLDER) if (name := ours.fullmatch(key))}

    def origin(self, shard: int) -> str | None:
        """Which shard of which plan a file shows; None where there is none that says so."""
        content = self._read(shard)
        return origin_of(content) if content else None

    def ids(self, shard: int) -> set[str]:
        """The rows that a file shows; none where it is missing or damaged."""
        content = self._read(shard)
        if content is None:
            return set()
        return set(pq.read_table(pa.BufferReader(content), columns=["id"])["id"].to_pylist())

    def keep(self, shards: set[int]) -> None:
        """Removes every other file."""
        kept = {self.key(shard) for shard in shards}
        self.store.delete([key for key in self.store.list(FOLDER) if key not in kept])

    def _read(self, shard: int) -> bytes | None:
        try:
            content = self.store.read(self.key(shard))
            pq.read_schema(pa.BufferReader(content))
            return content
        except (FileNotFoundError, ValueError):
            return None
