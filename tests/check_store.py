"""What must hold of an output after any fault and the run that follows it."""

import io
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.torch import load

from pipelines.ledger.identity import sha256
from pipelines.ledger.ledger import Ledger
from pipelines.operations.gc import collect
from pipelines.operations.status import status
from pipelines.store.store import Store


def results(output: str) -> list[dict]:
    """`results/` read as users do: one Parquet dataset."""
    store = Store(output)
    tables = [pq.read_table(pa.BufferReader(store.read(key))) for key in store.list("results")]
    return [row for table in tables for row in table.to_pylist()]


def check_visible(output: str) -> list[dict]:
    """Every object that a visible outcome names is there, whole, and opens. Returns the visible outcomes."""
    store = Store(output)
    rows = [row.to_record() for row in Ledger(store).current()]
    for row in rows:
        named = [(row["primary_image"], row["primary_sha256"]), (row["artifact"], row["artifact_sha256"])]
        named += [(one["image"], one["sha256"]) for one in row["outputs"]]
        for key, expected in named if row["status"] == "ok" else ():
            content = store.read(key)
            assert sha256(content) == expected, key
            if key.endswith(".png"):
                Image.open(io.BytesIO(content)).load()
            else:
                load(content)
    return rows


def check_store(ids: list[str], output: str, ok: int | None = None) -> list[dict]:
    """The job is done: every row of the manifest once, in its order; nothing else is left after `gc`."""
    visible, published = check_visible(output), results(output)
    assert [row["id"] for row in published] == ids
    assert [row["id"] for row in visible] == ids
    assert [row["row_digest"] for row in published] == [row["row_digest"] for row in visible]
    counts = Counter(row["status"] for row in published)
    assert counts["ok"] == (len(ids) if ok is None else ok), [
        (row["id"], row["error_kind"], row["error_message"]) for row in published if row["status"] != "ok"
    ]
    store = Store(output)
    found = status(store)
    assert (found.state, found.pending, found.ok) == ("finished", 0, counts["ok"])
    collect(store, grace_hours=0, log_days=0)
    named = {key for row in Ledger(store).current() for key in row.files}
    stored = [store.list(folder) for folder in ("images", "artifacts", "access", "report/previews")]
    assert set().union(*stored) == named
    for folder in ("_engine/checkpoints", "_engine/probe", "_engine/runs"):
        assert store.list(folder) == []
    assert store.temporary_files("") == []
    assert not [key for key in store.list("_engine/plans") if "/rows/" in key]
    return published
