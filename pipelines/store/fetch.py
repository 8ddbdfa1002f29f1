"""Objects at any URI as local files."""

import os
import tempfile
from typing import IO, BinaryIO

import fsspec

from pipelines.store.filesystems import connected
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
                mode = {"timeout": _GET_SECONDS} if fs.async_impl else {}
                fs.get_file(path, file.name, **mode)
            return open(file.name, "rb")
        finally:
            os.unlink(file.name)


def _copy(source: IO[bytes], target: IO[bytes], limit: int | None) -> None:
    total = 0
    while chunk := source.read(8 << 20):
        total += len(chunk)
        if limit is not None and total > limit:
            raise OSError(f"more than {limit} bytes")
        target.write(chunk)
    target.flush()


def fetch_uri(
    uri: str,
    limit: int | None = None,
    patience: Patience | None = None,
    on_retry: OnRetry = ignore_retry,
) -> BinaryIO:
    """The object at any fsspec URI as an unnamed local file. More bytes than `limit` are an OSError."""
    fs, path = connected(uri)

    def fetch() -> BinaryIO:
        if limit is not None and "http" not in fs.protocol:  # over HTTP `info` reports every refusal as a missing file
            facts = fs.info(path)
            if facts["type"] != "file":  # a device has no end
                raise OSError(f"a {facts['type']}, not a file")
            if facts.get("size") is not None and facts["size"] > limit:
                raise OSError(f"{facts['size']} bytes, limit {limit}")
        return fetched(fs, path, limit)

    return retrying(fetch, patience or Patience(), on_retry)
