"""The images of a folder, and what is left out of it: other files, hidden ones, thumbnails, outputs of this program."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import fsspec

from manifests.errors import ManifestError, Problem
from manifests.locations import absolute

_THUMBNAILS = {"@eadir", "__macosx", "thumbs", "thumbnails", "$recycle.bin", "lost+found"}
_OF_OUTPUTS = {"_engine", "results", "report"}  # beside job.json


@dataclass(frozen=True)
class Folder:
    """What is in a folder.

    Attributes:
        images: URI by relative path, sorted by path.
        left_out: how many files were left out, by reason.
    """

    images: Mapping[str, str]
    left_out: Mapping[str, int]


def images_below(folder: str, suffixes: Collection[str]) -> Folder:
    """Looks through a folder and those below it.

    Args:
        folder: any fsspec URI.
        suffixes: of image files, lower case, with the dot.

    Raises:
        ManifestError: `not_found`, `denied`, or `no_images`.
    """
    place = absolute(folder).rstrip("/")
    try:
        fs, root = fsspec.core.url_to_fs(folder)
        if fs.isfile(root):
            raise ManifestError(folder, [Problem("not_found", None, None, "it is a file; give the folder of images")])
        files = sorted(fs.find(root))
        is_there = bool(files) or fs.isdir(root)
    except ManifestError:
        raise
    except PermissionError as error:
        raise ManifestError(folder, [Problem("denied", None, None, f"no permission to list it ({error})")]) from error
    except Exception as error:  # each store has exceptions of its own
        reason = f"cannot be listed ({type(error).__name__}: {error})"
        raise ManifestError(folder, [Problem("not_found", None, None, reason)]) from error
    if not is_there:
        raise ManifestError(folder, [Problem("not_found", None, None, "there is no such folder; check its name")])
    relative = [path.removeprefix(root).lstrip("/") for path in files]
    outputs = _outputs(relative)
    images, left_out = {}, Counter[str]()
    for path in relative:
        if why := _reason(path, suffixes, outputs):
            left_out[why] += 1
        else:
            images[path] = f"{place}/{path}"
    if not images:
        found = f"; left out: {said(left_out)}" if left_out else ""
        message = f"no {', '.join(sorted(suffixes))} below it{found}"
        raise ManifestError(folder, [Problem("no_images", None, None, message)])
    return Folder(images, dict(left_out.most_common()))


def said(left_out: Mapping[str, int]) -> str:
    """The reasons with their counts."""
    return ", ".join(f"{count} x {reason}" for reason, count in left_out.items())


def _outputs(paths: Iterable[str]) -> set[str]:
    """The folders that hold an output of this program."""
    jobs, parts = set(), defaultdict(set)
    for path in paths:
        pieces = PurePosixPath(path).parts
        if pieces[-1] == "job.json":
            jobs.add("/".join(pieces[:-1]))
        for depth, piece in enumerate(pieces[:-1]):
            if piece in _OF_OUTPUTS:
                parts["/".join(pieces[:depth])].add(piece)
    return {folder for folder in jobs if parts[folder]}


def _reason(path: str, suffixes: Collection[str], outputs: set[str]) -> str | None:
    """Why a file is left out."""
    pieces = PurePosixPath(path).parts
    if any("/".join(pieces[:depth]) in outputs for depth in range(len(pieces))):
        return "output of diffcolor-batch"
    if any(piece.startswith(".") for piece in pieces):
        return "hidden"
    if any(piece.casefold() in _THUMBNAILS for piece in pieces[:-1]):
        return "thumbnail or system file"
    suffix = PurePosixPath(path).suffix.lower()
    return None if suffix in suffixes else f"{suffix or 'no suffix'}, not an image format that is read"


class Finder:
    """Finds images by the names that people write into spreadsheets: a path, or a name alone if only one file has it,
    with or without its suffix, in any normalization of Unicode and any case."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._by: list[dict[str, list[str]]] = [defaultdict(list) for _ in _WAYS]
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            for way, found in zip(_WAYS, self._by, strict=True):
                found[way(path)].append(path)
            self._by_stem[str(PurePosixPath(_name(path)).with_suffix(""))].append(path)

    def find(self, name: str) -> list[str]:
        """The images that are meant; several: it is not clear which."""
        name = name.replace("\\", "/").removeprefix("./").lstrip("/")
        for way, found in zip(_WAYS, self._by, strict=True):
            if some := found.get(way(name)):
                return some
        return self._by_stem.get(_name(name), [])


def _normal(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _folded(path: str) -> str:
    return _normal(path).casefold()


def _name(path: str) -> str:
    return _folded(path).rpartition("/")[2]


_WAYS = (_normal, _folded, _name)
