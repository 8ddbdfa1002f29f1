"""A folder on any fsspec store, addressed by keys below its root."""

import errno
import os
import posixpath
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from manifests.locations import redacted
from pipelines.errors import StoreError
from pipelines.store.retry import FULL, Patience, Value, response_of, retrying

_GET_SECONDS = 3600.0
_IN_ONE_PIECE = 64 << 20  # bytes, up to which a file is one request
_PUT_SECONDS, _PUT_BYTES_PER_SECOND = 60.0, 1e6
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class StoreKeyError(ValueError):
    """A key that would leave the store's root."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"key {self.key!r} would leave the output folder"


class Store:
    """Reads and writes whole objects. A write is visible whole or not at all; listings are never cached.

    Transient faults are waited out; whatever else goes wrong, but for a missing object, is a StoreError that names it.

    Args:
        uri: a local path or any fsspec URI.
        preconditions: False on a store that ignores conditional writes: `create` then looks first and hopes.
        on_retry: told each fault that is waited out, and for how many seconds.
    """

    def __init__(
        self,
        uri: str,
        *,
        patience: Patience | None = None,
        preconditions: bool = True,
        on_retry: Callable[[BaseException, float], None] = lambda _error, _delay: None,
    ) -> None:
        self.fs, root = _connected(uri)
        self.root = root.rstrip("/")
        self.uri = self.fs.unstrip_protocol(self.root)
        self.patience, self.preconditions, self.on_retry = patience or Patience(), preconditions, on_retry
        self.requests: Counter[str] = Counter()  # asked for, by verb; those tried again count once
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def hurried(self, seconds: float = 5.0) -> "Store":
        """The same store for who has no time to wait: beats, events, questions."""
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
        return self._do("read", key, lambda path: self.fs.cat_file(path))

    def exists(self, key: str) -> bool:
        return self._do("look for", key, self.fs.exists)

    def modified(self, key: str) -> datetime:
        """When the object was last written, by the store's clock. Raises FileNotFoundError."""
        return self._do("look at", key, self.fs.modified)

    def clock(self) -> datetime:
        """What time it is by the store."""
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
            self._do("write", key, lambda path: _replace_file(Path(path), file))
        else:
            seconds = _PUT_SECONDS + size / _PUT_BYTES_PER_SECOND
            mode = {"timeout": seconds} if self.fs.async_impl else {}
            with tempfile.NamedTemporaryFile() as named:  # uploads go by name, and what was read has none
                shutil.copyfileobj(file, named, 8 << 20)
                named.flush()
                put = lambda path: self.fs.put_file(named.name, path, **mode)  # noqa: E731
                self._do("write", key, lambda path: self._check(path, size, put(path)))

    def _check(self, path: str, expected: int, _: object) -> None:
        size = self.fs.info(path)["size"]
        if size != expected:
            raise OSError(errno.EIO, f"{size} bytes were stored of {expected}")

    def read_file(self, key: str) -> BinaryIO:
        """As `read`, into an unnamed local file. Raises FileNotFoundError."""
        return self._do("read", key, lambda path: _fetched(self.fs, path))

    def write(self, key: str, content: bytes) -> None:
        """Creates or replaces an object, atomically."""

        def put(path: str) -> None:
            self._check(path, len(content), self._put(path, content))

        self._do("write", key, (lambda path: _replace_file(Path(path), content)) if self.is_local else put)

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
            return _create_file(Path(path), content)
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

    def _put(self, path: str, content: bytes, **mode: str) -> None:
        """One PUT: `open("wb")` would publish a torn object on an exception. It has a deadline of its own, because a
        server that takes a connection and never answers holds botocore's for ever."""
        if self.fs.async_impl:
            mode["timeout"] = _PUT_SECONDS + len(content) / _PUT_BYTES_PER_SECOND
        self.fs.pipe_file(path, content, **mode)

    def delete(self, keys: str | Iterable[str]) -> None:
        """Removes objects; those that are not there are none of its business."""
        keys = [keys] if isinstance(keys, str) else list(keys)
        if self.is_local:
            for key in keys:
                self._do("delete", key, lambda path: Path(path).unlink(missing_ok=True))
        for first in range(0, len(keys) if not self.is_local else 0, 1000):
            paths = [self.path(key) for key in keys[first : first + 1000]]
            self._do("delete", keys[first], lambda _, paths=paths: _remove(self.fs, paths))

    def litter(self, prefix: str) -> list[str]:
        """Temporary files that a killed writer left below folder `prefix`; only a local store can have them."""
        keys = self._list(prefix) if self.is_local else []
        return [key for key in keys if posixpath.basename(key).startswith(".")]

    def _list(self, prefix: str) -> list[str]:
        try:
            found = self._do("list", prefix, lambda path: self.fs.find(path, detail=True))
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
        return sorted(posixpath.basename(one["name"].rstrip("/")) for one in found if one["type"] == "directory")

    def list(self, prefix: str) -> list[str]:
        """Keys of all objects below folder `prefix`, sorted; temporary files of unfinished writes are not objects."""
        keys = self._list(prefix)
        return [key for key in keys if not posixpath.basename(key).startswith(".")]

    def _do(self, verb: str, key: str, call: Callable[[str], Value]) -> Value:
        path = self.path(key)
        self.requests[verb] += 1
        try:
            return retrying(lambda: call(path), self.patience, self.on_retry)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except (OSError, *_client_errors()) as error:
            raise StoreError(f"cannot {verb} {redacted(self.fs.unstrip_protocol(path))}: {_reason(error)}") from error


def _connected(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI, and the path there. On S3 nothing is tried again below us: botocore's tries within
    those of s3fs make a minute of each fault, and would be neither logged nor ended by our patience."""
    if not uri.startswith(("s3://", "s3a://")):
        return fsspec.core.url_to_fs(uri, use_listings_cache=False)
    config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "connect_timeout": 10, "read_timeout": 60}
    fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False, config_kwargs=config)
    fs.retries = 1
    return fs, path


def _client_errors() -> tuple[type[Exception], ...]:
    """Faults that s3fs lets through as they are: lost connections, cut bodies, missing credentials."""
    try:
        from aiohttp import ClientError as ConnectionFault
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return ()
    return BotoCoreError, ClientError, ConnectionFault


def _reason(error: BaseException) -> str:
    if isinstance(error, PermissionError):
        return f"permission denied ({error}); nothing was tried again"
    if isinstance(error, OSError) and error.errno in FULL:
        return "no space is left there; free some and submit again"
    return f"{type(error).__name__}: {error}"


def _remove(fs: fsspec.AbstractFileSystem, paths: list[str]) -> None:
    try:
        fs.rm(paths)
    except FileNotFoundError:
        for path in paths:
            if fs.exists(path):
                fs.rm_file(path)


def _write_temporary(target: Path, content: bytes | BinaryIO) -> Path:
    """A whole, synced file in the target's folder under a hidden name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content.seek(0)
                shutil.copyfileobj(content, file, 8 << 20)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    """A new name is on disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_file(target: Path, content: bytes | BinaryIO) -> None:
    temporary = _write_temporary(target, content)
    try:
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _create_file(target: Path, content: bytes) -> bool:
    temporary = _write_temporary(target, content)
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without hard links a reader may meet the record half written, for a moment.
        try:
            with target.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return True


def probe_preconditions(uri: str, patience: Patience | None = None) -> bool:
    """Whether this store keeps conditional writes: a second create fails, and of 8 at once one wins, 3 times."""
    from concurrent.futures import ThreadPoolExecutor

    store, folder = Store(uri, patience=patience), f"_engine/probe/{uuid.uuid4().hex}"
    used = [f"{folder}/{number}" for number in range(4)]

    def created(key: str, writer: int) -> bool:
        return store.create(key, f"writer {writer}".encode())

    try:
        if not created(used[0], 1) or created(used[0], 2):
            return False
        with ThreadPoolExecutor(8) as threads:
            return all(
                sum(threads.map(lambda writer, key=key: created(key, writer), range(8))) == 1 for key in used[1:]
            )
    except (StoreError, TypeError, ValueError, NotImplementedError):  # it does not even know them
        return False
    finally:
        store.delete(used)


def _fetched(fs: fsspec.AbstractFileSystem, path: str, limit: int | None = None) -> BinaryIO:
    """An object as an unnamed local file, copied: whoever changes it meanwhile does not change what we decode."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        try:
            if "http" in fs.protocol:  # a web server need not say how much it will send
                with fs.open(path, "rb", block_size=0) as source:
                    _copy(source, file, limit)
            else:
                mode = {"timeout": _GET_SECONDS} if fs.async_impl else {}
                fs.get_file(path, file.name, **mode)
            return open(file.name, "rb")
        finally:
            os.unlink(file.name)


def _copy(source: BinaryIO, target: BinaryIO, limit: int | None) -> None:
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
    on_retry: Callable[[BaseException, float], None] = lambda _error, _delay: None,
) -> BinaryIO:
    """The object at any fsspec URI as an unnamed local file; with `limit`, one of more bytes is an OSError."""
    fs, path = _connected(uri)

    def fetch() -> BinaryIO:
        if limit is not None and "http" not in fs.protocol:  # whose `info` calls every refusal a missing file
            facts = fs.info(path)
            if facts["type"] != "file":  # a device has no end
                raise OSError(f"a {facts['type']}, not a file")
            if facts.get("size") is not None and facts["size"] > limit:
                raise OSError(f"{facts['size']} bytes, limit {limit}")
        return _fetched(fs, path, limit)

    return retrying(fetch, patience or Patience(), on_retry)
