"""A row's scan, read, checked and decoded; whatever is wrong with it is an `InputImageError`."""

from collections.abc import Callable

from manifests.locations import redacted
from manifests.schema import ManifestRow
from pipelines.identity import sha256
from pipelines.imagefile import GrayImage, InputImageError, decode_gray
from pipelines.retry import Patience, is_transient
from pipelines.store import read_uri

MAX_INPUT_BYTES = 4 << 30


def read_scan(
    row: ManifestRow, max_pixels: int, patience: Patience, on_retry: Callable[[BaseException, float], None]
) -> tuple[GrayImage, str]:
    """The decoded scan, and the sha256 of its file."""
    content = row.image_bytes if row.image_bytes is not None else _read(row.image, patience, on_retry)
    found = sha256(content)
    if row.image_sha256 and row.image_sha256 != found:
        message = f"sha256 {row.image_sha256} expected, {found} found: not the catalogued file"
        raise InputImageError("input_changed", message)
    return decode_gray(content, max_pixels), found


def _read(uri: str, patience: Patience, on_retry: Callable[[BaseException, float], None]) -> bytes:
    try:
        return read_uri(uri, MAX_INPUT_BYTES, patience, on_retry)
    except FileNotFoundError as error:
        raise InputImageError("not_found", f"no object at {redacted(uri)}") from error
    except PermissionError as error:
        raise InputImageError("denied", f"no permission to read {redacted(uri)}") from error
    except Exception as error:  # each store has exceptions of its own
        if getattr(error, "status", None) in (401, 403):  # over plain HTTP
            raise InputImageError("denied", f"no permission to read {redacted(uri)}") from error
        kind = "input_unavailable" if is_transient(error) else "unreadable"
        reason = str(error).replace(uri, redacted(uri))
        raise InputImageError(kind, f"{redacted(uri)}: {type(error).__name__}: {reason}") from error
