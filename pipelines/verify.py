"""`verify`: from the files alone, is every stored picture what the results say, and is its luminance the scan's?"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from pipelines.identity import sha256
from pipelines.imagefile import InputImageError, decode_gray, decode_output
from pipelines.jobspec import MAX_PIXELS
from pipelines.ledger import Ledger
from pipelines.results import OK, ResultRow
from pipelines.retry import Patience
from pipelines.store import Store, read_uri

_PATIENCE = Patience(total=20.0)  # with an input: it may be gone for good


@dataclass(frozen=True)
class Difference:
    """One thing that is not as recorded."""

    id: str
    file: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Counts of what was looked at. `pending` rows have no result yet.

    `against_input` pictures were compared with the scan itself, the others (whose input is not at its URI any more)
    with the recorded sha256 of its gray values.
    """

    rows: int
    pending: int
    pictures: int
    against_input: int
    luminance_mismatches: int
    differences: list[Difference]

    def to_json(self) -> dict:
        return asdict(self)


def verify(output: str) -> Verification:
    """Reads every picture and artifact of every ok row again; notes the damaged ones for `submit --retry-failed`."""
    store = Store(output)
    rows = pictures = against_input = mismatching = 0
    differences: list[Difference] = []
    ledger, seen, digests, files = Ledger(store), 0, {}, set()
    for row in ledger.current():
        seen += 1
        if row.status != OK:
            continue
        digests[row.id] = row.row_digest
        rows += 1
        gray = _input_gray(row)
        if gray is not None and sha256(gray.tobytes()) != row.gray_sha256:
            differences.append(
                Difference(row.id, row.image or "image_bytes", "the input is not the one that was colorized")
            )
            gray = None
        for key, expected, is_picture in _files(row):
            content, fault = _stored(store, key, expected)
            if fault:
                files.add(key)
                differences.append(Difference(row.id, key, fault))
            if not is_picture:
                continue
            pictures += 1
            against_input += gray is not None
            wrong, fault = _luminance(content, row, gray)
            mismatching += wrong
            if fault:
                files.add(key)
                differences.append(Difference(row.id, key, fault))
    damaged: dict[str, list[str]] = {}
    for one in differences:
        if one.file in files:  # an input that was replaced is no damage of ours
            damaged.setdefault(digests[one.id], []).append(one.file)
    ledger.write_damaged(damaged)
    return Verification(
        rows=rows,
        pending=ledger.read_job()["rows"] - seen,
        pictures=pictures,
        against_input=against_input,
        luminance_mismatches=mismatching,
        differences=differences,
    )


def _files(row: ResultRow) -> Iterator[tuple[str, str, bool]]:
    yield row.primary_image, row.primary_sha256, True
    for output in row.outputs:
        yield output.image, output.sha256, True
    yield row.artifact, row.artifact_sha256, False


def _stored(store: Store, key: str, expected: str) -> tuple[bytes | None, str | None]:
    try:
        content = store.read(key)
    except OSError as error:
        return None, f"cannot be read ({type(error).__name__})"
    found = sha256(content)
    return content, None if found == expected else f"sha256 is {found}, recorded {expected}"


def _input_gray(row: ResultRow) -> np.ndarray | None:
    if row.image is None:
        return None
    try:
        return decode_gray(read_uri(row.image, patience=_PATIENCE), MAX_PIXELS * 100).gray
    except Exception:  # each store has exceptions of its own; without the input the recorded sha256 has to do
        return None


def _luminance(content: bytes | None, row: ResultRow, gray: np.ndarray | None) -> tuple[int, str | None]:
    """Number of mismatching pixels (all of them when they cannot be counted) and the fault in words."""
    total = row.width * row.height
    if content is None:
        return 0, None  # already reported as unreadable
    try:
        found = decode_output(content)[1].gray
    except InputImageError as error:
        return 0, str(error)
    if found.shape != (row.height, row.width):
        return total, f"size is {found.shape[1]} x {found.shape[0]}, the input's is {row.width} x {row.height}"
    if gray is None:
        same = sha256(found.tobytes()) == row.gray_sha256
        return (0, None) if same else (total, "luminance differs from the recorded sha256 of the scan's gray values")
    wrong = found != gray
    count = int(np.count_nonzero(wrong))
    if not count:
        return 0, None
    y, x = np.argwhere(wrong)[0]
    largest = int(np.abs(found.astype(np.int32) - gray).max())
    return count, f"luminance differs at {count} pixels, by up to {largest}, first at x={x}, y={y}"
