"""The file systems behind URIs, by fsspec, and the faults that they let through."""

import fsspec


def connected(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI, and the path there. On S3 all retries are ours: botocore's within those of s3fs would
    make a minute of each fault, unlogged, and beyond the job's own retry budget."""
    if not uri.startswith(("s3://", "s3a://")):
        return fsspec.core.url_to_fs(uri, use_listings_cache=False)
    config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "connect_timeout": 10, "read_timeout": 60}
    fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False, config_kwargs=config)
    fs.retries = 1
    return fs, path


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
