"""`export`: approved pictures under an archive's own names, with the records that its systems read.

Nothing at the destination is overwritten: a name that exists with other bytes ends the export before it writes.
"""

import json
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from pipelines.export.bag import bag
from pipelines.export.c2pa import Certificate
from pipelines.export.iiif import presentation
from pipelines.export.premis import premis
from pipelines.images import scratch
from pipelines.images.paint import check_luma, read_luma
from pipelines.ledger import Ledger
from pipelines.names import provenance_key
from pipelines.results import OK, Output, ResultRow
from pipelines.retry import Patience
from pipelines.review import approved
from pipelines.store import Store, fetch_uri


class ExportError(Exception):
    """The destination, or two rows of the job, would have one name for two contents; nothing was written there."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is exported, and how.

    Attributes:
        everything: rows without a decision, too (not those rejected).
        variants: the other prompts' pictures, too, as `..._a02` and so on.
        premis, bagit: records beside the pictures; the destination as a BagIt bag.
        iiif: base URL at which the destination will be served, for a Presentation manifest.
        certificate: signs the pictures (C2PA).
    """

    everything: bool = False
    variants: bool = False
    premis: bool = False
    bagit: bool = False
    iiif: str | None = None
    certificate: Certificate | None = None


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One picture at its destination; `key` is below it."""

    key: str
    row: ResultRow
    output: Output
    record: dict[str, Any]
    sha256: str
    bytes: int


def export(output: str, destination: str, options: Options) -> list[str]:
    """Copies pictures and their records; returns the pictures' keys below the destination.

    Raises:
        ExportError: a name is taken.
    """
    store, target = Store(output), Store(destination)
    if target.uri == store.uri or f"{target.uri}/".startswith(f"{store.uri}/"):
        raise ExportError(f"{destination} is inside the output itself; export to a place of its own")
    ledger = Ledger(store)
    chosen = _named(_chosen(store, ledger, options), _common_folder(ledger))
    inside = "data/" if options.bagit else ""
    taken = _taken(target, {f"{inside}{name}": output for name, (_, output) in chosen.items()}, options)
    if taken:
        raise ExportError(f"{destination} has other files of these names: {', '.join(taken[:5])}; choose a new place")
    made = []
    for name, (row, picture) in chosen.items():
        made.append(_copy(store, target, f"{inside}{name}", row, picture, options))
    if options.iiif is not None:
        for key, content in presentation(store, made, f"{options.iiif.rstrip('/')}/{inside}").items():
            target.write(f"{inside}{key}", content)
    if options.bagit:
        bag(target)
    return [one.key for one in made]


def _chosen(store: Store, ledger: Ledger, options: Options) -> Iterator[tuple[ResultRow, list[Output]]]:
    """Rows and their pictures, the default first."""
    picked = {row.id: picture.sha256 for row, picture, _ in approved(store, ledger)}
    rejected = set()
    if options.everything:
        from pipelines.review import REJECT, decisions

        rejected = {row_id for row_id, one in decisions(store).items() if one["decision"] == REJECT}
    for row in ledger.current():
        if row.status != OK or row.id in rejected or not (options.everything or row.id in picked):
            continue
        ordered = sorted(row.outputs, key=lambda one, row=row: one.sha256 != picked.get(row.id))
        yield row, ordered if options.variants else ordered[:1]


def _common_folder(ledger: Ledger) -> str:
    """The folder that all scans of the job are in: what is below it is mirrored."""
    common: list[str] | None = None
    for row in ledger.current():
        if row.image:
            parts = posixpath.dirname(row.image).split("/")
            if common is None:
                common = parts
            while common != parts[: len(common)]:
                common = common[:-1]
    return "/".join(common or [])


def _named(rows: Iterator[tuple[ResultRow, list[Output]]], common: str) -> dict[str, tuple[ResultRow, Output]]:
    """`<folders>/<stem>_colorized.<ext>`; pages `_p0003`, alternatives `_a02`; pictures on a page go by their id."""
    named: dict[str, tuple[ResultRow, Output]] = {}
    for row, outputs in rows:
        place = unquote(urlsplit(row.image or "").path)
        folder = posixpath.dirname(row.image or "").removeprefix(common).strip("/")
        # Ids and folders are all that a name is made of: no part of it climbs, hides or is empty.
        folders = [unquote(part) for part in folder.split("/") if unquote(part) not in ("", ".", "..")]
        stem = row.id if row.regions or not place else PurePosixPath(place).stem.lstrip(".") or row.id
        stem = f"{stem.replace('/', '_')}" + (f"_p{row.page:04d}" if row.page is not None and not row.regions else "")
        for number, output in enumerate(outputs, start=1):
            alternative = f"_a{number:02d}" if number > 1 else ""
            suffix = PurePosixPath(output.image).suffix
            name = "/".join([*(part.replace("/", "_") for part in folders), f"{stem}_colorized{alternative}{suffix}"])
            if name in named:
                raise ExportError(f"rows {named[name][0].id} and {row.id} would both be {name}; nothing was written")
            named[name] = row, output
    return named


def _taken(target: Store, names: dict[str, Output], options: Options) -> list[str]:
    """Names that exist with other bytes. A signature has a time in it: no two signed files are alike."""
    there, taken = set(target.list("")), []
    for name, output in names.items():
        if name not in there:
            continue
        if options.certificate:
            taken.append(name)
            continue
        with target.read_file(name) as file:
            if scratch.sha256_of_file(file) != output.sha256:
                taken.append(name)
    if options.bagit and not taken and "bagit.txt" not in there and there:
        taken = sorted(there)
    return taken


def _copy(store: Store, target: Store, key: str, row: ResultRow, output: Output, options: Options) -> Exported:
    record = json.loads(store.read(provenance_key(output.image)))
    with store.read_file(output.image) as file:
        if (found := scratch.sha256_of_file(file)) != output.sha256:
            raise ExportError(f"{output.image} is damaged (sha256 {found}); run `verify`, then submit --retry-failed")
        if options.certificate:
            signed, note = _signed(file, row, output, options.certificate, record)
            record["c2pa"] = note
        else:
            signed = file
        target.write_file(key, signed)
        digest, size = scratch.sha256_of_file(signed), signed.tell()
        if signed is not file:
            signed.close()
    record["exported"] = {"name": key, "sha256": digest, "bytes": size}
    target.write(provenance_key(key), json.dumps(record, indent=1, ensure_ascii=False).encode())
    made = Exported(key=key, row=row, output=output, record=record, sha256=digest, bytes=size)
    if options.premis:
        target.write(f"{key}.premis.xml", premis(made.record, made.key, made.sha256, made.bytes))
    return made


def _scan(row: ResultRow) -> AbstractContextManager[BinaryIO | None]:
    """The scan's file, if it is still the one that was colorized."""
    try:
        file = fetch_uri(row.image, patience=Patience(total=20.0))
    except Exception:  # each store has exceptions of its own, and rows with their bytes in the manifest have no URI
        return nullcontext()
    if scratch.sha256_of_file(file) == row.input_sha256:
        return file
    file.close()
    return nullcontext()


def _signed(
    file: BinaryIO, row: ResultRow, output: Output, certificate: Certificate, record: dict[str, Any]
) -> tuple[BinaryIO, str]:
    """A signed copy whose pixels are what they were, and a word about it; the file itself where it cannot be signed."""
    signed = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the caller closes it
    with _scan(row) as scan:
        note = certificate.sign(file, signed, output.format or "", record, scan)
    if note is not None:
        signed.close()
        return file, note
    if wrong := check_luma(signed, read_luma(file)).mismatches:
        raise ExportError(f"signing changed {wrong} pixels of {row.id}; please report this")
    return signed, "signed"
