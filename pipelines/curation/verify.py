"""`verify`: from the files alone, is every stored picture what the results say, and is its luminance the scan's?"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.images import scratch
from pipelines.images.errors import InputImageError
from pipelines.images.gray import DESATURATE, read_gray
from pipelines.images.icc import BadProfileError, read_profile
from pipelines.images.metadata import Metadata
from pipelines.images.paint import LumaCheck, check_luma, read_luma
from pipelines.images.raster import open_raster
from pipelines.images.xmp import SOURCE_TYPE, BadXmpError, read_mark
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import OK, ResultRow
from pipelines.store.retry import Patience
from pipelines.store.store import Store, fetch_uri

_PATIENCE = Patience(total=20.0)  # with an input: it may be gone for good
_ANY_SIZE = 1 << 62
_CURVE_TOLERANCE = 1e-4  # tables have 16 bits


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


def verify(output: str, sample: int | None = None) -> Verification:
    """Reads every picture and artifact of every ok row again; notes the damaged ones for `submit --retry-failed`.

    Args:
        sample: look at about so many rows only, spread over the manifest; damage is then reported, not noted.
    """
    store = Store(output)
    ledger, seen, rows = Ledger(store), 0, 0
    job, tally = ledger.read_job(), _Tally()
    every = max(1, job["rows"] // sample) if sample else 1
    damaged: dict[str, list[str]] = {}
    for row in ledger.current():
        seen += 1
        if row.status != OK or (seen - 1) % every:
            continue
        rows += 1
        if files := tally.look_at(store, row, job.get("outputs", {}).get("mark", True)):
            damaged[row.row_digest] = sorted(files)
    if every == 1:
        ledger.write_damaged(damaged)
    return Verification(
        rows=rows,
        pending=job["rows"] - seen,
        pictures=tally.pictures,
        against_input=tally.against_input,
        luminance_mismatches=tally.mismatches,
        differences=tally.differences,
    )


def verify_pair(gray_uri: str, colour_uri: str, page: int | None = None, toned: str = "reject") -> LumaCheck:
    """Compares any colour picture with any scan, pixel by pixel.

    Raises:
        InputImageError: one of them cannot be read.
        ValueError: they differ in size or depth.
    """
    with fetch_uri(gray_uri, patience=_PATIENCE) as scan, fetch_uri(colour_uri, patience=_PATIENCE) as colour:
        gray, _ = read_gray(open_raster(scan, _ANY_SIZE, page), toned)
        return check_luma(colour, gray)


class _Tally:
    """What has been found so far."""

    def __init__(self) -> None:
        self.pictures = self.against_input = self.mismatches = 0
        self.differences: list[Difference] = []

    def look_at(self, store: Store, row: ResultRow, mark: bool) -> set[str]:
        """Adds a row's differences; the files of ours that are damaged."""
        bad: set[str] = set()

        def differs(key: str, what: str) -> None:
            bad.add(key)
            self.differences.append(Difference(row.id, key, what))

        scan = read_scan_again(row)
        if scan and scratch.sha256_of_pixels(scan[0]) != row.gray_sha256:
            what = "the input is not the one that was colorized"
            self.differences.append(Difference(row.id, row.image or "image_bytes", what))
            scan = None  # an input that was replaced is no damage of ours
        for key, expected, is_picture in _files(row):
            self.pictures += is_picture
            self.against_input += is_picture and scan is not None
            try:
                file = store.read_file(key)
            except OSError as error:
                differs(key, f"cannot be read ({type(error).__name__})")
                continue
            with file:
                found = scratch.sha256_of_file(file)
                if expected is not None and found != expected:
                    differs(key, f"sha256 is {found}, recorded {expected}")
                if is_picture:
                    # Stage 1's picture is kept from fit to fit, whatever the later job's mark.
                    wrong, faults = _picture(file, row, scan, mark and key != row.primary_image)
                    self.mismatches += wrong
                    for fault in faults:
                        differs(key, fault)
        return bad


def _files(row: ResultRow) -> Iterator[tuple[str, str | None, bool]]:
    """Key, recorded sha256, and whether it is a picture that holds the scan's luminance."""
    yield row.primary_image, row.primary_sha256, True
    for output in row.outputs:
        yield output.image, output.sha256, True
        if output.access:
            yield output.access, output.access_sha256, False
        if output.record:
            yield output.record, None, False
    yield row.artifact, row.artifact_sha256, False


def read_scan_again(row: ResultRow) -> tuple[NDArray, Metadata] | None:
    """The input's gray values and metadata; None where it is not there any more, or is no scan now."""
    if row.image is None:
        return None
    toned = DESATURATE if (row.source or {}).get("conversion") == "desaturated" else "reject"
    try:
        with fetch_uri(row.image, patience=_PATIENCE) as file:
            raster = open_raster(file, _ANY_SIZE, row.page)
            return read_gray(raster, toned)[0], raster.metadata
    except Exception:  # each store has exceptions of its own; without the input the recorded sha256 has to do
        return None


def _picture(
    file: BinaryIO, row: ResultRow, scan: tuple[NDArray, Metadata] | None, mark: bool
) -> tuple[int, list[str]]:
    """Number of mismatching pixels (all of them where they cannot be counted), and the faults in words."""
    total, faults = row.width * row.height, []
    try:
        metadata = open_raster(file, _ANY_SIZE).metadata
        if scan:
            check = check_luma(file, scan[0])
        else:
            held = read_luma(file)
            check = LumaCheck(mismatches=0 if scratch.sha256_of_pixels(held) == row.gray_sha256 else total)
    except InputImageError as error:
        return 0, [f"not readable ({error})"]
    except ValueError as error:
        return total, [str(error)]
    if check.mismatches and not scan:
        faults.append("luminance differs from the recorded sha256 of the scan's gray values")
    elif check.mismatches:
        x, y = check.first
        faults.append(
            f"luminance differs at {check.mismatches} pixels, by up to {check.largest}, first at x={x}, y={y}"
        )
    orientation = (row.source or {}).get("orientation", 1)
    if metadata.orientation != orientation:
        faults.append(f"orientation is {metadata.orientation}, the scan's {orientation}")
    if fault := _tone_curve(metadata, row, scan):
        faults.append(fault)
    if mark and row.source and not _is_marked(metadata):
        faults.append("the mark that its colours are machine-made is missing")
    return check.mismatches, faults


def _tone_curve(metadata: Metadata, row: ResultRow, scan: tuple[NDArray, Metadata] | None) -> str | None:
    """A gray value must mean the same light in the picture as in the scan."""
    if not scan or not row.source or row.source["profile_assumed"]:
        return None
    channels = 3 if row.source["conversion"] in ("equal_channels", "near_gray", "desaturated") else 1
    try:
        before, after = read_profile(scan[1].icc, channels).linear, read_profile(metadata.icc, 3).linear
    except BadProfileError as error:
        return f"its ICC profile cannot be read ({error})"
    off = float(np.abs(before - after).max())
    return f"its tone curve is not the scan's (by up to {off:.4f} of full light)" if off > _CURVE_TOLERANCE else None


def _is_marked(metadata: Metadata) -> bool:
    try:
        return bool(metadata.xmp) and read_mark(metadata.xmp).get("DigitalSourceType") == SOURCE_TYPE
    except BadXmpError:
        return False
