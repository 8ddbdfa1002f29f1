"""A curator's decisions: read from a CSV, stored permanently, and carried out in `OUT/final/`.

The decisions of each applied CSV are stored as `review/<time>-<hash>.csv`; of two decisions on a row the later one
counts, and where several people must approve a picture (`review/rules.json`), the latest of each. `final/` holds
exactly the approved pictures, each with its record.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain

from diffcolor.errors import DiffColorError
from manifests.color_places import places_of
from manifests.errors import ManifestError, Problem
from pipelines.errors import RecolorError
from pipelines.images import scratch
from pipelines.ledger.identity import sha256
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.names import provenance_key
from pipelines.ledger.results import OK, Output, OutputKey, ResultRow
from pipelines.store.fetch import fetch_uri
from pipelines.store.store import Store

FOLDER, FINAL = "review", "final"
APPROVE, PICK, REJECT = "approve", "pick", "reject"
_RULES = f"{FOLDER}/rules.json"
_OURS = re.compile(rf"{FOLDER}/\d{{8}}-\d{{6}}-\d{{6}}-[0-9a-f]{{8}}\.csv")
_FORMULA = tuple("=+-@\t\r")
MAX_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A row of `decisions.csv`.

    `eta` is empty if the decision is on the picture itself; else it picks a runner-up of that picture's eta ladder,
    which is still to be sampled at full size. `hints` are colours that the curator knows, "x,y,color; x,y,width,height,
    color": the picture is made again with them.
    """

    id: str
    output_sha256: str
    decision: str
    prompt: str = ""
    eta: str = ""
    hints: str = ""
    reviewer: str = ""
    note: str = ""
    time: str = ""


_COLUMNS = tuple(Decision.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """The outcome of applying decisions.

    Attributes:
        applied: number of decisions that were applied.
        stale: ids whose picture was made anew since it was reviewed.
        unknown: ids that are not in the results.
        failed: by id, why a picked runner-up could not be made.
        final, removed: number of pictures in `final/`, and of those taken out of it.
        lacking: number of pictures that too few people have approved yet.
    """

    applied: int
    stale: tuple[str, ...]
    unknown: tuple[str, ...]
    failed: dict[str, str]
    final: int
    removed: int
    lacking: int = 0


class UnsignedError(ValueError):
    """A decision without a reviewer, where several people must approve."""


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """A row on which two CSVs decide differently."""

    id: str
    decisions: tuple[Decision, ...]

    def __str__(self) -> str:
        said = (f"{one.reviewer or 'somebody'} says {one.decision} ({one.output_sha256[:8]})" for one in self.decisions)
        return f"{self.id}: {', '.join(said)}"


def merged(files: Sequence[list[Decision]]) -> tuple[list[Decision], list[Conflict]]:
    """The decisions of several CSVs on which they agree, each person's, and those on which they do not."""
    by_id: dict[str, list[Decision]] = {}
    for decision in chain.from_iterable(files):
        by_id.setdefault(decision.id, []).append(decision)

    def substance(one: Decision) -> tuple[str, ...]:
        return (REJECT,) if one.decision == REJECT else (one.output_sha256, one.eta, one.hints)

    conflicts = [
        Conflict(id=row_id, decisions=tuple(each))
        for row_id, each in by_id.items()
        if len(set(map(substance, each))) > 1
    ]
    refused = {conflict.id for conflict in conflicts}
    agreed = [one for row_id, each in by_id.items() if row_id not in refused for one in each]
    return list(dict.fromkeys(agreed)), conflicts


def read_decisions(uri: str) -> list[Decision]:
    """Reads decisions from a CSV, as the report writes it or edited by hand; the last one of each id counts.

    Raises:
        ManifestError: names every invalid line.
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
    by_id, problems = {}, []
    for number, line in enumerate(lines):
        values = {name: _plain(line.get(name) or "") for name in _COLUMNS}
        decision = values["decision"].lower()
        if decision not in (APPROVE, PICK, REJECT):
            message = f"decision {values['decision']!r} is none of approve, pick, reject"
            problems.append(Problem("bad_decision", number, values["id"], message))
        try:
            float(values["eta"] or 0)
        except ValueError:
            problems.append(Problem("bad_eta", number, values["id"], f"eta {values['eta']!r} is not a number"))
        try:
            places_of(values["hints"])
        except ValueError as error:
            problems.append(Problem("bad_place", number, values["id"], f"hints: {error}"))
        by_id[values["id"]] = Decision(**{**values, "decision": decision})
    if problems:
        raise ManifestError(uri, problems)
    return list(by_id.values())


def _plain(cell: str) -> str:
    """A cell without the quote that keeps a spreadsheet from taking it for a formula."""
    cell = cell.strip()
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


def decisions(store: Store) -> dict[str, dict[str, str]]:
    """The latest decision on each row, by id. Files in the folder that are not named like ours are ignored."""
    return {decision["id"]: decision for decision in _kept(store)}


def _kept(store: Store) -> Iterator[dict[str, str]]:
    """All decisions, the oldest first."""
    for key in _files(store):
        for line in csv.DictReader(io.StringIO(store.read(key).decode(), newline="")):
            # A decision that is kept has its picture: known colours are that picture's.
            names = [name for name in _COLUMNS if name != "hints"]
            yield {name: _plain(line.get(name) or "") for name in names}


def _files(store: Store) -> list[str]:
    return [key for key in store.list(FOLDER) if _OURS.fullmatch(key)]


def approvals_needed(store: Store) -> int:
    """How many people must approve a picture."""
    try:
        return int(json.loads(store.read(_RULES))["approvals"])
    except FileNotFoundError:
        return 1


def _votes(store: Store) -> dict[str, dict[str, dict[str, str]]]:
    """The latest decision of each person, by id and reviewer."""
    votes: dict[str, dict[str, dict[str, str]]] = {}
    for decision in _kept(store):
        votes.setdefault(decision["id"], {})[decision["reviewer"]] = decision
    return votes


def _has_enough(votes: dict[str, dict[str, str]], digest: str, needed: int) -> bool:
    """Whether so many people approve a picture and nobody rejects it."""
    latest = list(votes.values())
    in_favour = sum(one["decision"] != REJECT and one["output_sha256"] == digest for one in latest)
    return in_favour >= needed and not any(one["decision"] == REJECT for one in latest)


def _to_csv(decided: list[Decision]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, _COLUMNS)
    writer.writeheader()
    for decision in decided:
        cells = {name: value for name, value in asdict(decision).items() if value}
        writer.writerow({name: "'" + value if value[:1] in _FORMULA else value for name, value in cells.items()})
    return buffer.getvalue().encode()


def _stamp() -> str:
    """The time of an application; what it stores is undone together."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")


def _keep(store: Store, stamp: str, decided: list[Decision]) -> None:
    if decided:
        content = _to_csv(decided)
        store.write(f"{FOLDER}/{stamp}-{sha256(content)[:8]}.csv", content)


def undo(output: str) -> tuple[list[str], int, int]:
    """Takes back the decisions that were applied last; their files go to `review/undone/`.

    Returns:
        The ids, and the numbers of pictures that `final/` holds and that were taken out of it.
    """
    store = Store(output)
    files, ids = _files(store), list[str]()
    for key in files:
        if key.rpartition("-")[0] == files[-1].rpartition("-")[0]:
            content = store.read(key)
            ids += [line["id"] for line in csv.DictReader(io.StringIO(content.decode(), newline=""))]
            store.write(f"{FOLDER}/undone/{key.removeprefix(f'{FOLDER}/')}", content)
            store.delete([key])
    return ids, *_finalize(store, Ledger(store))


def apply(output: str, decided: list[Decision], device: str = "auto", approvals: int | None = None) -> Reviewed:
    """Stores the decisions and makes `final/` hold the pictures that they and all earlier decisions approve.

    A picked runner-up of an eta ladder is sampled at full size, which needs no training. Where that fails, the reason
    is in `failed` and the other decisions still count. Applying the same decisions again changes nothing.

    Args:
        decided: one for each row, or one of each person.
        approvals: from now on so many people must approve a picture; None leaves that as it is.

    Raises:
        UnsignedError: several must approve, and a decision has no reviewer; nothing was changed.
    """
    store = Store(output)
    ledger = Ledger(store)
    needed = approvals or approvals_needed(store)
    if needed > 1 and (unsigned := [one.id for one in decided if not one.reviewer]):
        raise UnsignedError(f"{needed} people must approve a picture, and {unsigned[0]} has no reviewer")
    if needed != approvals_needed(store):
        store.write(_RULES, json.dumps({"approvals": needed}).encode())
    waiting: dict[str, list[Decision]] = {}
    for decision in decided:
        waiting.setdefault(decision.id, []).append(decision)
    stamp, ready, runners_up, stale = _stamp(), list[Decision](), list[tuple[Decision, Output]](), list[str]()
    for row in ledger.current():
        for decision in waiting.pop(row.id, ()):
            picture = _reviewed_output(row, decision.output_sha256) if row.status == OK else None
            prompt = picture.prompt if picture else decision.prompt
            is_to_be_made = bool(decision.eta or decision.hints) and decision.decision != REJECT
            existing = _output_at(row, prompt, decision, picture) if is_to_be_made else None
            if existing:  # sampled when these decisions were applied before
                ready.append(_made(decision, existing))
            elif picture is None:
                stale.append(decision.id)
            elif is_to_be_made:
                runners_up.append((replace(decision, prompt=prompt), picture))
            else:
                ready.append(decision)
    _keep(store, stamp, ready)
    failed = _sample(store, stamp, output, runners_up, device) if runners_up else {}
    final, removed = _finalize(store, ledger)
    lacking = sum(1 for row, picture, _ in _in_favour(store, ledger)) - sum(1 for _ in approved(store, ledger))
    return Reviewed(
        applied=len(ready) + len(runners_up) - len(failed),
        stale=tuple(stale),
        unknown=tuple(waiting),
        failed=failed,
        final=final,
        removed=removed,
        lacking=lacking,
    )


def _sample(
    store: Store, stamp: str, output: str, picked: list[tuple[Decision, Output]], device: str
) -> dict[str, str]:
    """Makes the picked runners-up of outputs, and stores each decision as soon as its picture exists.

    Returns:
        By id, why a runner-up could not be made.
    """
    from pipelines.curation.recolor import Recolorer

    recolorer, failed = Recolorer(output, device=device), {}
    for decision, reviewed in picked:
        try:
            eta = float(decision.eta or reviewed.eta)
            picture = recolorer.sample_at(decision.id, _wanted(decision, reviewed), eta)
        except (RecolorError, DiffColorError) as error:
            failed[decision.id] = str(error)
        else:
            _keep(store, stamp, [_made(decision, picture)])
    return failed


def _made(decision: Decision, picture: Output) -> Decision:
    """The decision, once the picture that it asks for exists."""
    return replace(decision, decision=PICK, output_sha256=picture.sha256, eta="", hints="")


def _reviewed_output(row: ResultRow, digest: str) -> Output | None:
    """The output with this sha256, None if the row does not have it any more."""
    return next((output for output in row.outputs if output.sha256 == digest), None)


def _output_at(row: ResultRow, prompt: str, decision: Decision, reviewed: Output | None) -> Output | None:
    """The output that the decision asks to be made, if it has been made already."""
    hints = tuple(map(str, places_of(decision.hints))) or (reviewed.hints if reviewed else None)
    eta = float(decision.eta) if decision.eta else reviewed.eta if reviewed else None
    return next(
        (
            output
            for output in row.outputs
            if output.prompt == prompt
            and output.eta == eta
            and (hints is None or output.hints == hints)
            and (reviewed is None or output.reference == reviewed.reference)
        ),
        None,
    )


def _wanted(decision: Decision, reviewed: Output) -> OutputKey:
    """What the decision asks to be made of the picture that was reviewed."""
    hints = tuple(map(str, places_of(decision.hints))) or reviewed.hints
    return reviewed.key._replace(hints=hints)


def approved(store: Store, ledger: Ledger) -> Iterator[tuple[ResultRow, Output, dict[str, str]]]:
    """Every row whose approved picture is still the one that was reviewed, with that picture and the decision; by as
    many people as must approve it."""
    needed = approvals_needed(store)
    votes = _votes(store) if needed > 1 else {}
    for row, picture, decision in _in_favour(store, ledger):
        if needed == 1 or _has_enough(votes[row.id], picture.sha256, needed):
            yield row, picture, decision


def _in_favour(store: Store, ledger: Ledger) -> Iterator[tuple[ResultRow, Output, dict[str, str]]]:
    """The same by the latest decision alone."""
    decided = decisions(store)
    for row in ledger.current():
        decision = decided.get(row.id)
        if not decision or decision["decision"] == REJECT or row.status != OK:
            continue
        if picture := _reviewed_output(row, decision["output_sha256"]):
            yield row, picture, decision


def _finalize(store: Store, ledger: Ledger) -> tuple[int, int]:
    """Makes `final/` hold the approved pictures with their records, and nothing else.

    A picture whose row cannot be seen stays: while a new plan is being made, the rows of the old one are not all there.

    Returns:
        Number of pictures that it holds, and of those that were removed.
    """
    there, now = set(store.list(FINAL)), set()
    seen = {row.id for row in ledger.current()}
    for row, picture, decision in approved(store, ledger):
        # The hash is part of the name, so a file of this name is this picture, even after an interruption.
        name = f"{FINAL}/{row.id}_colorized-{picture.sha256[:8]}.{picture.image.rpartition('.')[2]}"
        if name not in there:
            with store.read_file(picture.image) as file:
                if (actual := scratch.sha256_of_file(file)) != picture.sha256:
                    raise RecolorError(row.id, f"{picture.image} is damaged (sha256 {actual}); run `verify`")
                store.write_file(name, file)
        record = json.loads(store.read(provenance_key(picture.image)))
        content = json.dumps({**record, "review": decision}, indent=1, ensure_ascii=False)
        store.write(provenance_key(name), content.encode())
        now |= {name, provenance_key(name)}
    gone = {key for key in there - now if key.removeprefix(f"{FINAL}/").rpartition("_colorized-")[0] in seen}
    store.delete(sorted(gone))
    return sum(not key.endswith(".json") for key in (there | now) - gone), sum(
        not key.endswith(".json") for key in gone
    )
