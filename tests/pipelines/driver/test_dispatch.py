"""Who gets what next, and what becomes of lost rows: policy on values, without Ray."""

from collections.abc import Iterator

from manifests.schema import ManifestRow
from pipelines.driver.dispatch import MAX_REQUEUES, Dispatcher, Loss, Nothing
from pipelines.ledger.task import Place, Task


def task(number: int) -> Task:
    row = ManifestRow(id=f"r{number}", image="x", caption="c", target_prompts=("c",), seed=0)
    place = Place(plan="p", shard=0, generation=0, row=number)
    return Task(row=row, row_digest=f"d{number}", place=place)


def dispatcher(count: int = 6) -> Dispatcher:
    return Dispatcher(iter([task(number) for number in range(count)]))


def drained(rows: Dispatcher) -> list[str]:
    """All rows that are left, to a worker that is free each time."""
    ids = []
    while isinstance(one := rows.next_row(to_free=True), Task):
        ids.append(one.row.id)
    assert one is Nothing.LEFT
    return ids


def lose(rows: Dispatcher, one: Task, loss: Loss = Loss.PROCESS_DIED, *, in_hand: bool = True, alone: bool = False):
    return rows.lose(one, loss, "ActorDiedError", in_hand=in_hand, alone=alone)


def test_rows_come_in_order_and_then_no_more():
    assert drained(dispatcher(3)) == ["r0", "r1", "r2"]
    assert dispatcher(0).next_row(to_free=True) is Nothing.LEFT


def test_a_shard_that_was_closed_without_work_is_a_moment_to_look_around_and_not_the_end():
    def tasks() -> Iterator[Task | None]:
        yield from (task(0), None, task(1))

    rows = Dispatcher(tasks())
    assert [rows.next_row(to_free=True) for _ in range(4)] == [task(0), Nothing.YET, task(1), Nothing.LEFT]


def test_a_row_that_a_worker_gave_back_runs_again_before_new_ones():
    rows = dispatcher()
    first, second = rows.next_row(to_free=True), rows.next_row(to_free=False)
    rows.give_back(second)
    assert not rows.is_suspect(second)
    assert drained(rows) == ["r1", "r2", "r3", "r4", "r5"]
    rows.give_back(first)
    assert drained(rows) == ["r0"]


def test_what_a_process_that_died_had_in_hand_runs_alone_and_the_second_death_is_the_outcome():
    rows = dispatcher(3)
    (first, second) = (rows.next_row(to_free=True) for _ in range(2))
    assert lose(rows, first) is None
    assert lose(rows, second) is None
    assert rows.next_row(to_free=False) is Nothing.FREE, "no other work until there is a free worker for them"
    alone = rows.next_row(to_free=True)
    assert (alone, rows.is_suspect(alone)) == (first, True)
    verdict = lose(rows, alone, alone=True)
    assert (verdict.task.row.id, verdict.kind) == ("r0", "process_died")
    assert "2 times" in verdict.message
    assert "ActorDiedError" in verdict.message
    assert drained(rows) == ["r1", "r2"]


def test_a_suspect_that_comes_back_without_a_result_is_one_still():
    rows = dispatcher(1)
    lose(rows, rows.next_row(to_free=True))
    rows.give_back(rows.next_row(to_free=True))
    assert rows.next_row(to_free=False) is Nothing.FREE


def test_a_suspect_stays_one_when_its_machine_goes():
    rows = dispatcher(1)
    lose(rows, rows.next_row(to_free=True))
    assert lose(rows, rows.next_row(to_free=True), Loss.NODE_GONE, alone=True) is None
    assert rows.next_row(to_free=False) is Nothing.FREE


def test_a_row_that_only_waited_is_not_suspected_until_it_has_happened_too_often():
    rows = dispatcher(1)
    one = rows.next_row(to_free=True)
    for _ in range(MAX_REQUEUES):
        assert lose(rows, one, in_hand=False) is None
        assert not rows.is_suspect(one)
        assert rows.next_row(to_free=False) == one
    assert lose(rows, one, in_hand=False) is None
    assert rows.is_suspect(one)


def test_memory_that_ran_out_in_company_is_no_death_of_a_row_and_alone_it_is():
    rows = dispatcher(1)
    one = rows.next_row(to_free=True)
    assert lose(rows, one, Loss.OUT_OF_MEMORY) is None
    assert rows.is_suspect(one), "it runs alone all the same"
    assert lose(rows, one, Loss.OUT_OF_MEMORY, alone=True) is None
    verdict = lose(rows, one, Loss.OUT_OF_MEMORY, alone=True)
    assert verdict.task.row.id == "r0"
    assert "memory ran out" in verdict.message


def test_a_machine_that_goes_costs_a_row_nothing_until_it_has_happened_too_often():
    rows = dispatcher(1)
    one = rows.next_row(to_free=True)
    for _ in range(MAX_REQUEUES):
        assert lose(rows, one, Loss.NODE_GONE, alone=True) is None
        assert rows.next_row(to_free=False) == one
    assert lose(rows, one, Loss.NODE_GONE, alone=True) is None, "from now on as if its process had died"
    assert lose(rows, rows.next_row(to_free=True), Loss.NODE_GONE, alone=True).kind == "process_died"


def test_an_error_of_ours_is_the_outcome_at_once():
    rows = dispatcher(1)
    verdict = rows.lose(rows.next_row(to_free=True), Loss.OUR_ERROR, "KeyError: 'x'", in_hand=True, alone=False)
    assert (verdict.task.row.id, verdict.kind, verdict.message) == ("r0", "internal", "KeyError: 'x'")
    assert drained(rows) == []
