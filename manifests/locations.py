"""URIs and local paths, and image paths relative to the folder of their manifest."""

import os
import posixpath
from urllib.parse import urlsplit, urlunsplit

import fsspec


def absolute(place: str) -> str:
    """A URI unchanged, its host included; a local path as an absolute file:// URI."""
    return place if "://" in place else f"file://{os.path.abspath(place)}"


def folder_of(manifest_uri: str) -> str:
    """The folder that a manifest's relative image paths start from."""
    fs, path = fsspec.core.url_to_fs(manifest_uri)
    uri = absolute(manifest_uri).rstrip("/")
    return uri if fs.isdir(path) else posixpath.dirname(uri)


def resolve(uri: str, base: str) -> str:
    """`uri` itself if it has a scheme or is an absolute local path, else joined to `base`, which it may not leave.

    Raises:
        ValueError: a relative path climbs out of the manifest's folder.
    """
    if urlsplit(uri).scheme or uri.startswith("/"):
        return uri
    joined = posixpath.normpath(uri)
    if joined == ".." or joined.startswith("../"):
        raise ValueError(f"relative path {uri!r} leaves the manifest's folder; give an absolute URI instead")
    return f"{base.rstrip('/')}/{joined}"


def redacted(uri: str) -> str:
    """`uri` without what may be a secret: user and password, and the query of a presigned URL."""
    parts = urlsplit(uri)
    if not parts.scheme or not (parts.query or "@" in parts.netloc):
        return uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
