"""A curator's decisions: read from a CSV, kept for good, and carried out in `OUT/final/`.

Each applied CSV is stored as it was understood, `review/<time>-<hash>.csv`; of two decisions on a row the later counts.
`final/` holds exactly the approved pictures, each with its record.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from manifests.errors import ManifestError, Problem
from pipelines.identity import sha256
from pipelines.ledger import Ledger
from pipelines.names import provenance_key
from pipelines.results import OK, Output, ResultRow
from pipelines.store import Store, fetch_uri

FOLDER, FINAL = "review", "final"
APPROVE, PICK, REJECT = "approve", "pick", "reject"
_INDEX = f"{FINAL}/index.json"
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
    """What applying decisions came to. `stale` names ids whose picture was made anew since it was looked at."""

    applied: int
    stale: tuple[str, ...]
    unknown: tuple[str, ...]
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
    return cell[1:] if cell[:1] == "'" and cell[1:2] in "=+-@\t\r" else cell


def decisions(store: Store) -> dict[str, dict[str, str]]:
    """The decisions that count, by row id."""
    found: dict[str, dict[str, str]] = {}
    for key in store.list(FOLDER):
        for line in csv.DictReader(io.StringIO(store.read(key).decode(), newline="")):
            found[line["id"]] = line
    return found


def _written(made: list[Decision]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, _COLUMNS)
    writer.writeheader()
    writer.writerows(asdict(one) for one in made)
    return buffer.getvalue().encode()


def apply(output: str, made: list[Decision], device: str = "auto") -> Reviewed:
    """Keeps the decisions and makes `final/` hold what is approved by them and all earlier ones.

    A picked runner-up of an eta ladder is sampled at full size first, which takes no training.

    Raises:
        RecolorError: a picked runner-up cannot be sampled.
    """
    store = Store(output)
    ledger = Ledger(store)
    wanted, known, stale = {one.id: one for one in made}, [], []
    for row in ledger.current():
        if (one := wanted.pop(row.id, None)) is None:
            continue
        (known if row.status == OK and _seen(row, one.output_sha256) else stale).append(one)
    known = _with_runners_up(output, known, device)
    if known:
        content = _written(known)
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        store.write(f"{FOLDER}/{stamp}-{sha256(content)[:8]}.csv", content)
    final, removed = _finalize(store, ledger)
    return Reviewed(
        applied=len(known),
        stale=tuple(one.id for one in stale),
        unknown=tuple(wanted),
        final=final,
        removed=removed,
    )


def _seen(row: ResultRow, digest: str) -> Output | None:
    return next((one for one in row.outputs if one.sha256 == digest), None)


def _with_runners_up(output: str, known: list[Decision], device: str) -> list[Decision]:
    """The decisions, those for another eta now naming the picture that was made with it."""
    if not any(one.eta and one.decision != REJECT for one in known):
        return known
    from pipelines.recolor import Recolorer

    recolorer, settled = Recolorer(output, device=device), []
    for one in known:
        if one.eta and one.decision != REJECT:
            made = recolorer.sample_at(one.id, one.prompt, float(one.eta))
            one = replace(one, output_sha256=made.sha256, eta="")
        settled.append(one)
    return settled


def approved(store: Store, ledger: Ledger) -> Iterator[tuple[ResultRow, Output, dict[str, str]]]:
    """Every row whose approved picture is still the one that was looked at, that picture, and the decision."""
    decided = decisions(store)
    for row in ledger.current():
        one = decided.get(row.id)
        if one and one["decision"] != REJECT and row.status == OK and (picture := _seen(row, one["output_sha256"])):
            yield row, picture, one


def _finalize(store: Store, ledger: Ledger) -> tuple[int, int]:
    try:
        before = json.loads(store.read(_INDEX))
    except FileNotFoundError:
        before = {}
    now: dict[str, str] = {}
    for row, picture, decision in approved(store, ledger):
        suffix = picture.image.rpartition(".")[2]
        name = f"{FINAL}/{row.id}_colorized.{suffix}"
        if before.get(name) != picture.sha256:
            with store.read_file(picture.image) as file:
                store.write_file(name, file)
        record = json.loads(store.read(provenance_key(picture.image)))
        store.write(provenance_key(name), json.dumps({**record, "review": decision}, indent=1).encode())
        now[name] = picture.sha256
    gone = sorted(before.keys() - now.keys())
    store.write(_INDEX, json.dumps(now, indent=1).encode())
    store.delete([*gone, *map(provenance_key, gone)])
    return len(now), len(gone)
