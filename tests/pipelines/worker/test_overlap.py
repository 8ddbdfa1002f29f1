"""Reading ahead, computing and writing at the same time, with rows that are no pictures."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.errors import StoreError
from pipelines.ledger.results import ResultRow
from pipelines.worker import overlap as overlap_module
from pipelines.worker.fitting import Stopped
from pipelines.worker.overlap import Overlap

K = 3


@dataclass(frozen=True)
class Read:
    id: str
    decoded_bytes: int = 1

    @property
    def kind(self) -> str:
        return self.id[0]


@dataclass(frozen=True)
class Painted:
    id: str


class Result(ResultRow):
    """A result that has an id and nothing else."""

    def __init__(self, row_id: str) -> None:
        object.__setattr__(self, "id", row_id)

    def __repr__(self) -> str:
        return self.id


def task(row_id: str) -> Any:
    return SimpleNamespace(row=SimpleNamespace(id=row_id))


class Shop:
    """An Overlap whose rows are of the kind that their id begins with; it notes what happens."""

    def __init__(self, writers: int = 2, **given: Any) -> None:
        self.groups: list[str] = []
        self.in_hand: list[tuple[str, str, str]] = []
        self.overlap = Overlap(
            **{
                "read": self.read,
                "group": self.group,
                "compute": self.compute,
                "write": lambda painted: Result(painted.id),
                "full": lambda _row: K,
                "writers": writers,
                "at_work": lambda *kinds: self.in_hand.append(tuple(" ".join(kind) for kind in kinds)),
                **given,
            }
        )

    def read(self, one: Any) -> Any:
        return Read(one.row.id)

    def group(self, rows: list[Read]) -> list[list[Read]]:
        kinds = {kind: [row for row in rows if row.kind == kind] for kind in sorted({row.kind for row in rows})}
        return [rows[first : first + K] for rows in kinds.values() for first in range(0, len(rows), K)]

    def compute(self, rows: list[Read], _waited: float) -> Iterator[Any]:
        self.groups.append(" ".join(row.id for row in rows))
        for row in rows:
            yield Painted(row.id)

    def run(self, ids: str) -> list[str]:
        return [result.id for result in self.overlap.run([task(one) for one in ids.split()])]


def test_rows_of_one_kind_are_computed_together_and_results_keep_their_order():
    shop = Shop()
    ids = "a1 b1 a2 c1 b2 a3 a4 b3 b4"
    assert shop.run(ids) == ids.split()
    assert sorted(shop.groups) == ["a1 a2 a3", "a4", "b1 b2 b3", "b4", "c1"]
    assert shop.in_hand[-1] == ("", "", "")


def test_rows_from_several_callers_are_one_company():
    all_came = threading.Event()

    def read(one: Any) -> Read:
        all_came.wait(10)
        return Read(one.row.id)

    shop = Shop(read=read)
    with ThreadPoolExecutor(6) as callers:
        ids = ("a1", "b1", "a2", "b2", "a3")
        calls = [callers.submit(shop.run, one) for one in ids]
        while len(shop.overlap._on_their_way) < len(ids):
            time.sleep(0.01)
        all_came.set()
        assert [call.result(10) for call in calls] == [[one] for one in ids]
    assert sorted(len(group.split()) for group in shop.groups) == [2, 3]


def test_nothing_is_read_beyond_the_room_and_all_is_done_all_the_same(monkeypatch):
    monkeypatch.setattr(overlap_module, "ROOM", 4)
    waiting, most = [0], [0]

    def read(one: Any) -> Read:
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        return Read(one.row.id)

    def compute(rows: list[Read], _waited: float) -> Iterator[Painted]:
        waiting[0] -= len(rows)
        yield from (Painted(row.id) for row in rows)

    ids = [f"{kind}{number}" for number in range(8) for kind in "abcdefgh"]
    assert Shop(read=read, compute=compute).run(" ".join(ids)) == ids
    assert most[0] <= 4 + 1


def test_the_next_rows_are_read_and_the_last_are_written_while_some_are_computed():
    """The first write ends only when the third read and the second computation have begun."""
    third, second = threading.Event(), threading.Event()

    def read(one: Any) -> Read:
        if one.row.id == "c1":
            third.set()
        return Read(one.row.id)

    def compute(rows: list[Read], _waited: float) -> Iterator[Painted]:
        if rows[0].id != "a1":
            second.set()
        yield from (Painted(row.id) for row in rows)

    def write(painted: Painted) -> Result:
        if painted.id == "a1":
            assert third.wait(10)
            assert second.wait(10)
        return Result(painted.id)

    assert Shop(read=read, compute=compute, write=write).run("a1 b1 c1") == ["a1", "b1", "c1"]


def test_a_row_that_cannot_be_read_has_its_result_and_leaves_no_gap():
    shop = Shop(read=lambda one: Result("bad") if one.row.id == "a2" else Read(one.row.id))
    assert shop.run("a1 a2 a3") == ["a1", "bad", "a3"]
    assert shop.groups == ["a1 a3"]


def test_a_row_whose_fit_another_run_has_stored_is_computed_again():
    written: list[str] = []

    def write(painted: Painted) -> Any:
        written.append(painted.id)
        return Read("a1") if written.count("a1") == 1 and painted.id == "a1" else Result(painted.id)

    shop = Shop(write=write)
    assert shop.run("a1 a2") == ["a1", "a2"]
    assert shop.groups == ["a1 a2", "a1"]


def test_a_stop_gives_back_what_has_no_outcome_and_a_later_call_works_again():
    stops = [True]

    def compute(rows: list[Read], _waited: float) -> Iterator[Painted]:
        yield Painted(rows[0].id)
        if stops.pop() if stops else False:
            raise Stopped
        yield from (Painted(row.id) for row in rows[1:])

    shop = Shop(compute=compute)
    assert shop.run("a1 a2 b1 b2 c1") == ["a1"]
    assert shop.run("a2 b1") == ["a2", "b1"]


@pytest.mark.parametrize("place", ["read", "compute", "write"])
def test_a_store_that_is_gone_is_said_at_once(place):
    def broken(*_: Any) -> Any:
        raise StoreError("the store is away")

    with pytest.raises(StoreError, match="away"):
        Shop(**{place: broken}).run("a1 a2 b1")


def test_time_without_anything_to_compute_is_counted():
    clock = itertools.count(1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap_module, "monotonic", lambda: next(clock))
        shop = Shop()
        shop.run("a1 b1")
        shop.overlap._computer.shutdown()
    usage = shop.overlap.usage
    assert usage.computing > 0
    assert usage.idle > 0
