import io

from rich.console import Console

from pipelines.commands.console import Rate, summary, watching, worker_line
from pipelines.progress import Snapshot, WorkerProgress


def snapshot(ok: int, rows: int = 10, **more) -> Snapshot:
    return Snapshot(rows=rows, ok=ok, failed=0, skipped=0, **{"workers": (), **more})


def test_time_left_counts_rows_of_this_run_and_counts_down_between_batches():
    now = [0.0]
    rate = Rate(clock=lambda: now[0])
    assert rate.eta(snapshot(2)) is None
    now[0] = 40.0
    assert rate.eta(snapshot(6)) == 40.0  # four rows in 40 s, four left
    now[0] = 55.0
    assert rate.eta(snapshot(6)) == 25.0
    now[0] = 999.0
    assert rate.eta(snapshot(6)) == 0.0


def test_a_line_says_what_is_done_and_left():
    assert summary(snapshot(4), 3725) == "4/10 rows: 4 ok, 0 failed, 0 skipped, about 1 h 02 min left"
    assert summary(snapshot(10), 0.0) == "10/10 rows: 10 ok, 0 failed, 0 skipped"


def test_a_worker_says_stage_step_and_pictures():
    progress = WorkerProgress(stage="embedding", step=3, steps=40, ids=("a", "b", "c", "d"))
    assert worker_line(progress) == "embedding 3/40: a, b, c and 1 more"


def test_plain_lines_where_nobody_watches():
    stream = io.StringIO()
    with watching(Console(file=stream)) as watch:
        watch(snapshot(1, workers=(WorkerProgress(stage="sample", ids=("[red]",)),)))
        watch(snapshot(1))
        watch(snapshot(10))
    assert stream.getvalue().splitlines() == [
        "1/10 rows: 1 ok, 0 failed, 0 skipped | sample: [red]",
        "10/10 rows: 10 ok, 0 failed, 0 skipped",
    ]


def test_bars_on_a_terminal():
    stream = io.StringIO()
    with watching(Console(file=stream, force_terminal=True, width=100)) as watch:
        watch(snapshot(1, workers=(WorkerProgress(stage="sample", ids=("barn",)),)))
    assert "sample: barn" in stream.getvalue()
