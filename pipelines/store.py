"""A folder on any fsspec store, addressed by keys below its root."""

import os
import posixpath
import uuid
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem


class StoreKeyError(ValueError):
    """A key that would leave the store's root."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"key {self.key!r} would leave the output folder"


class Store:
    """Reads and writes whole objects. A write is visible whole or not at all; listings are never cached.

    Args:
        uri: a local path or any fsspec URI.
    """

    def __init__(self, uri: str) -> None:
        self.fs, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        self.root = root.rstrip("/")
        self.uri = self.fs.unstrip_protocol(self.root)

    def path(self, key: str) -> str:
        """Full path of `key` for `fs`.

        Raises:
            StoreKeyError: the key is absolute, or climbs.
        """
        if key.startswith("/") or posixpath.normpath(key) != key or key.split("/")[0] == "..":
            raise StoreKeyError(key)
        return f"{self.root}/{key}"

    def read(self, key: str) -> bytes:
        """Raises FileNotFoundError."""
        return self.fs.cat_file(self.path(key))

    def exists(self, key: str) -> bool:
        return self.fs.exists(self.path(key))

    def write(self, key: str, content: bytes) -> None:
        """Creates or replaces an object, atomically."""
        path = self.path(key)
        if not isinstance(self.fs, LocalFileSystem):
            self.fs.pipe_file(path, content)  # a single PUT; `open("wb")` would publish a torn object on an exception
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """Removes an object; nothing happens if it is not there."""
        if self.exists(key):
            self.fs.rm_file(self.path(key))

    def list(self, prefix: str) -> list[str]:
        """Keys of all objects below folder `prefix`, sorted; temporary files of unfinished writes are not objects."""
        try:
            found = self.fs.find(self.path(prefix), detail=True)
        except FileNotFoundError:
            return []
        # Some S3 servers list a folder itself once it has become empty.
        keys = (path[len(self.root) + 1 :] for path, facts in found.items() if facts["type"] == "file")
        return sorted(key for key in keys if not posixpath.basename(key).startswith("."))


def read_uri(uri: str, limit: int | None = None) -> bytes:
    """The bytes at any fsspec URI; with `limit`, a file of more bytes is not read and an OSError raised."""
    fs, path = fsspec.core.url_to_fs(uri)
    if limit is not None:
        size = fs.info(path).get("size")
        if size is not None and size > limit:
            raise OSError(f"{size} bytes, limit {limit}")
    return fs.cat_file(path)
