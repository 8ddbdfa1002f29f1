"""URIs and local paths, and image paths relative to the folder of their manifest."""

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

import fsspec

SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https")
_WEB = ("http://", "https://")


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What the rows of a manifest may reach: it may have been written by others, and is read with our rights.

    Attributes:
        prefixes: of the URIs that are allowed; None for any. Web servers with public addresses are always allowed.
        schemes: besides `SCHEMES`.
    """

    prefixes: tuple[str, ...] | None = None
    schemes: tuple[str, ...] = ()

    @staticmethod
    def of(manifest: str, allowed: Sequence[str] = (), schemes: Sequence[str] = ()) -> "Reach":
        """A local manifest reaches anything; another its own bucket or server, and what is `allowed` by its beginning.

        Raises:
            ValueError: something allowed is no beginning of a URI, such as s3://bucket/folder/.
        """
        for prefix in allowed:
            if not re.match(r"[a-z][a-z0-9+.-]*://", prefix):
                raise ValueError(f"{prefix!r} is no beginning of a URI, such as s3://bucket/folder/ or file:///srv/")
        parts = urlsplit(absolute(manifest))
        if parts.scheme == "file":
            return Reach(schemes=tuple(schemes))
        own = f"{parts.scheme}://{parts.netloc}/"
        wider = tuple(prefix if prefix.endswith("/") else f"{prefix}/" for prefix in allowed)
        return Reach(prefixes=(own, *wider), schemes=tuple(schemes))

    def check(self, uri: str) -> str:
        """The URI. Raises ValueError where it is not allowed."""
        uri_or_path = uri if "://" in uri else f"file://{uri}"
        if self.prefixes is not None and ".." in unquote(urlsplit(uri_or_path).path).split("/"):
            raise ValueError(f"{redacted(uri)!r} climbs with '..'; name the place itself")
        if self.prefixes is None or uri_or_path.startswith(self.prefixes) or uri.startswith(_WEB):
            return uri
        raise ValueError(
            f"{redacted(uri)!r} is outside the manifest's own {self.prefixes[0]}; where that is meant, allow it: "
            f"--allow-input {_beginning(uri_or_path)}"
        )

    def needs_public_address(self, uri: str) -> bool:
        """Whether the server of a URI must have a public address: loopback, private networks and the metadata servers
        of clouds are nothing that a stranger's manifest may ask."""
        return self.prefixes is not None and uri.startswith(_WEB) and not uri.startswith(self.prefixes[1:])


def _beginning(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}{posixpath.dirname(parts.path) if parts.scheme == 'file' else ''}/"


def absolute(place: str) -> str:
    """A URI unchanged, its host included; a local path as an absolute file:// URI."""
    return place if "://" in place else f"file://{os.path.abspath(place)}"


def folder_of(manifest_uri: str) -> str:
    """The folder that a manifest's relative image paths start from."""
    fs, path = fsspec.core.url_to_fs(manifest_uri)
    uri = absolute(manifest_uri).rstrip("/")
    return uri if fs.isdir(path) else posixpath.dirname(uri)


def resolve(uri: str, base: str, reach: Reach | None = None) -> str:
    """`uri` itself if it has a scheme or is an absolute local path, else joined to `base`, which it may not leave.

    A manifest may come from others: it reaches files, buckets and web servers, but none of the other places and
    programs that fsspec can open.

    Args:
        reach: what is allowed; anything, if not given.

    Raises:
        ValueError: it is none of these; the message says what to give instead.
    """
    reach = reach or Reach()
    if "::" in uri:
        raise ValueError(f"{redacted(uri)!r}: '::' joins several URIs, which is refused; name the object itself")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", uri):
        raise ValueError(f"{uri!r} is a Windows path; use a path relative to the manifest, or file:///...")
    if uri.startswith("~"):
        raise ValueError(f"{uri!r}: '~' is not expanded; give the whole path, or one relative to the manifest")
    scheme = urlsplit(uri).scheme.lower()
    if scheme and scheme not in (*SCHEMES, *reach.schemes):
        known = ", ".join((*SCHEMES, *reach.schemes))
        raise ValueError(
            f"{redacted(uri)!r}: the scheme {scheme!r} is none of {known}; allow it: --allow-scheme {scheme}"
        )
    if scheme and "@" in urlsplit(uri).netloc:
        raise ValueError(f"{redacted(uri)!r} held a user name or a password; give credentials in the environment")
    if scheme or uri.startswith("/"):
        return reach.check(uri)
    joined = posixpath.normpath(uri)
    if joined == ".." or joined.startswith("../"):
        raise ValueError(f"relative path {uri!r} leaves the manifest's folder; give an absolute URI instead")
    return f"{base.rstrip('/')}/{joined}"


def redacted(uri: str) -> str:
    """`uri` without what may be a secret: user and password, and the query of a presigned URL; of each link of a
    chain."""
    return "::".join(map(_redacted, uri.split("::")))


def without_secrets(text: str) -> str:
    """A message whose URIs, as a library may have quoted them anew, are redacted."""

    def without(uri: re.Match[str]) -> str:
        try:
            return redacted(uri[0])
        except ValueError:  # no URI after all
            return uri[0].partition("?")[0].rpartition("@")[2]

    return re.sub(r"[a-z0-9+]+://[^\s'\"]+", without, text, flags=re.IGNORECASE)


def _redacted(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    place, slash, path = rest.partition("/")
    bare = f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"
    return urlunsplit((*urlsplit(bare)[:3], "", "")) if "?" in bare else bare
