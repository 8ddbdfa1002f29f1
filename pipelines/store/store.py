"""A folder on any fsspec store, addressed by keys below its root."""

import errno
import hashlib
import os
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from manifests.locations import redacted
from pipelines.errors import StoreError
from pipelines.store.fetch import fetched
from pipelines.store.filesystems import connected, find_all, is_store_fault, read_whole
from pipelines.store.local import create_file, replace_file
from pipelines.store.retry import FULL, OnRetry, Patience, Value, ignore_retry, response_of, retrying

_IN_ONE_PIECE = 64 << 20  # bytes, up to which a file is one request
_PUT_SECONDS, _PUT_BYTES_PER_SECOND = 60.0, 1e6


class StoreKeyError(ValueError):
    """A key that would leave the store's root."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"key {self.key!r} would leave the output folder"


class Store:
    """Reads and writes whole objects. A write is visible whole or not at all; listings are never cached.

    Transient faults are retried; every other fault, except a missing object, is a StoreError that names the object.

    Args:
        uri: a local path or any fsspec URI.
        preconditions: False on a store that ignores conditional writes: `create` falls back to check-then-write, which
            can race.
        on_retry: called with each fault that is waited out, and for how many seconds.
    """

    def __init__(
        self,
        uri: str,
        *,
        patience: Patience | None = None,
        preconditions: bool = True,
        on_retry: OnRetry = ignore_retry,
    ) -> None:
        self.fs, root = connected(uri)
        self.root = root.rstrip("/")
        self.uri = self.fs.unstrip_protocol(self.root)
        self.patience, self.preconditions, self.on_retry = patience or Patience(), preconditions, on_retry
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def with_timeout(self, seconds: float = 5.0) -> "Store":
        """The same store with a short retry budget, for heartbeats, logs and queries."""
        return Store(self.uri, patience=Patience(total=seconds), preconditions=self.preconditions)

    def path(self, key: str) -> str:
        """Full path of `key` for `fs`.

        Raises:
            StoreKeyError: the key is absolute, or climbs.
        """
        if not key:
            return self.root
        if key.startswith("/") or posixpath.normpath(key) != key or key.split("/")[0] == "..":
            raise StoreKeyError(key)
        return f"{self.root}/{key}"

    def read(self, key: str) -> bytes:
        """Raises FileNotFoundError."""
        return self._do("read", key, lambda path: read_whole(self.fs, path))

    def exists(self, key: str) -> bool:
        return self._do("look for", key, self.fs.exists)

    def modified(self, key: str) -> datetime:
        """When the object was last written, by the store's clock. Raises FileNotFoundError."""
        return self._do("look at", key, self.fs.modified)

    def clock(self) -> datetime:
        """The current time by the store's clock."""
        key = f"_engine/clock/{uuid.uuid4().hex}"
        self.write(key, b"now")
        try:
            return self.modified(key)
        finally:
            self.delete(key)

    def write_file(self, key: str, file: BinaryIO) -> None:
        """As `write`, from a local file; memory does not grow with it."""
        size = file.seek(0, 2)
        file.seek(0)
        if size <= _IN_ONE_PIECE:
            self.write(key, file.read())
        elif self.is_local:
            self._do("write", key, lambda path: replace_file(Path(path), file))
        else:
            seconds = _PUT_SECONDS + size / _PUT_BYTES_PER_SECOND
            mode = {"timeout": seconds} if self.fs.async_impl else {}
            with tempfile.NamedTemporaryFile() as named:  # uploads go by name, and what was read has none
                shutil.copyfileobj(file, named, 8 << 20)
                named.flush()

                def put(path: str) -> None:
                    self.fs.put_file(named.name, path, **mode)
                    self._check_size(path, size)

                self._do("write", key, put)

    def _check_size(self, path: str, expected: int) -> None:
        size = self.fs.info(path)["size"]
        if size != expected:
            raise OSError(errno.EIO, f"{size} bytes were stored of {expected}")

    def read_file(self, key: str) -> BinaryIO:
        """As `read`, into an unnamed local file. Raises FileNotFoundError."""
        return self._do("read", key, lambda path: fetched(self.fs, path))

    def write(self, key: str, content: bytes) -> None:
        """Creates or replaces an object, atomically."""

        def put(path: str) -> None:
            if self.is_local:
                replace_file(Path(path), content)
            else:
                self._put(path, content)

        self._do("write", key, put)

    def create(self, key: str, content: bytes) -> bool:
        """Creates an object unless it is there already, atomically: of all that try, one wins.

        Returns:
            Whether the object holds `content` now. A lost reply makes a winner's second try look like a loser's, so
            contents that must tell their writers apart need something of their own in them.
        """
        assert content, "some stores drop the condition of an empty write"
        if not self._do("create", key, lambda path: self._create(path, content)):
            try:
                return self.read(key) == content
            except FileNotFoundError:  # it was there, and went
                return False
        return True

    def _create(self, path: str, content: bytes) -> bool:
        if self.is_local:
            return create_file(Path(path), content)
        if not self.preconditions:
            if self.fs.exists(path):
                return False
            self._put(path, content)
            return True
        try:
            self._put(path, content, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if response_of(error).get("Error", {}).get("Code") == "PreconditionFailed":
                return False
            raise
        return True

    def _put(self, path: str, content: bytes, **mode: Any) -> None:
        """One PUT: `open("wb")` would publish a torn object on an exception. It has a deadline of its own, because a
        server that takes a connection and never answers holds botocore's for ever. What it says of the content is
        compared with it, and where it says nothing of use, the size that is stored."""
        if self.fs.async_impl:
            mode["timeout"] = _PUT_SECONDS + len(content) / _PUT_BYTES_PER_SECOND
        reply = self.fs.pipe_file(path, content, **mode)
        tag = str(reply.get("ETag", "")).strip('"') if isinstance(reply, dict) else ""
        if tag != hashlib.md5(content, usedforsecurity=False).hexdigest():  # it need not be, such as with KMS
            self._check_size(path, len(content))

    def delete(self, keys: str | Iterable[str]) -> None:
        """Removes objects; missing keys are ignored."""
        wanted = [keys] if isinstance(keys, str) else list(keys)
        if self.is_local:
            for key in wanted:
                self._do("delete", key, lambda path: Path(path).unlink(missing_ok=True))
            return
        for first in range(0, len(wanted), 1000):
            paths = [self.path(key) for key in wanted[first : first + 1000]]
            self._do("delete", wanted[first], partial(_remove_all, self.fs, paths))

    def prune(self, prefix: str) -> None:
        """Removes folder `prefix` and those below it that hold nothing; only a local store can have such."""
        if self.is_local:
            for folder, _, _ in os.walk(self.path(prefix), topdown=False):
                with suppress(OSError):  # it holds something
                    os.rmdir(folder)

    def temporary_files(self, prefix: str) -> list[str]:
        """Files that a killed writer left below folder `prefix`; only a local store can have them."""
        keys = self._list(prefix) if self.is_local else []
        return [key for key in keys if posixpath.basename(key).startswith(".")]

    def _list(self, prefix: str) -> list[str]:
        try:
            found = self._do("list", prefix, lambda path: find_all(self.fs, path))
        except FileNotFoundError:
            return []
        # Some S3 servers list a folder itself once it has become empty.
        return sorted(path[len(self.root) + 1 :] for path, facts in found.items() if facts["type"] == "file")

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders right below folder `prefix`, sorted."""
        try:
            found = self._do("list", prefix, lambda path: self.fs.ls(path, detail=True, refresh=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(posixpath.basename(entry["name"].rstrip("/")) for entry in found if entry["type"] == "directory")

    def list(self, prefix: str) -> list[str]:
        """Keys of all objects below folder `prefix`, sorted; temporary files of unfinished writes are not objects."""
        keys = self._list(prefix)
        return [key for key in keys if not posixpath.basename(key).startswith(".")]

    def _do(self, verb: str, key: str, call: Callable[[str], Value]) -> Value:
        path = self.path(key)
        try:
            return retrying(lambda: call(path), self.patience, self.on_retry)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except Exception as error:
            if not is_store_fault(error):
                raise
            raise StoreError(f"cannot {verb} {redacted(self.fs.unstrip_protocol(path))}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return f"permission denied ({error}); not retried"
    if isinstance(error, OSError) and error.errno in FULL:
        return "no space is left on it; free some and submit again"
    return f"{type(error).__name__}: {error}"


def _remove_all(fs: fsspec.AbstractFileSystem, paths: list[str], _first: str) -> None:
    try:
        fs.rm(paths)
    except FileNotFoundError:
        for path in paths:
            if fs.exists(path):
                fs.rm_file(path)
