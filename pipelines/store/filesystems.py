"""The file systems behind URIs, by fsspec, and the faults that they let through."""

from typing import Any

import fsspec


def connected(uri: str, public: bool = False) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI, and the path there. On S3 all retries are ours: botocore's within those of s3fs would
    make a minute of each fault, unlogged, and beyond the job's own retry budget.

    Args:
        public: only servers with public addresses are asked, redirections included.
    """
    if public and uri.startswith(("http://", "https://")):
        from pipelines.store.public import client

        return fsspec.core.url_to_fs(uri, use_listings_cache=False, get_client=client)
    if not uri.startswith(("s3://", "s3a://")):
        return fsspec.core.url_to_fs(uri, use_listings_cache=False)
    config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "connect_timeout": 10, "read_timeout": 60}
    fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False, config_kwargs=config)
    fs.retries = 1
    return fs, path


def is_s3(fs: fsspec.AbstractFileSystem) -> bool:
    return "s3" in fs.protocol


def read_whole(fs: fsspec.AbstractFileSystem, path: str) -> bytes:
    """An object in one request: s3fs asks for the size first, unless it may not ask for parts at once."""
    return fs.cat_file(path, **({"max_concurrency": 1} if is_s3(fs) else {}))


def find_all(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    """Every object below a folder with its facts, in one request for each page: where it finds none, s3fs looks whether
    the folder is a file, unless the folder's name is a prefix."""
    parent, slash, name = path.rpartition("/")
    if is_s3(fs) and slash:
        return fs.find(parent, prefix=f"{name}/", detail=True)
    return fs.find(path, detail=True)


def is_store_fault(error: Exception) -> bool:
    """Whether a file system raised: an OSError, or what s3fs lets through (lost connections, cut bodies, missing
    credentials)."""
    if isinstance(error, OSError):
        return True
    try:
        from aiohttp import ClientError as ConnectionFault
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return False
    return isinstance(error, (BotoCoreError, ClientError, ConnectionFault))
