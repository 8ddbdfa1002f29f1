"""Ids from file names and shelf marks: readable, unique, and as stable as the names are."""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from anyascii import anyascii

MAX_ID = 128
_HASH = 8  # hex digits
# Of files that differ in their suffix alone, the first of these is the master.
_MASTERS = (".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg")


def slug_id(name: str) -> str:
    """A text as an id: transliterated to ASCII, "-" for characters that an id may not have, long ones shortened."""
    plain = anyascii(unicodedata.normalize("NFC", name))
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "image"
    return slug if len(slug) <= MAX_ID else f"{slug[: MAX_ID - _HASH - 1].rstrip('-.')}-{_hash(name)}"


def ids_of(paths: Iterable[str]) -> Mapping[str, str]:
    """By relative path, an id from the path without its suffix.

    Where files differ in their suffix alone, the master keeps the id and the others get their suffix added; where
    different names become one id, those whose names were changed get a hash of their path added.
    """
    by_id: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_id[slug_id(stem_of(path)).casefold()].append(path)
    ids = {}
    for some in by_id.values():
        if len(some) == 1:
            ids[some[0]] = slug_id(stem_of(some[0]))
            continue
        by_stem: dict[str, list[str]] = defaultdict(list)
        for path in some:
            by_stem[stem_of(path)].append(path)
        for stem, same in by_stem.items():
            slug = slug_id(stem)
            first = slug if len(by_stem) == 1 or slug == stem else _with_hash(slug, stem)
            for number, path in enumerate(sorted(same, key=_rank)):
                suffix = PurePosixPath(path).suffix.removeprefix(".").lower()
                ids[path] = first if not number else slug_id(f"{first}-{suffix}")
    return _all_different(ids)


def _all_different(ids: dict[str, str]) -> dict[str, str]:
    """What still has another's id, such as "a.TIF" beside "a.tif", gets a hash, too."""
    seen: set[str] = set()
    for path, one in ids.items():
        if one.casefold() in seen:
            ids[path] = _with_hash(one, path)
        seen.add(ids[path].casefold())
    return ids


def stem_of(path: str) -> str:
    """A path without its suffix."""
    return str(PurePosixPath(path).with_suffix(""))


def _rank(path: str) -> tuple[int, str]:
    suffix = PurePosixPath(path).suffix.lower()
    return (_MASTERS.index(suffix) if suffix in _MASTERS else len(_MASTERS), path)


def _with_hash(slug: str, name: str) -> str:
    return f"{slug[: MAX_ID - _HASH - 1]}-{_hash(name)}"


def _hash(name: str) -> str:
    return hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")).hexdigest()[:_HASH]
