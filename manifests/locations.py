"""Where images are: URIs joined to the place of their manifest."""

import posixpath
from urllib.parse import urlsplit

import fsspec


def is_absolute(uri: str) -> bool:
    """Whether `uri` stands for itself: has a scheme, or is an absolute local path."""
    return bool(urlsplit(uri).scheme) or uri.startswith("/")


def folder_of(manifest_uri: str) -> str:
    """The place that relative image paths of a manifest start from."""
    fs, path = fsspec.core.url_to_fs(manifest_uri)
    folder = path if fs.isdir(path) else posixpath.dirname(path)
    return fs.unstrip_protocol(folder)


def resolve(uri: str, base: str) -> str:
    """`uri` itself if absolute, else below `base`, which it may not leave.

    Raises:
        ValueError: a relative path climbs out of the manifest's folder.
    """
    if is_absolute(uri):
        return uri
    joined = posixpath.normpath(uri)
    if joined == ".." or joined.startswith("../"):
        raise ValueError(f"relative path {uri!r} leaves the manifest's folder; give an absolute URI instead")
    return f"{base.rstrip('/')}/{joined}"
