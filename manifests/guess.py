"""What a spreadsheet beside a folder of images most likely means: where it lies, and which of its columns is which."""

from collections.abc import Collection, Mapping, Sequence

import fsspec

from manifests.sources.folder import Finder
from manifests.sources.spreadsheet import Line

_CAPTIONS = (
    "caption", "captions", "title", "description", "bildunterschrift", "titel", "beschreibung", "légende", "legende",
    "titre", "título", "titulo", "leyenda", "descripción", "descripcion", "didascalia", "titolo", "dc:title",
    "ead:unittitle", "245$a",
)  # fmt: skip
_SUFFIXES = (".csv", ".tsv", ".xlsx")
_LEAST = 0.5  # of a column's cells that name an image, for it to be the column of files


def spreadsheets_beside(folder: str) -> list[str]:
    """URIs of the spreadsheets in a folder and beside it."""
    fs, root = fsspec.core.url_to_fs(folder)
    parent = root.rstrip("/").rpartition("/")[0]
    found: list[str] = []
    for place in dict.fromkeys((root, parent)):
        try:
            names = [str(path) for path in fs.ls(place, detail=False)] if place else []
        except (OSError, ValueError):  # no right to look there
            continue
        found += sorted(name for name in names if name.lower().endswith(_SUFFIXES) and not _is_hidden(name))
    return [fs.unstrip_protocol(path) if not _is_local(fs) else path for path in found]


def _is_hidden(path: str) -> bool:
    """Office keeps a file `~$name` beside each that is open."""
    return path.rpartition("/")[2].startswith((".", "~$"))


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple | list) else (fs.protocol,))


def guessed_columns(headings: Sequence[str], lines: Sequence[Line], images: Collection[str]) -> Mapping[str, str]:
    """`file` and `caption` to the headings that stand for them, where they are not called so: the column whose cells
    name images, and one that is called a title or a description in some language."""
    guessed: dict[str, str] = {}
    known = {heading.casefold(): heading for heading in headings}
    if "file" not in known:
        finder = Finder(images)

        def share(heading: str) -> float:
            cells = [line.cells.get(heading, "") for line in lines[:200]]
            return sum(len(finder.find(cell)) == 1 for cell in cells if cell) / max(1, len(cells))

        best = max(headings, key=share, default=None)
        if best is not None and share(best) >= _LEAST:
            guessed["file"] = best
    if "caption" not in known:
        named = [known[name] for name in _CAPTIONS if name in known and known[name] not in guessed.values()]
        if named:
            guessed["caption"] = named[0]
    return guessed
