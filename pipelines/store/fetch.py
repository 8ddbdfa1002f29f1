"""Objects at any URI as local files."""

import os
import posixpath
import tempfile
from collections.abc import Sequence
from typing import IO, Any, BinaryIO

import fsspec
from fsspec.callbacks import Callback

from pipelines.store.filesystems import connected, is_s3
from pipelines.store.retry import OnRetry, Patience, ignore_retry, retrying

_GET_SECONDS = 3600.0


def fetched(fs: fsspec.AbstractFileSystem, path: str, limit: int | None = None) -> BinaryIO:
    """A copy of an object as an unnamed local file: changes to the object do not reach what we decode."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        try:
            if "http" in fs.protocol:  # a web server may not announce the size; with one given, fsspec asks once
                with fs.open(path, "rb", block_size=0, size=1) as source:
                    _copy(source, file, limit)
            else:
                mode: dict[str, Any] = {"timeout": _GET_SECONDS} if fs.async_impl else {}
                fs.get_file(path, file.name, callback=_SizeLimit(limit), **mode)
            return open(file.name, "rb")
        finally:
            os.unlink(file.name)


class _SizeLimit(Callback):
    """Refuses an object as soon as its store says how large it is."""

    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self.limit = limit

    def set_size(self, size: int | None) -> None:
        super().set_size(size)
        if self.limit is not None and size is not None and size > self.limit:
            raise OSError(f"{size} bytes, limit {self.limit}")


def _copy(source: IO[bytes], target: IO[bytes], limit: int | None) -> None:
    total = 0
    while chunk := source.read(8 << 20):
        total += len(chunk)
        if limit is not None and total > limit:
            raise OSError(f"more than {limit} bytes")
        target.write(chunk)
    target.flush()


def beside(uri: str, candidates: Sequence[str], patience: Patience, on_retry: OnRetry = ignore_retry) -> Sequence[str]:
    """Those of `candidates`, which begin as `uri` does up to its suffix, that may be there: on S3 one request tells."""
    fs, path = connected(uri)
    if not is_s3(fs):
        return candidates
    folder, _, name = path.rpartition("/")
    stem = posixpath.splitext(name)[0]
    try:
        found = retrying(lambda: fs.find(folder, prefix=f"{stem}."), patience, on_retry)
    except (OSError, ValueError):  # no right to list
        return candidates
    return [candidate for candidate in candidates if fs._strip_protocol(candidate) in found]


def fetch_uri(
    uri: str,
    limit: int | None = None,
    patience: Patience | None = None,
    on_retry: OnRetry = ignore_retry,
    public: bool = False,
) -> BinaryIO:
    """The object at any fsspec URI as an unnamed local file. More bytes than `limit` are an OSError.

    Args:
        public: over the web, from servers with public addresses alone; from another it is a PermissionError.
    """
    fs, path = connected(uri, public)

    def fetch() -> BinaryIO:
        # Over HTTP `info` reports every refusal as a missing file, and on S3 it is a request of its own.
        if limit is not None and "http" not in fs.protocol and not is_s3(fs):
            facts = fs.info(path)
            if facts["type"] != "file":  # a device has no end
                raise OSError(f"a {facts['type']}, not a file")
            if facts.get("size") is not None and facts["size"] > limit:
                raise OSError(f"{facts['size']} bytes, limit {limit}")
        try:
            return fetched(fs, path, limit)
        except OSError as error:
            if isinstance(refused := getattr(error, "os_error", None), PermissionError):  # `public`'s
                raise PermissionError(str(refused)) from None  # what it came from would be tried again
            raise

    return retrying(fetch, patience or Patience(), on_retry)
