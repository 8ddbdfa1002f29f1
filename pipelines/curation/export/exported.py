"""A picture at its destination."""

from dataclasses import dataclass
from typing import Any

from pipelines.ledger.results import Output, ResultRow


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One exported picture: its `key` below the destination, and `sha256` and `bytes` of its file there."""

    key: str
    row: ResultRow
    output: Output
    record: dict[str, Any]
    sha256: str
    bytes: int
