"""`export`: approved pictures under an archive's own names, with the records that its systems read.

Nothing at the destination is overwritten: a file of another content under a needed name ends the export before it
writes.
"""

import json
import posixpath
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from pipelines.curation.export.bag import bag
from pipelines.curation.export.c2pa import Certificate
from pipelines.curation.export.exported import Exported
from pipelines.curation.export.iiif import presentation, shown
from pipelines.curation.export.premis import premis
from pipelines.curation.review import approved
from pipelines.images import scratch
from pipelines.images.paint import check_luma, read_luma
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.names import provenance_key
from pipelines.ledger.results import OK, Output, ResultRow
from pipelines.store.fetch import fetch_uri
from pipelines.store.retry import Patience
from pipelines.store.store import Store


class ExportError(Exception):
    """The destination has another file under a needed name (then nothing was written), or a picture is damaged."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is exported, and how.

    Attributes:
        everything: also export rows without a decision; rejected rows are never exported.
        variants: also export the other prompts' pictures, as `..._a02` and so on.
        premis: write a PREMIS record beside each picture.
        bagit: make the destination a BagIt bag.
        iiif: write a Presentation manifest; the base URL at which the destination will be served.
        certificate: sign the pictures (C2PA).
    """

    everything: bool = False
    variants: bool = False
    premis: bool = False
    bagit: bool = False
    iiif: str | None = None
    certificate: Certificate | None = None


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
    pictures = {f"{inside}{name}": (row, picture) for name, (row, picture) in chosen.items()}
    if taken := _taken(target, pictures, inside, options):
        raise ExportError(f"{destination} has other files of these names: {', '.join(taken[:5])}; choose a new place")
    made = []
    for key, (row, picture) in pictures.items():
        made.append(_copy(store, target, key, row, picture, options))
    if options.iiif is not None:
        for key, content in presentation(store, made, f"{options.iiif.rstrip('/')}/{inside}").items():
            target.write(f"{inside}{key}", content)
    if options.bagit:
        bag(target)
    return [exported.key for exported in made]


def _chosen(store: Store, ledger: Ledger, options: Options) -> Iterator[tuple[ResultRow, list[Output]]]:
    """Rows and their pictures, the default first."""
    picked = {row.id: picture.sha256 for row, picture, _ in approved(store, ledger)}
    rejected = set()
    if options.everything:
        from pipelines.curation.review import REJECT, decisions

        rejected = {row_id for row_id, decision in decisions(store).items() if decision["decision"] == REJECT}
    for row in ledger.current():
        if row.status != OK or row.id in rejected or not (options.everything or row.id in picked):
            continue
        ordered = _picked_first(row.outputs, picked.get(row.id))
        yield row, ordered if options.variants else ordered[:1]


def _picked_first(outputs: Sequence[Output], picked: str | None) -> list[Output]:
    """The outputs, with the one whose sha256 is `picked` in front."""
    return sorted(outputs, key=lambda output: output.sha256 != picked)


def _common_folder(ledger: Ledger) -> str:
    """The deepest folder that holds all scans of the job; the folders below it are mirrored."""
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
    """Rows and pictures by their names at the destination.

    Names are `<folders>/<stem>_colorized.<ext>`, with `_p0003` for a page and `_a02` for an alternative. The stem is
    the scan's; for regions of a page, and where scans' names differ only in suffix or case, it is the row's id.
    """
    chosen = list(rows)
    stems = [_stem(row, common) for row, _ in chosen]
    times = Counter(stem.casefold() for stem in stems)
    named: dict[str, tuple[ResultRow, Output]] = {}
    for (row, outputs), stem in zip(chosen, stems, strict=True):
        if times[stem.casefold()] > 1:
            stem = "/".join([*stem.split("/")[:-1], row.id])
        for number, output in enumerate(outputs, start=1):
            alternative = f"_a{number:02d}" if number > 1 else ""
            named[f"{stem}_colorized{alternative}{PurePosixPath(output.image).suffix}"] = row, output
    return named


def _stem(row: ResultRow, common: str) -> str:
    """Folders and stem of a row's scan. No folder is empty or leads upwards; the stem begins with no dot."""
    is_url = (row.image or "").startswith(("http://", "https://"))
    place = unquote(urlsplit(row.image).path) if is_url else row.image or ""
    folder = "" if is_url else posixpath.dirname(place).removeprefix(common)
    folders = [part for part in folder.split("/") if part not in ("", ".", "..")]
    stem = row.id if row.regions or not place else PurePosixPath(place).stem.lstrip(".") or row.id
    page = f"_p{row.page:04d}" if row.page is not None and not row.regions else ""
    return "/".join([*folders, stem + page])


def _taken(target: Store, pictures: dict[str, tuple[ResultRow, Output]], inside: str, options: Options) -> list[str]:
    """Existing files at the destination that the export would overwrite.

    Files of the same export, interrupted before, do not count, unless they are signed: a signature contains its time,
    so no two signed files are equal.
    """
    there, ours = set(target.list("")), set()
    for key in pictures:
        ours |= {key, provenance_key(key)} | ({f"{key}.premis.xml"} if options.premis else set())
    if options.iiif is not None:
        ours |= {f"{inside}manifest.json", *(f"{inside}{preview}" for key in pictures for preview in shown(key))}
    same = set()
    for key, (_, picture) in pictures.items():
        if key in there and not options.certificate:
            with target.read_file(key) as file:
                if scratch.sha256_of_file(file) == picture.sha256:
                    same.add(key)
    # The records of a picture of ours are ours, too; the IIIF files are ours if any picture is.
    beside = {name for key in same for name in (key, provenance_key(key), f"{key}.premis.xml")}
    beside |= {name for name in ours - beside if same and name.startswith((f"{inside}iiif/", f"{inside}manifest.json"))}
    taken = (there & ours) - beside
    if options.bagit:  # a bag may hold nothing that it does not list
        taken |= there - ours - {"bagit.txt", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"}
    return sorted(taken)


def _copy(store: Store, target: Store, key: str, row: ResultRow, output: Output, options: Options) -> Exported:
    try:
        record = json.loads(store.read(provenance_key(output.image)))
    except FileNotFoundError as error:
        raise ExportError(
            f"the record of {output.image} is missing; run `verify`, then submit --retry-failed"
        ) from error
    with store.read_file(output.image) as file:
        if (actual := scratch.sha256_of_file(file)) != output.sha256:
            raise ExportError(f"{output.image} is damaged (sha256 {actual}); run `verify`, then submit --retry-failed")
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
    if row.image is None:  # its bytes were in the manifest
        return nullcontext()
    try:
        file = fetch_uri(row.image, patience=Patience(total=20.0))
    except Exception:  # each store has its own exceptions
        return nullcontext()
    if scratch.sha256_of_file(file) == row.input_sha256:
        return file
    file.close()
    return nullcontext()


def _signed(
    file: BinaryIO, row: ResultRow, output: Output, certificate: Certificate, record: dict[str, Any]
) -> tuple[BinaryIO, str]:
    """A signed copy with the same luminance, and "signed"; or the file itself, and why its format cannot be signed."""
    with tempfile.NamedTemporaryFile() as named:  # tifffile needs a file name
        signed = open(named.name, "w+b")  # noqa: SIM115 - the caller closes it
    with _scan(row) as scan:
        note = certificate.sign(file, signed, output.format or "", record, scan)
    if note is not None:
        signed.close()
        return file, note
    if wrong := check_luma(signed, read_luma(file)).mismatches:
        raise ExportError(f"signing changed {wrong} pixels of {row.id}; please report this")
    return signed, "signed"
