"""What a worker had in hand when its process was lost: a small file on its machine that the next process reads.

Of the many rows that a worker has, most only wait; a row that kills processes is one of the few in hand.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

LastWords = tuple[str, ...] | None  # ids of rows; None where nobody knows


class LastWordsFile:
    """Written by a process, and read by the one that comes after it.

    Args:
        worker: the same in both, and no other's.
    """

    def __init__(self, worker: str) -> None:
        self._path = Path(tempfile.gettempdir(), f"diffcolor-worker-{worker}.json")
        self.before = self._read()
        self._path.unlink(missing_ok=True)

    def _read(self) -> LastWords:
        try:
            return tuple(map(str, json.loads(self._path.read_bytes())))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, ids: Sequence[str]) -> None:
        """Takes the place of what was written before. What cannot be written is not known later: that is all."""
        try:
            if ids:
                self._path.write_text(json.dumps(list(ids)))
            else:
                self._path.unlink(missing_ok=True)
        except OSError:
            pass
