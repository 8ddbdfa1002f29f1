"""Series: the pictures of a group take the colours of the one that was approved."""

from collections.abc import Iterator

from manifests.read import RecolorRequest
from pipelines.curation.review import approved
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.results import OK, ResultRow
from pipelines.store.store import Store


def series_requests(store: Store, group: str) -> Iterator[RecolorRequest]:
    """One request for each row of a group: colours like those of its first approved picture, else of its first picture.

    The approved rows are left as they are.

    Raises:
        LookupError: the group has no finished row; the message says which groups there are.
    """
    ledger = Ledger(store)
    rows: list[ResultRow] = []
    others: set[str] = set()
    for row in ledger.current():
        if row.group_id == group and row.status == OK:
            rows.append(row)
        elif row.group_id and len(others) < 20:
            others.add(row.group_id)
    if not rows:
        known = f"; groups are, for example, {', '.join(sorted(others))}" if others else "; no row has a group_id"
        raise LookupError(f"no finished row has the group_id {group!r}{known}")
    chosen = {row.id: picture for row, picture, _ in approved(store, ledger) if row.group_id == group}
    model = next((row for row in rows if row.id in chosen), rows[0])
    picture = chosen.get(model.id, model.outputs[0])
    for row in rows:
        if row.id != model.id and row.id not in chosen:
            yield RecolorRequest(id=row.id, reference=picture.image)


def undecided_in_group(store: Store, ids: set[str]) -> dict[str, int]:
    """Of the groups of these rows, by group_id, how many finished rows are not approved yet."""
    ledger = Ledger(store)
    done = {row.id for row, _, _ in approved(store, ledger)}
    grouped = [(row.id, row.group_id) for row in ledger.current() if row.group_id and row.status == OK]
    groups = {group for row_id, group in grouped if row_id in ids & done}
    counts = {group: sum(one == group and row_id not in done for row_id, one in grouped) for group in groups}
    return {group: count for group, count in counts.items() if count}
