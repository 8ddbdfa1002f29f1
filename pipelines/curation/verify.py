"""`verify`: checks from the files alone that every stored picture is as recorded and has the luminance of its scan."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.curation.verify_shards import check_shards
from pipelines.images import scratch
from pipelines.images.errors import InputImageError
from pipelines.images.formats.codecs import open_raster
from pipelines.images.gray import invert, read_gray
from pipelines.images.icc import BadProfileError, read_profile
from pipelines.images.metadata import Metadata
from pipelines.images.paint import LumaCheck, check_luma, read_luma
from pipelines.images.rules import Toned
from pipelines.images.xmp import SOURCE_TYPE, BadXmpError, read_mark
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import OK, ResultRow
from pipelines.store.fetch import fetch_uri
from pipelines.store.retry import Patience
from pipelines.store.store import Store

_PATIENCE = Patience(total=20.0)  # short, because an input may be gone for good
_ANY_SIZE = 1 << 62
_CURVE_TOLERANCE = 1e-4  # of full light; the tables of profiles have 16 bits


@dataclass(frozen=True)
class Difference:
    """One difference between a file and its record."""

    id: str
    file: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Counts of what was checked. `pending` rows have no result yet.

    `differences` of the engine's own files have no id; `repaired` are those of them that are whole again.
    `against_input` pictures were compared with the scan itself; the others, whose input cannot be read any more, with
    the recorded sha256 of its gray values.
    """

    rows: int
    pending: int
    pictures: int
    against_input: int
    luminance_mismatches: int
    differences: list[Difference]
    repaired: tuple[str, ...] = ()

    def to_json(self) -> dict:
        """`repaired` is there only where something was."""
        values = asdict(self)
        return values if self.repaired else {name: values[name] for name in values if name != "repaired"}


def verify(output: str, sample: int | None = None, repair: bool = False) -> Verification:
    """Reads every picture and artifact of every ok row again, and records damaged files for `submit --retry-failed`;
    compares the engine's own files with their copies.

    Args:
        sample: check only about this many rows, spread over the manifest, in as many shards at most; damage is then
            reported but not recorded, and the engine's own files are not compared.
        repair: restore engine files from their copies.
    """
    store = Store(output)
    ledger, rows = Ledger(store), 0
    job, tally = ledger.read_job(), _Tally()
    every, seen = max(1, job.rows // sample) if sample else 1, 0
    damaged: dict[str, list[str]] = {}
    faults = [] if every > 1 else list(check_shards(ledger, repair))
    lost = {(fault.plan, fault.shard) for fault in faults if fault.is_lost}

    def is_wanted(plan: str, shard: int) -> bool:
        facts = ledger.plan(plan)
        first, end = shard * facts.shard_rows, min((shard + 1) * facts.shard_rows, facts.rows)
        return (plan, shard) not in lost and -(-first // every) * every < end

    for *_, number, row in ledger.visible(is_wanted):
        seen += 1
        if row.status != OK or number % every:
            continue
        rows += 1
        if files := tally.check_row(store, row, job.outputs.mark):
            damaged[row.row_digest] = sorted(files)
    if every == 1:
        ledger.write_damaged(damaged)
    else:
        seen = sum(ledger.counts(job.plan).values())
    return Verification(
        rows=rows,
        pending=max(0, job.rows - seen),
        pictures=tally.pictures,
        against_input=tally.against_input,
        luminance_mismatches=tally.mismatches,
        differences=[*(Difference("", one.key, one.what) for one in faults if not one.repaired), *tally.differences],
        repaired=tuple(one.key for one in faults if one.repaired),
    )


def verify_pair(gray_uri: str, colour_uri: str, page: int | None = None, toned: Toned = Toned.reject) -> LumaCheck:
    """Compares any colour picture with any scan, pixel by pixel.

    Raises:
        InputImageError: one of them cannot be read.
        ValueError: they differ in size or depth.
    """
    with fetch_uri(gray_uri, patience=_PATIENCE) as scan, fetch_uri(colour_uri, patience=_PATIENCE) as colour:
        gray, _ = read_gray(open_raster(scan, _ANY_SIZE, page), toned)
        return check_luma(colour, gray)


class _Tally:
    """Counts and differences of the rows checked so far."""

    def __init__(self) -> None:
        self.pictures = self.against_input = self.mismatches = 0
        self.differences: list[Difference] = []

    def check_row(self, store: Store, row: ResultRow, mark: bool) -> set[str]:
        """Adds a row's differences; returns the keys of its damaged files."""
        bad: set[str] = set()

        def differs(key: str, what: str) -> None:
            bad.add(key)
            self.differences.append(Difference(row.id, key, what))

        scan = read_scan_again(row)
        if scan and scratch.sha256_of_pixels(scan[0]) != row.gray_sha256:
            what = "the input is not the one that was colorized"
            self.differences.append(Difference(row.id, row.image or "image_bytes", what))
            scan = None  # a replaced input is no damage to our files
        if not (row.primary_image and row.artifact and row.width and row.height):
            differs("", "its result is ok and names no picture: the file of results is not as it was written")
            return bad
        for key, expected, is_picture in _files(row):
            self.pictures += is_picture
            self.against_input += is_picture and scan is not None
            try:
                file = store.read_file(key)
            except OSError as error:
                differs(key, f"cannot be read ({type(error).__name__})")
                continue
            with file:
                actual = scratch.sha256_of_file(file)
                if expected is not None and actual != expected:
                    differs(key, f"sha256 is {actual}, recorded {expected}")
                if is_picture:
                    # The primary picture is reused with its fit, whatever mark a later job asks for.
                    wrong, faults = _picture(file, row, scan, mark and key != row.primary_image)
                    self.mismatches += wrong
                    for fault in faults:
                        differs(key, fault)
        return bad


def _files(row: ResultRow) -> Iterator[tuple[str, str | None, bool]]:
    """Key and recorded sha256 of each file, and whether it is a picture that holds the scan's luminance."""
    assert row.primary_image, "checked by the caller"
    assert row.artifact, "checked by the caller"
    yield row.primary_image, row.primary_sha256, True
    for output in row.outputs:
        yield output.image, output.sha256, True
        if output.access:
            yield output.access, output.access_sha256, False
        if output.record:
            yield output.record, None, False
    yield row.artifact, row.artifact_sha256, False


def read_scan_again(row: ResultRow) -> tuple[NDArray, Metadata] | None:
    """The input's gray values and metadata; None where it cannot be read any more, or is no scan now."""
    if row.image is None:
        return None
    toned = Toned.desaturate if (row.source or {}).get("conversion") == "desaturated" else Toned.reject
    try:
        with fetch_uri(row.image, patience=_PATIENCE) as file:
            raster = open_raster(file, _ANY_SIZE, row.page)
            gray = read_gray(raster, toned)[0]
            if (row.source or {}).get("negative"):
                invert(gray)
            return gray, raster.metadata
    except Exception:  # each store has its own exceptions; without the input, the recorded sha256 is compared
        return None


def _picture(
    file: BinaryIO, row: ResultRow, scan: tuple[NDArray, Metadata] | None, mark: bool
) -> tuple[int, list[str]]:
    """Number of mismatching pixels (all of them where they cannot be counted), and the faults in words."""
    assert row.width is not None, "an ok row has the size of its scan"
    assert row.height is not None, "an ok row has the size of its scan"
    total, faults = row.width * row.height, []
    try:
        metadata = open_raster(file, _ANY_SIZE).metadata
        if scan:
            check = check_luma(file, scan[0])
        else:
            gray = read_luma(file)
            check = LumaCheck(mismatches=0 if scratch.sha256_of_pixels(gray) == row.gray_sha256 else total)
    except InputImageError as error:
        return 0, [f"not readable ({error})"]
    except ValueError as error:
        return total, [str(error)]
    if check.mismatches and not scan:
        faults.append("luminance differs from the recorded sha256 of the scan's gray values")
    elif check.first is not None:
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
    """The fault of the picture's tone curve, if any: a gray value must mean the same light as in the scan."""
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
    if not metadata.xmp:
        return False
    try:
        return read_mark(metadata.xmp).get("DigitalSourceType") == SOURCE_TYPE
    except BadXmpError:
        return False
