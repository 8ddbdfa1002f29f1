"""A row's scan, read, checked and decoded; whatever is wrong with it is an `InputImageError`."""

import io
import posixpath
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO
from urllib.parse import urlsplit

from manifests.locations import redacted
from manifests.schema import ManifestRow
from pipelines.images import scratch
from pipelines.images.errors import InputImageError
from pipelines.images.gray import GrayImage, Rules, decode_gray
from pipelines.images.view import View
from pipelines.images.xmp import MAX_BYTES, BadXmpError, parsed
from pipelines.store.retry import FULL, Patience, is_transient
from pipelines.store.store import fetch_uri

SUFFIXES_OF = {
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe"), "jpeg"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".j2c"), "jp2"),
    ".png": "png",
    ".webp": "webp",
    ".bmp": "bmp",
}
MAX_INPUT_BYTES = 4 << 30
_WEB = ("http://", "https://")
_WEB_PATIENCE = 60.0  # seconds: a web server that is gone is one of many, and seldom comes back within the job
OnRetry = Callable[[BaseException, float], None]


def read_scan(row: ManifestRow, rules: Rules, patience: Patience, on_retry: OnRetry) -> tuple[View, str]:
    """What is to be seen of the decoded scan, and the sha256 of its file."""
    with _opened(row, patience, on_retry) as file:
        found = scratch.sha256_of_file(file)
        if row.image_sha256 and row.image_sha256 != found:
            message = f"sha256 {row.image_sha256} expected, {found} found: not the catalogued file"
            raise InputImageError("input_changed", message)
        image = decode_gray(file, replace(rules, toned=row.toned or rules.toned), row.page)
    if row.image is not None:
        image = _with_sidecar(image, row.image, patience, on_retry)
        image = replace(image, warnings=(*image.warnings, *_misnamed(row, image.source.format)))
    return View(image, row.regions).check(), found


def _opened(row: ManifestRow, patience: Patience, on_retry: OnRetry) -> BinaryIO:
    if row.image_bytes is not None:
        return io.BytesIO(row.image_bytes)
    try:
        return _fetched(row.image, MAX_INPUT_BYTES, patience, on_retry)
    except FileNotFoundError as error:
        raise InputImageError("not_found", f"no object at {redacted(row.image)}") from error
    except PermissionError as error:
        raise InputImageError("denied", f"no permission to read {redacted(row.image)}") from error


def _fetched(uri: str, limit: int, patience: Patience, on_retry: OnRetry) -> BinaryIO:
    """Raises FileNotFoundError, PermissionError, an OSError for want of room here, or an InputImageError."""
    if uri.startswith(_WEB):
        patience = replace(patience, total=min(patience.total, _WEB_PATIENCE))
    try:
        return fetch_uri(uri, limit, patience, on_retry)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # each store has exceptions of its own
        if getattr(error, "status", None) in (401, 403):  # over plain HTTP
            raise PermissionError(str(error)) from error
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        kind = "input_unavailable" if is_transient(error) else "unreadable"
        reason = str(error).replace(uri, redacted(uri))
        raise InputImageError(kind, f"{redacted(uri)}: {type(error).__name__}: {reason}") from error


def _misnamed(row: ManifestRow, kind: str) -> tuple[str, ...]:
    """A warning where the file's name promises another format than its content is."""
    suffix = posixpath.splitext(urlsplit(row.image or "").path)[1].lower()
    if suffix in SUFFIXES_OF and SUFFIXES_OF[suffix] != kind:
        return (f"wrong_extension: it is named {suffix}, its content is {kind}, and was read as that",)
    return ()


def _with_sidecar(image: GrayImage, uri: str, patience: Patience, on_retry: OnRetry) -> GrayImage:
    """The scan with the XMP of the `.xmp` file beside it, if there is one: `a.tif.xmp` or `a.xmp`."""
    if uri.startswith(_WEB):  # a web server has no folder to look into
        return image
    for sidecar in (f"{uri}.xmp", f"{posixpath.splitext(uri)[0]}.xmp"):
        try:
            with _fetched(sidecar, MAX_BYTES, patience, on_retry) as file:
                packet = file.read()
        except (FileNotFoundError, PermissionError):  # S3 says the latter of a missing key, to who may not list
            continue
        name = posixpath.basename(sidecar)
        try:
            parsed(packet)
        except BadXmpError as error:
            return replace(image, warnings=(*image.warnings, f"xmp_dropped: {name}: {error}"))
        replaced = ("XMP of the file itself (its .xmp file was taken)",) if image.metadata.xmp else ()
        source = replace(image.source, not_carried=(*image.source.not_carried, *replaced))
        return replace(image, source=source, metadata=replace(image.metadata, xmp=packet))
    return image
