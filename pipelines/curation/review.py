"""A curator's decisions: read from a CSV, kept for good, and carried out in `OUT/final/`.

Each applied CSV is stored as it was understood, `review/<time>-<hash>.csv`; of two decisions on a row the later counts.
`final/` holds exactly the approved pictures, each with its record.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from diffcolor.errors import DiffColorError
from manifests.errors import ManifestError, Problem
from pipelines.errors import RecolorError
from pipelines.images import scratch
from pipelines.ledger.identity import sha256
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.names import provenance_key
from pipelines.ledger.results import OK, Output, ResultRow
from pipelines.store.store import Store, fetch_uri

FOLDER, FINAL = "review", "final"
APPROVE, PICK, REJECT = "approve", "pick", "reject"
_OURS = re.compile(rf"{FOLDER}/\d{{8}}-\d{{6}}-\d{{6}}-[0-9a-f]{{8}}\.csv")
_FORMULA = tuple("=+-@\t\r")
MAX_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A row of `decisions.csv`. `eta` is one of the ladder's, to be made; empty for the picture that was seen."""

    id: str
    output_sha256: str
    decision: str
    prompt: str = ""
    eta: str = ""
    reviewer: str = ""
    note: str = ""
    time: str = ""


_COLUMNS = tuple(Decision.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """What applying decisions came to. `stale` names ids whose picture was made anew since it was looked at, `failed`
    those whose picked runner-up could not be made."""

    applied: int
    stale: tuple[str, ...]
    unknown: tuple[str, ...]
    failed: dict[str, str]
    final: int
    removed: int


def read_decisions(uri: str) -> list[Decision]:
    """Decisions of a CSV, as the report writes it or as edited by hand; the last of each id.

    Raises:
        ManifestError: with every line that makes no sense.
    """
    with fetch_uri(uri, MAX_BYTES) as file:
        content = file.read()
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"not a CSV in UTF-8 ({error}); save it again from the report"
        raise ManifestError(uri, [Problem("bad_csv", None, None, message)]) from error
    if missing := {"id", "output_sha256", "decision"} - set(reader.fieldnames or ()):
        message = f"columns missing: {', '.join(sorted(missing))}; found {reader.fieldnames}"
        raise ManifestError(uri, [Problem("missing_column", None, None, message)])
    found, problems = {}, []
    for number, line in enumerate(lines):
        values = {name: _plain(line.get(name) or "") for name in _COLUMNS}
        decision = values["decision"].lower()
        if decision not in (APPROVE, PICK, REJECT):
            message = f"decision {values['decision']!r} is none of approve, pick, reject"
            problems.append(Problem("bad_decision", number, values["id"], message))
        try:
            float(values["eta"] or 0)
        except ValueError:
            problems.append(Problem("bad_eta", number, values["id"], f"eta {values['eta']!r} is no number"))
        found[values["id"]] = Decision(**{**values, "decision": decision})
    if problems:
        raise ManifestError(uri, problems)
    return list(found.values())


def _plain(cell: str) -> str:
    """A cell without the quote that keeps a spreadsheet from taking it for a formula."""
    cell = cell.strip()
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


def decisions(store: Store) -> dict[str, dict[str, str]]:
    """The decisions that count, by row id. Files of other names in the folder are somebody's own."""
    found: dict[str, dict[str, str]] = {}
    for key in store.list(FOLDER):
        if _OURS.fullmatch(key):
            for line in csv.DictReader(io.StringIO(store.read(key).decode(), newline="")):
                found[line["id"]] = {name: _plain(line.get(name) or "") for name in _COLUMNS}
    return found


def _written(made: list[Decision]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, _COLUMNS)
    writer.writeheader()
    for one in made:
        cells = {name: "'" + value if value[:1] in _FORMULA else value for name, value in asdict(one).items() if value}
        writer.writerow(cells)
    return buffer.getvalue().encode()


def _keep(store: Store, made: list[Decision]) -> None:
    if made:
        content = _written(made)
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        store.write(f"{FOLDER}/{stamp}-{sha256(content)[:8]}.csv", content)


def apply(output: str, made: list[Decision], device: str = "auto") -> Reviewed:
    """Keeps the decisions and makes `final/` hold what is approved by them and all earlier ones.

    A picked runner-up of an eta ladder is sampled at full size, which takes no training; one that cannot be is named in
    `failed`, and the other decisions count. Applying the same again changes nothing.
    """
    store = Store(output)
    ledger = Ledger(store)
    wanted, known, runners_up, stale = {one.id: one for one in made}, [], [], []
    for row in ledger.current():
        if (one := wanted.pop(row.id, None)) is None:
            continue
        picture = _seen(row, one.output_sha256) if row.status == OK else None
        prompt = picture.prompt if picture else one.prompt
        is_runner_up = bool(one.eta) and one.decision != REJECT
        there = next((x for x in row.outputs if x.prompt == prompt and is_runner_up and x.eta == float(one.eta)), None)
        if there:  # sampled when these decisions were applied before
            known.append(replace(one, output_sha256=there.sha256, eta=""))
        elif picture is None:
            stale.append(one.id)
        elif is_runner_up:
            runners_up.append(replace(one, prompt=prompt))
        else:
            known.append(one)
    _keep(store, known)
    failed = _sample(store, output, runners_up, device) if runners_up else {}
    final, removed = _finalize(store, ledger)
    return Reviewed(
        applied=len(known) + len(runners_up) - len(failed),
        stale=tuple(stale),
        unknown=tuple(wanted),
        failed=failed,
        final=final,
        removed=removed,
    )


def _sample(store: Store, output: str, picked: list[Decision], device: str) -> dict[str, str]:
    """Makes the picked runners-up, and keeps each decision as soon as its picture is there; what failed, and why."""
    from pipelines.curation.recolor import Recolorer

    recolorer, failed = Recolorer(output, device=device), {}
    for one in picked:
        try:
            made = recolorer.sample_at(one.id, one.prompt, float(one.eta))
        except (RecolorError, DiffColorError) as error:
            failed[one.id] = str(error)
        else:
            _keep(store, [replace(one, output_sha256=made.sha256, eta="")])
    return failed


def _seen(row: ResultRow, digest: str) -> Output | None:
    return next((one for one in row.outputs if one.sha256 == digest), None)


def approved(store: Store, ledger: Ledger) -> Iterator[tuple[ResultRow, Output, dict[str, str]]]:
    """Every row whose approved picture is still the one that was looked at, that picture, and the decision."""
    decided = decisions(store)
    for row in ledger.current():
        one = decided.get(row.id)
        if one and one["decision"] != REJECT and row.status == OK and (picture := _seen(row, one["output_sha256"])):
            yield row, picture, one


def _finalize(store: Store, ledger: Ledger) -> tuple[int, int]:
    """Makes `final/` hold the approved pictures with their records, and nothing else; counts of both."""
    there, now = set(store.list(FINAL)), set()
    for row, picture, decision in approved(store, ledger):
        # The hash is part of the name: what stands there under it is that picture, whoever was interrupted when.
        name = f"{FINAL}/{row.id}_colorized-{picture.sha256[:8]}.{picture.image.rpartition('.')[2]}"
        if name not in there:
            with store.read_file(picture.image) as file:
                if (found := scratch.sha256_of_file(file)) != picture.sha256:
                    raise RecolorError(row.id, f"{picture.image} is damaged (sha256 {found}); run `verify`")
                store.write_file(name, file)
        record = json.loads(store.read(provenance_key(picture.image)))
        content = json.dumps({**record, "review": decision}, indent=1, ensure_ascii=False)
        store.write(provenance_key(name), content.encode())
        now |= {name, provenance_key(name)}
    store.delete(sorted(there - now))
    return len(now) // 2, sum(not key.endswith(".json") for key in there - now)
