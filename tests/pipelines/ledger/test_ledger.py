"""Plans, shards and records without Ray: every outcome once, whoever writes and whenever he dies."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest

from diffcolor.identity import ModelIdentity
from pipelines.errors import JobError, ReplanError
from pipelines.ledger.layout import PlanFacts
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.manifest_summary import summarize
from pipelines.ledger.plan import Plan
from pipelines.ledger.results import FAILED, OK, SKIPPED, Output, ResultRow
from pipelines.ledger.task import Place, blank_result
from pipelines.operations.gc import collect
from pipelines.store.store import Store
from tests.check_store import results
from tests.conftest import write_manifest
from tests.pipelines.quick import QuickWorker, quick_request

NOTHING = pa.schema([])


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Store(str(tmp_path / "out")))


def outcome(number: int, **more) -> ResultRow:
    return ResultRow(**{"id": f"r{number}", "status": OK, "row_digest": f"{number:064x}", **more})


def place(row: int, generation: int = 0) -> Place:
    return Place(plan="p", shard=0, generation=generation, row=row)


def test_of_many_that_commit_one_row_one_wins_and_all_learn_who(ledger):
    for number in range(10):
        with ThreadPoolExecutor(16) as threads:
            rows = [outcome(number, seconds=float(writer)) for writer in range(16)]
            told = list(threads.map(lambda row, n=number: ledger.commit(place(n), row, f"a{row.seconds}"), rows))
        assert len({row.seconds for row in told}) == 1
        assert ledger.find(place(number)) == told[0]


def test_a_lost_reply_does_not_make_a_loser_of_the_winner(ledger, monkeypatch):
    """The store did it, the answer was lost, and the second try is refused: by our own record."""
    create = ledger.store._create
    monkeypatch.setattr(ledger.store, "_create", lambda path, content: create(path, content) and False)
    row = outcome(1)
    assert ledger.commit(place(1), row, "mine") == row
    assert ledger.find(place(1)) == row


def test_a_closed_shard_is_what_counts_and_its_records_are_gone(ledger):
    ledger.write_plan("p", PlanFacts(rows=2, shard_rows=2, settings="s"))
    rows = [outcome(0, extra={"shelf": 1}), outcome(1, extra={"shelf": 2})]
    for number, row in enumerate(rows):
        ledger.commit(place(number), row, "a")
    assert ledger.open_generations("p") == {0: [0]}
    assert ledger.close("p", 0, 0, rows, pa.schema([("shelf", pa.int16())])) == rows
    assert ledger.open_generations("p") == {}
    assert ledger.records("p", 0, 0) == {}
    assert ledger.closed("p")[0].ok == 2
    late = ledger.commit(place(0), replace(rows[0], status=FAILED), "late")
    assert late.status == FAILED
    assert [row for _, _, row in ledger.outcomes("p")] == rows, "a late commit changes nothing"
    again = ledger.close("p", 0, 0, [outcome(0, status=FAILED), outcome(1)], NOTHING)
    assert again == rows, "whoever closes second takes what is there"
    assert [row["shelf"] for row in results(ledger.store.uri)] == [1, 2]


@pytest.mark.parametrize("fatal", range(4))
def test_a_crash_while_closing_is_mended_by_closing_again(ledger, monkeypatch, fatal):
    rows, calls = [outcome(0), outcome(1)], []
    for number, row in enumerate(rows):
        ledger.commit(place(number), row, "a")

    def dying(real):
        def call(*arguments):
            if len(calls) == fatal:
                raise KeyboardInterrupt
            calls.append(1)
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("create", "write", "delete"):
            patch.setattr(ledger.store, name, dying(getattr(ledger.store, name)))
        with pytest.raises(KeyboardInterrupt):
            ledger.close("p", 0, 0, rows, NOTHING)
    if fatal < 3:
        assert ledger.open_generations("p") == {0: [0]}
    assert ledger.close("p", 0, 0, rows, NOTHING) == rows
    assert ledger.closed("p")[0].ok == 2
    assert [row["id"] for row in results(ledger.store.uri)] == ["r0", "r1"]


def painted(row: ResultRow) -> ResultRow:
    one = Output(prompt="x", image="i", sha256="0", eta=1.0, colorfulness=0.0, clip_margin=0.0, candidates=())
    return row if one in row.outputs else replace(row, outputs=(*row.outputs, one))


def test_an_amendment_reaches_open_and_closed_shards(ledger):
    ledger.write_plan("p", PlanFacts(rows=2, shard_rows=2, settings="s"))
    rows = [outcome(0), outcome(1)]
    ledger.commit(place(0), rows[0], "a")
    assert ledger.amend("p", 0, 0, painted).outputs
    assert ledger.records("p", 0, 0)[0].outputs
    ledger.commit(place(1), rows[1], "a")
    ledger.close("p", 0, 0, list(ledger.records("p", 0, 0).values()), NOTHING)
    ledger.amend("p", 0, 1, painted)
    assert [len(row.outputs) for _, _, row in ledger.outcomes("p")] == [1, 1]
    assert ledger.closed("p")[0].generation == 1
    assert [len(row["outputs"]) for row in results(ledger.store.uri)] == [1, 1]


def test_an_amendment_that_meets_the_closing_of_its_shard_is_not_lost(ledger, monkeypatch):
    ledger.write_plan("p", PlanFacts(rows=1, shard_rows=2, settings="s"))
    ledger.commit(place(0), outcome(0), "a")
    create, closed = ledger.store.create, []

    def closing_first(key, content):
        if not closed:
            closed.append(1)
            ledger.close("p", 0, 0, [outcome(0)], NOTHING)
        return create(key, content)

    monkeypatch.setattr(ledger.store, "create", closing_first)
    ledger.amend("p", 0, 0, painted)
    assert [len(row.outputs) for _, _, row in ledger.outcomes("p")] == [1]


def test_the_same_prompt_with_known_colours_is_another_output(ledger, monkeypatch):
    """Also where the shard is closed while the amendment is written."""
    ledger.write_plan("p", PlanFacts(rows=1, shard_rows=2, settings="s"))
    ledger.commit(place(0), painted(outcome(0)), "a")
    create, closed = ledger.store.create, []

    def closing_first(key, content):
        if not closed:
            closed.append(1)
            ledger.close("p", 0, 0, [painted(outcome(0))], NOTHING)
        return create(key, content)

    def pointed(row: ResultRow) -> ResultRow:
        one = replace(row.outputs[0], hints=("1,2,navy",), hints_kept=(1.0,))
        return row if one in row.outputs else replace(row, outputs=(*row.outputs, one))

    monkeypatch.setattr(ledger.store, "create", closing_first)
    ledger.amend("p", 0, 0, pointed)
    ((_, _, row),) = ledger.outcomes("p")
    assert [output.key for output in row.outputs] == [("x", (), None), ("x", ("1,2,navy",), None)]


# Plans --------------------------------------------------------------------------------------------------------------


def rows(count: int, **changes) -> list[dict]:
    return [{"id": f"r{k}", "image": f"p{k}.png", "caption": "a barn", "shelf": k, **changes} for k in range(count)]


def work(plan: Plan, worker: QuickWorker, most: int = 10**9, status: str = OK) -> list[str]:
    """Finishes up to `most` tasks; returns the ids that were run."""
    ran = []
    for task in plan.tasks():
        if task is None:
            continue
        if len(ran) == most:
            break
        row = replace(blank_result(task, worker.spec, worker.identity), status=status)
        plan.finish(task.place, worker.ledger.commit(task.place, row, "a"))
        ran.append(task.row.id)
    if plan.done == plan.total:
        plan.complete()
    return ran


def begin(tmp_path, table, settings="settings", **options) -> Plan:
    options = {"replan": True, **options}
    request = quick_request(write_manifest(tmp_path / "m.parquet", table), str(tmp_path / "out"), **options)
    plan = Plan(request, Ledger(Store(request.spec.output)), summarize(request), settings)
    plan.write(ModelIdentity(base_model="m", base_model_digest="1", judge="j", judge_digest="2"))
    return plan


@pytest.fixture
def worker(tmp_path):
    return QuickWorker(quick_request("m", str(tmp_path / "out")).spec)


def test_a_plan_that_was_left_anywhere_is_taken_up_there(tmp_path, worker):
    ran = []
    for most in (3, 9, 0, 11, 100):
        ran += work(begin(tmp_path, rows(25)), worker, most)
        shown = results(str(tmp_path / "out"))
        assert [row["id"] for row in shown] == [f"r{k}" for k in range(len(shown))]
        assert len(shown) == (25 if len(ran) == 25 else len(ran) // 10 * 10)
    assert ran == [f"r{k}" for k in range(25)]
    assert work(begin(tmp_path, rows(25)), worker) == []
    assert [row["shelf"] for row in results(str(tmp_path / "out"))] == list(range(25))


CHANGES = {
    "nothing": (rows(25), "settings", 0),
    "the order": (rows(25)[::-1], "settings", 0),
    "a carried column": (rows(25, shelf=0), "settings", 0),
    "one target prompt": ([*rows(24), {**rows(25)[24], "target_prompts": ["a red barn"]}], "settings", 1),
    "one caption": ([{**rows(1)[0], "caption": "a house"}, *rows(25)[1:]], "settings", 1),
    "one seed": ([*rows(12), {**rows(13)[12], "seed": 3}, *rows(25)[13:]], "settings", 1),
    "a row more": (rows(26), "settings", 1),
    "rows fewer": (rows(7), "settings", 0),
    "the settings": (rows(25), "others", 25),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_plan_takes_over_what_is_the_same_work(tmp_path, worker, change):
    table, settings, expected = CHANGES[change]
    work(begin(tmp_path, rows(25)), worker)
    plan = begin(tmp_path, table, settings)
    ran = work(plan, worker)
    assert len(ran) == expected
    shown = results(str(tmp_path / "out"))
    assert [row["id"] for row in shown] == [row["id"] for row in table]
    assert [row["shelf"] for row in shown] == [row["shelf"] for row in table]
    assert plan.imported == (0 if change == "nothing" else len(table) - expected)


def test_a_half_done_plan_is_taken_over_too_and_its_failures_are_tried_again_only_when_asked(tmp_path, worker):
    work(begin(tmp_path, rows(25)), worker, 12)
    work(begin(tmp_path, rows(25)), worker, 2, status=FAILED)
    work(begin(tmp_path, rows(25)), worker, 1, status=SKIPPED)
    begun = begin(tmp_path, rows(25)[::-1])
    assert begun.imported == 15
    assert begun.ledger.counts(begun.id) == {OK: 12, FAILED: 2, SKIPPED: 1}
    assert work(begin(tmp_path, rows(25)[::-1]), worker) == [f"r{k}" for k in range(24, 14, -1)]
    assert work(begin(tmp_path, rows(26)[::-1], retry_failed=True), worker) == ["r25", "r13", "r12"]


def test_failed_rows_run_again_in_a_new_generation_only_when_asked(tmp_path, worker):
    work(begin(tmp_path, rows(25)), worker, 5, status=FAILED)
    work(begin(tmp_path, rows(25)), worker)
    assert work(begin(tmp_path, rows(25)), worker) == []
    again = begin(tmp_path, rows(25), retry_failed=True)
    assert (again.done, again.counts[FAILED]) == (15, 0)
    assert work(again, worker, 3) == ["r0", "r1", "r2"]
    assert work(begin(tmp_path, rows(25), retry_failed=True), worker) == ["r3", "r4"]
    assert [row["status"] for row in results(str(tmp_path / "out"))] == ["ok"] * 25
    assert Ledger(Store(str(tmp_path / "out"))).closed(again.id)[0].generation == 1


def test_a_recolouring_between_a_retry_and_its_end_loses_neither(tmp_path, worker):
    work(begin(tmp_path, rows(10)), worker, 1, status=FAILED)
    work(begin(tmp_path, rows(10)), worker)
    plan = begin(tmp_path, rows(10), retry_failed=True)  # nothing committed yet: the shard still looks closed
    worker.ledger.amend(plan.id, 0, 4, painted)
    assert work(plan, worker) == ["r0"]
    final = [row for _, _, row in worker.ledger.outcomes(plan.id)]
    assert [row.status for row in final] == [OK] * 10
    assert len(final[4].outputs) == 1


def test_a_recolouring_of_a_row_in_a_shard_that_a_driver_works_on_is_not_lost(tmp_path, worker):
    """The driver closes from what it has in memory, and knows nothing of it."""
    plan = begin(tmp_path, rows(10))
    for number, task in enumerate(plan.tasks()):
        row = replace(blank_result(task, worker.spec, worker.identity), status=OK)
        plan.finish(task.place, worker.ledger.commit(task.place, row, "a"))
        if number == 6:
            worker.ledger.amend(plan.id, 0, 4, painted)
    assert [len(row["outputs"]) for row in results(str(tmp_path / "out"))] == [0] * 4 + [1] + [0] * 5
    assert [row["shelf"] for row in results(str(tmp_path / "out"))] == list(range(10))


def test_failed_rows_of_an_open_shard_run_again_too(tmp_path, worker):
    work(begin(tmp_path, rows(10)), worker, 3, status=FAILED)
    assert work(begin(tmp_path, rows(10), retry_failed=True), worker, 2) == ["r0", "r1"]
    assert work(begin(tmp_path, rows(10), retry_failed=True), worker) == [f"r{k}" for k in range(2, 10)]
    assert [row["status"] for row in results(str(tmp_path / "out"))] == ["ok"] * 10
    assert not [key for key in worker.store.list("_engine/plans") if "/rows/" in key]


def test_the_slower_of_two_writers_does_not_bring_back_an_older_generation(tmp_path, worker, monkeypatch):
    plan = begin(tmp_path, rows(3))
    work(plan, worker)
    ledger, slow = worker.ledger, Ledger(Store(str(tmp_path / "out")))
    write, waiting = slow.store.write, []

    def overtaken(key, content):
        if key.startswith("results/") and not waiting:
            waiting.append(1)
            ledger.close(plan.id, 0, 2, [*ledger.shard(plan.id, 0, 1)[:2], outcome(2, seconds=9.0)], NOTHING)
        write(key, content)

    monkeypatch.setattr(slow.store, "write", overtaken)
    slow.amend(plan.id, 0, 1, painted)
    assert results(str(tmp_path / "out"))[2]["seconds"] == 9.0


def test_a_run_of_another_plan_that_wakes_up_late_shows_nothing(tmp_path, worker):
    late = begin(tmp_path, rows(10))
    tasks = list(late.tasks())
    work(begin(tmp_path, rows(10), "others"), worker)
    for task in tasks:
        late.finish(task.place, replace(blank_result(task, worker.spec, worker.identity), status=OK))
    assert [row["id"] for row in results(str(tmp_path / "out"))] == [f"r{k}" for k in range(10)]
    assert worker.ledger.closed(late.id)[0].ok == 10, "its work is kept"


@pytest.mark.parametrize(
    ("first_try", "retry_failed"), [(None, True), (OK, False), (OK, True), (FAILED, True)], ids=str
)
def test_a_repair_keeps_recolourings_and_ends(tmp_path, worker, first_try, retry_failed):
    """Also when the row fails at first, or the driver is killed after its commit, whatever is submitted next."""
    plan = begin(tmp_path, rows(3))
    work(plan, worker)
    recolored = Output(
        prompt="x", image="i", sha256="0", eta=1.0, colorfulness=0, clip_margin=0, candidates=(), source="recolor"
    )
    lost = replace(recolored, prompt="y", image="lost")
    own = rows(3)[1]["caption"]
    pointed = replace(recolored, prompt=own, image="pointed", hints=("1,2,navy",), hints_kept=(1.0,))
    worker.ledger.amend(plan.id, 0, 1, lambda row: replace(row, outputs=(recolored, lost, pointed)))
    damaged = {worker.ledger.shard(plan.id, 0, 1)[1].row_digest: ["lost"]}
    request = quick_request(str(tmp_path / "m.parquet"), str(tmp_path / "out"), retry_failed=True)
    repair = Plan(request, worker.ledger, summarize(request), "settings", dict(damaged))
    if first_try:
        (task,) = repair.tasks()
        row = replace(blank_result(task, worker.spec, worker.identity), status=first_try)
        worker.ledger.commit(task.place, row, "a")
        request = replace(request, retry_failed=retry_failed)
        repair = Plan(request, worker.ledger, summarize(request), "settings", damaged if retry_failed else None)
    assert work(repair, worker) == ["r1"] * retry_failed
    assert repair.damaged == {}
    assert [one["image"] for one in results(str(tmp_path / "out"))[1]["outputs"]] == ["i", "pointed"]


def test_a_manifest_that_changes_meanwhile_ends_the_run(tmp_path, worker):
    plan = begin(tmp_path, rows(25))
    write_manifest(tmp_path / "m.parquet", rows(15))
    with pytest.raises(JobError, match="changed meanwhile"):
        work(plan, worker)
    plan = begin(tmp_path, rows(25))
    work(plan, worker, 3)
    write_manifest(tmp_path / "m.parquet", rows(15))
    with pytest.raises(JobError, match="changed meanwhile"):
        plan.check_complete()


def test_a_dry_run_counts_what_is_there_and_writes_nothing(tmp_path, worker):
    work(begin(tmp_path, rows(25)), worker, 12)
    before = worker.store.list("")
    for table, known in ((rows(25), 12), (rows(30)[::-1], 12)):
        path = write_manifest(tmp_path / "m.parquet", table)
        request = quick_request(path, str(tmp_path / "out"), dry_run=True)
        plan = Plan(request, worker.ledger, summarize(request), "settings")
        assert sum(task is not None for task in plan.tasks()) == len(table) - known
        assert plan.done == known
    assert worker.store.list("") == before


def shown(tmp_path) -> list[str]:
    return [row["id"] for row in results(str(tmp_path / "out"))]


def test_the_results_of_an_earlier_plan_are_seen_until_there_are_new_ones(tmp_path, worker):
    first = begin(tmp_path, rows(25))
    work(first, worker)
    plan = begin(tmp_path, rows(25), "others")
    assert shown(tmp_path) == [f"r{k}" for k in range(25)]
    work(plan, worker, 12)
    assert shown(tmp_path) == [f"r{k}" for k in range(25)]
    new = {row.row_digest for _, _, row in worker.ledger.outcomes(plan.id)}
    assert [row["row_digest"] in new for row in results(str(tmp_path / "out"))] == [True] * 10 + [False] * 15
    assert sum(row.row_digest in new for row in worker.ledger.current()) == 12
    assert sorted(row.id for row in worker.ledger.current()) == sorted(shown(tmp_path))
    assert worker.ledger.read_job().previous == (first.id,)
    work(begin(tmp_path, rows(25), "others"), worker)
    assert worker.ledger.read_job().previous == ()
    assert {row.row_digest for row in worker.ledger.current()} >= new
    begin(tmp_path, rows(25))
    assert len(shown(tmp_path)) == 25, "the old plan is whole still"


def test_rows_that_have_a_result_are_made_anew_only_when_asked(tmp_path, worker):
    work(begin(tmp_path, rows(25), replan=False), worker)
    for table, settings, count in (
        (rows(25), "others", 25),
        ([{**rows(1)[0], "seed": 9}, *rows(30)[1:]], "settings", 1),
    ):
        for _ in range(2):  # asking twice is no consent
            with pytest.raises(ReplanError, match=f"results of {count} rows") as refused:
                begin(tmp_path, table, settings, replan=False)
        assert "--replan" in str(refused.value)
        assert shown(tmp_path) == [f"r{k}" for k in range(25)]
        assert worker.ledger.read_job().rows == 25
    assert work(begin(tmp_path, rows(30), replan=False), worker) == [f"r{k}" for k in range(25, 30)]
    assert work(begin(tmp_path, rows(12), replan=False), worker) == []
    assert work(begin(tmp_path, rows(30)[::-1], replan=False), worker) == []


def test_rows_of_a_shard_that_is_still_open_are_made_anew_only_when_asked_too(tmp_path, worker):
    work(begin(tmp_path, rows(5)), worker, 3)
    with pytest.raises(ReplanError, match="results of 3 rows"):
        begin(tmp_path, rows(5), "others", replan=False)


def test_a_plan_is_returned_to_whose_shared_shards_have_been_deleted(tmp_path, worker):
    """A later plan had their rows, so that nothing is lost."""
    work(begin(tmp_path, rows(15)), worker)
    second = [*rows(18), {**rows(1)[0], "id": "x"}]
    work(begin(tmp_path, second), worker)  # shares the first shard
    work(begin(tmp_path, [*rows(10)[::-1], *rows(18)[10:]]), worker)  # has its rows in another order
    assert work(begin(tmp_path, second, replan=False), worker) == []
    assert [row["id"] for row in results(str(tmp_path / "out"))] == [row["id"] for row in second]


def test_results_are_those_of_the_plan_that_is_complete_whatever_was_shown_before_it(tmp_path, worker):
    """A shard that is shared with an older plan was not shown by the one in between."""
    recaptioned = [*rows(5), {**rows(6)[5], "shelf": 99}, *rows(15)[6:]]
    for table in (rows(15), recaptioned, rows(17), recaptioned, rows(18)):
        work(begin(tmp_path, table), worker)
        assert [row["shelf"] for row in results(str(tmp_path / "out"))] == [row["shelf"] for row in table]
        assert [row.extra["shelf"] for row in worker.ledger.current()] == [row["shelf"] for row in table]


GROWTH = {
    "more rows": rows(37),
    "rows before": [*({**row, "id": f"new-{row['id']}"} for row in rows(7)), *rows(25)],
    "another order": rows(25)[::-1],
    "a changed row": [*rows(12), {**rows(13)[12], "seed": 3}, *rows(30)[13:]],
    "rows fewer": rows(14),
}


@contextmanager
def calls_of(names: tuple[str, ...], fatal: int = -1) -> Iterator[list[str]]:
    """The calls of a store's methods; the one of number `fatal` is not made, and ends all."""
    calls: list[str] = []

    def noted(name: str):
        real = getattr(Store, name)

        def call(self, *given):
            if len(calls) == fatal:
                raise KeyboardInterrupt
            calls.append(name)
            return real(self, *given)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(Store, name, noted(name))
        yield calls


@pytest.mark.parametrize("change", GROWTH)
def test_a_run_that_is_killed_at_any_moment_hides_no_result(tmp_path, worker, change):
    """At each write, create and delete in turn; the next run goes on from there."""
    work(begin(tmp_path, rows(25)), worker)
    table, expected = GROWTH[change], {f"r{k}" for k in range(25)}
    ids = [row["id"] for row in table]
    for fatal in range(10_000):
        try:
            with calls_of(("create", "write", "delete"), fatal):
                plan = begin(tmp_path, table)
                work(plan, worker)
                break
        except KeyboardInterrupt:
            pass
        fresh = Ledger(Store(str(tmp_path / "out")))
        seen = [row.id for row in fresh.current()]
        assert len(seen) == len(set(seen))
        assert set(seen) >= expected & {*ids} or set(seen) >= expected, fatal
        in_results = shown(tmp_path)
        assert set(in_results) >= expected & {*ids}, fatal
        moved = change in ("rows before", "another order")  # then one may be seen twice, but never is one missing
        assert moved or len(in_results) == len(set(in_results)), fatal
    assert fatal > 3
    assert shown(tmp_path) == ids
    assert [row.id for row in fresh.current()] == ids
    assert fresh.read_job().previous == ()


def test_a_manifest_that_grows_every_night_costs_the_night(tmp_path, worker):
    """Shards with the same rows are shared, their files in results/ stay, and what is superseded goes."""
    work(begin(tmp_path, rows(200)), worker)
    one_plan = sum(path.stat().st_size for path in (tmp_path / "out" / "_engine").rglob("*.parquet"))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    asked = []
    for night in range(1, 31):
        with calls_of(("read", "create", "write", "list", "folders", "delete", "exists")) as calls:
            plan = begin(tmp_path, rows(200 + 2 * night), replan=False)
            assert work(plan, worker) == [f"r{k}" for k in (198 + 2 * night, 199 + 2 * night)]
        assert plan.imported == 198 + 2 * night
        asked.append(len(calls))
    assert max(asked) < 100, "requests of a night with two new rows"
    assert max(asked[20:]) <= max(asked[:10]), "whatever the number of nights before it"
    stored = sum(path.stat().st_size for path in (tmp_path / "out" / "_engine").rglob("*.parquet"))
    assert stored < 2 * one_plan * 260 / 200
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert shown(tmp_path) == [f"r{k}" for k in range(260)]
    store = worker.ledger.store
    assert len(store.folders("_engine/plans")) < 12, "those whose shards are still in use"
    before = [row.row_digest for row in worker.ledger.current()]
    collect(store, grace_hours=0)
    assert [row.row_digest for row in worker.ledger.current()] == before
    assert work(begin(tmp_path, rows(200)), worker) == [], "and an old plan's rows are known still"


def test_a_manifest_whose_store_fails_half_way_is_read_on_from_there(tmp_path, worker, monkeypatch):
    from pipelines.ledger import plan as module

    real, failures = module.numbered_rows, iter([3, 14, 14])

    def failing(*given, **options):
        last = next(failures, 10**9)
        for number, row in real(*given, **options):
            if number > last:
                raise TimeoutError
            yield number, row

    monkeypatch.setattr(module, "numbered_rows", failing)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert work(begin(tmp_path, rows(25)), worker) == [f"r{k}" for k in range(25)]
    assert next(failures, None) is None
    plan = begin(tmp_path, rows(26), patience=0.0)
    monkeypatch.setattr(module, "numbered_rows", lambda *_, **__: (_ for _ in ()).throw(TimeoutError()))
    with pytest.raises(JobError, match="cannot be read"):
        work(plan, worker)


def test_memory_holds_open_shards_only(tmp_path, worker):
    plan = begin(tmp_path, rows(200))
    most = 0
    for task in plan.tasks():
        most = max(most, len(plan._open))
        plan.finish(task.place, replace(blank_result(task, worker.spec, worker.identity), status=OK))
    assert most == 1
    assert plan._open == {}


def test_plan_files_are_json_and_say_what_the_plan_is(tmp_path, worker):
    plan = begin(tmp_path, rows(3))
    facts = json.loads((tmp_path / "out" / "_engine" / "plans" / plan.id / "plan.json").read_text())
    assert (facts["rows"], facts["shard_rows"]) == (3, 10)
