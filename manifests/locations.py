"""URIs and local paths, and image paths relative to the folder of their manifest."""

import os
import posixpath
import re
from urllib.parse import urlsplit, urlunsplit

import fsspec

SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https")


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

    A manifest may come from others: it reaches files, buckets and web servers, but none of the other places and
    programs that fsspec can open.

    Raises:
        ValueError: it is none of these; the message says what to give instead.
    """
    if "::" in uri:
        raise ValueError(f"{redacted(uri)!r}: '::' joins several URIs, which is refused; name the object itself")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", uri):
        raise ValueError(f"{uri!r} is a Windows path; use a path relative to the manifest, or file:///...")
    if uri.startswith("~"):
        raise ValueError(f"{uri!r}: '~' is not expanded; give the whole path, or one relative to the manifest")
    scheme = urlsplit(uri).scheme.lower()
    if scheme and scheme not in SCHEMES:
        raise ValueError(f"{redacted(uri)!r}: the scheme {scheme!r} is none of {', '.join(SCHEMES)}")
    if scheme and "@" in urlsplit(uri).netloc:
        raise ValueError(f"{redacted(uri)!r} held a user name or a password; give credentials in the environment")
    if scheme or uri.startswith("/"):
        return uri
    joined = posixpath.normpath(uri)
    if joined == ".." or joined.startswith("../"):
        raise ValueError(f"relative path {uri!r} leaves the manifest's folder; give an absolute URI instead")
    return f"{base.rstrip('/')}/{joined}"


def redacted(uri: str) -> str:
    """`uri` without what may be a secret: user and password, and the query of a presigned URL; of each link of a
    chain."""
    return "::".join(map(_redacted, uri.split("::")))


def _redacted(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    place, slash, path = rest.partition("/")
    bare = f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"
    return urlunsplit((*urlsplit(bare)[:3], "", "")) if "?" in bare else bare
