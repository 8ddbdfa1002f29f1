"""Who gets what next, and what becomes of lost batches: policy on values, without Ray."""

from collections.abc import Iterator

from manifests.schema import ManifestRow
from pipelines.driver.dispatch import MAX_REQUEUES, Dispatcher, Loss
from pipelines.ledger.task import Place, Task


def task(number: int) -> Task:
    row = ManifestRow(id=f"r{number}", image="x", caption="c", target_prompts=("c",), seed=0)
    place = Place(plan="p", shard=0, generation=0, row=number)
    return Task(row=row, row_digest=f"d{number}", place=place)


def dispatcher(count: int = 6, k: int = 2) -> Dispatcher:
    return Dispatcher(iter([task(number) for number in range(count)]), k)


def ids(batch: list[Task] | None) -> list[str] | None:
    return None if batch is None else [task.row.id for task in batch]


def drained(rows: Dispatcher, workers: int = 1) -> list[list[str]]:
    """All batches that are left."""
    batches: list[list[str]] = []
    while (batch := rows.next_batch(99, workers)) is not None:
        batches.append([task.row.id for task in batch])
    return batches


def test_rows_come_in_order_k_at_a_time_and_then_no_more():
    assert drained(dispatcher(5)) == [["r0", "r1"], ["r2", "r3"], ["r4"]]
    assert dispatcher(0).next_batch(0, 1) is None


def test_near_the_end_every_worker_gets_something():
    rows = dispatcher(6, k=4)
    assert [ids(rows.next_batch(left, 2)) for left in (6, 3, 1)] == [["r0", "r1", "r2"], ["r3", "r4"], ["r5"]]


def test_a_shard_that_was_closed_without_work_ends_a_batch_early_but_not_the_rows():
    def tasks() -> Iterator[Task | None]:
        yield from (task(0), None, None, task(1))

    rows = Dispatcher(tasks(), 2)
    assert [ids(rows.next_batch(9, 1)) for _ in range(4)] == [["r0"], [], ["r1"], None]


def test_rows_that_a_worker_gave_back_run_again_before_new_ones():
    rows = dispatcher()
    batch = rows.next_batch(6, 1)
    rows.give_back(batch, finished={"d0"})
    assert drained(rows) == [["r1"], ["r2", "r3"], ["r4", "r5"]]


def test_the_rows_of_a_process_that_died_run_alone_and_the_second_death_is_the_outcome():
    rows = dispatcher(2)
    batch = rows.next_batch(2, 1)
    assert rows.lose(batch, set(), Loss.PROCESS_DIED, "ActorDiedError") == []
    alone = rows.next_batch(0, 1)
    assert ids(alone) == ["r0"]
    (verdict,) = rows.lose(alone, set(), Loss.PROCESS_DIED, "ActorDiedError")
    assert (verdict.task.row.id, verdict.kind) == ("r0", "process_died")
    assert "2 times" in verdict.message
    assert "ActorDiedError" in verdict.message
    assert drained(rows) == [["r1"]]


def test_rows_that_were_finished_before_the_death_are_not_suspects():
    rows = dispatcher(2)
    assert rows.lose(rows.next_batch(2, 1), {"d0", "d1"}, Loss.PROCESS_DIED, "x") == []
    assert drained(rows) == []


def test_memory_that_ran_out_in_company_is_no_death_of_a_row_and_alone_it_is():
    rows = dispatcher(2)
    rows.lose(rows.next_batch(2, 1), set(), Loss.OUT_OF_MEMORY, "x")
    assert rows.lose(rows.next_batch(0, 1), set(), Loss.OUT_OF_MEMORY, "x") == []
    assert ids(rows.next_batch(0, 1)) == ["r1"]
    (verdict,) = rows.lose(rows.next_batch(0, 1), set(), Loss.OUT_OF_MEMORY, "x")
    assert verdict.task.row.id == "r0"
    assert "memory ran out" in verdict.message


def test_a_machine_that_goes_costs_a_row_nothing_until_it_has_happened_too_often():
    rows = dispatcher(1)
    batch = rows.next_batch(1, 1)
    for _ in range(MAX_REQUEUES):
        assert rows.lose(batch, set(), Loss.NODE_GONE, "x") == []
        batch = rows.next_batch(0, 1)
    assert rows.lose(batch, set(), Loss.NODE_GONE, "x") == [], "from now on as if its process had died"
    (verdict,) = rows.lose(rows.next_batch(0, 1), set(), Loss.NODE_GONE, "x")
    assert verdict.kind == "process_died"


def test_an_error_of_ours_is_the_outcome_at_once():
    rows = dispatcher(2)
    verdicts = rows.lose(rows.next_batch(2, 1), {"d1"}, Loss.OUR_ERROR, "KeyError: 'x'")
    assert [(verdict.task.row.id, verdict.kind, verdict.message) for verdict in verdicts] == [
        ("r0", "internal", "KeyError: 'x'")
    ]
    assert drained(rows) == []
