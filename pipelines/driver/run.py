"""The Ray driver: hands rows to one worker per GPU, and sees that every row gets one result. It only coordinates: Ray
places and restarts processes, the output store holds the truth."""

import math
import signal
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

import ray
from ray.exceptions import RayError

from diffcolor.config import digest
from manifests.locations import redacted
from pipelines.driver import cluster
from pipelines.driver.pool import Crew, Member
from pipelines.errors import JobError, OutputInUseError, StoreError
from pipelines.job import JobRequest, Snapshot, Watch, failure_limit
from pipelines.ledger.identity import settings_digest
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.plan import Plan, Survey, survey
from pipelines.ledger.results import FAILED, ResultRow
from pipelines.ledger.task import Task, blank_result
from pipelines.store.events import EventLog
from pipelines.store.lease import Lease, look, stop_key, take
from pipelines.store.store import Store, probe_preconditions

LOOK_SECONDS = 5.0  # between looks at stop requests and draining nodes
LAST_ERRORS = 5  # that the heartbeat names
MAX_DEATHS = 2  # of a worker, on one row: the second happens with that row alone
MAX_REQUEUES = 10  # of a row whose machine went
_GRACE_OF_WORKERS = 0.7  # the rest is for what they save, and for us

Notice = Callable[[str], None]
AtEnd = Callable[[Store, bool], object]


def run_job(
    request: JobRequest,
    watch: Watch = lambda _: None,
    notice: Notice = lambda _: None,
    at_end: AtEnd = lambda _store, _changed: None,
) -> Snapshot:
    """Runs a manifest to the end. Rows that the output store already holds are not run again.

    Args:
        watch: called about once a second with the state of the job.
        notice: called with what a person should know, such as whom we wait for.
        at_end: called with the output store, and whether rows were finished, unless the run was stopped; what it raises
            is logged, the results are safe.

    Raises:
        ManifestError: the manifest has problems; nothing was started.
        OutputInUseError: another run holds the output, or has taken it over.
        StoreError: the output store cannot be used.
        JobError: no worker could be started.
    """
    found = survey(request)
    spec = request.spec
    try:
        preconditions = probe_preconditions(spec.output, spec.patience)
        if not preconditions:
            notice("warning: the output store ignores conditional writes: two runs at once could both count")
        spec = replace(spec, preconditions=preconditions)
        store = Store(spec.output, patience=spec.patience, preconditions=preconditions)
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise JobError(f"output {redacted(spec.output)}: {error}") from error
    request = replace(request, spec=spec)
    driver = _Driver(request, found, store, watch, at_end)
    patient = request.on_running == "wait"
    lease = take(store.hurried(), spec.run, lambda: driver.document, patient, lambda error: notice(f"waiting: {error}"))
    with driver.held(lease), cluster.connected(request.address), _signals(driver):
        return driver.run(cluster.with_device(request))


@contextmanager
def _signals(driver: "_Driver") -> Iterator[None]:
    """A first SIGTERM or Ctrl-C stops the run in good order, a second one leaves at once. After `ray.init`, which has
    a SIGTERM handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, _frame: Any) -> None:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, second)
        # No more than this: the main thread may be anywhere.
        driver.signalled, driver.signal = time.monotonic(), signal.Signals(number).name

    def second(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, first) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _Driver:
    """Pull dispatch with one batch in flight per worker; a batch is at most `images_per_step` rows."""

    def __init__(self, request: JobRequest, found: Survey, store: Store, watch: Watch, at_end: AtEnd) -> None:
        self.request, self.found, self.store, self.watch, self.at_end = request, found, store, watch, at_end
        self.ledger = Ledger(store)
        self.log = EventLog(store.hurried(), request.spec.run, "driver")
        store.on_retry = self._store_retry
        self.document: dict[str, Any] = {"state": "running"}  # what the beat says
        self.state, self.reason, self.deadline = "running", "", math.inf
        self.signal, self.signalled = "", math.inf  # the name of one that came, and when
        self.crew: Crew | None = None
        self.plan: Plan | None = None
        self.suspects: deque[Task] = deque()  # each runs alone
        self.again: deque[Task] = deque()
        self.deaths: Counter[str] = Counter()
        self.requeues: Counter[str] = Counter()
        self.errors: deque[dict[str, Any]] = deque(maxlen=LAST_ERRORS)
        self.finished = self.failed = 0  # in this run
        self.gpu_seconds = 0.0
        self.looked = -math.inf

    @contextmanager
    def held(self, lease: Lease) -> Iterator[None]:
        """The lease while the run lasts; at its end the beat says how it ended."""
        self.lease = lease
        try:
            yield
        except BaseException as error:
            self.state = "failed" if isinstance(error, Exception) else "stopped"
            self.log("run_ended", state=self.state, error=str(error))
            raise
        finally:
            self.log.close()
            # A dry run leaves what the last real one said.
            last = lease.previous if self.request.dry_run else {**self.document, "state": self.state}
            with suppress(StoreError):  # the next run will see the beat grow old
                lease.release(**last)

    def run(self, request: JobRequest) -> Snapshot:
        self.request = request
        self.log("run_started", manifest=redacted(request.manifest), rows=self.found.rows)
        self.crew = Crew(request, self.log)
        try:
            self.models = self.crew.first_models(self._goes_on)
            if self.models is None:
                return Snapshot(rows=self.found.rows, state=self.state)
            self._begin_plan()
            if request.dry_run:
                self.state = "planned"
                deque(self.plan.tasks(), maxlen=0)  # a plan of a dry run counts, and writes nothing
                return self.snapshot()
            self._work()
        finally:
            self.crew.dismiss()
        if self.state == "running":
            self.plan.check_complete()
            self.state = "finished"
        if request.retry_failed:
            self.ledger.write_damaged(self.plan.damaged)
        self._note()
        self._report()
        self.log("run_ended", state=self.state, **self.plan.counts)
        return self.snapshot()

    def _begin_plan(self) -> None:
        settings = settings_digest(self.models, self.request.spec.config, self.request.spec.outputs)
        damaged = self.ledger.damaged() if self.request.retry_failed else None
        self.plan = Plan(self.request, self.ledger, self.found, settings, damaged)
        self.started = time.monotonic()
        self._note()
        if not self.request.dry_run:
            self.plan.write({**_job_facts(self.request, self.found.rows), "models": asdict(self.models)})
            self.lease.beat()
        self.log("plan", plan=self.plan.id, rows=self.plan.total, done=self.plan.done)

    # The loop ------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        tasks = self.plan.tasks()
        while self._goes_on() or self.crew.busy:
            more = self._hand_out(tasks)
            if not more and not self.crew.busy and self.crew.idle:
                return  # a worker is free and nothing is left for it
            if time.monotonic() > self.deadline:
                self.log("grace_over", rows=sum(len(member.batch) for member in self.crew.busy))
                return
            for member in self.crew.returned(wait=not (more and self.crew.idle)):
                self._collect(member)
            self._look_around()

    def _goes_on(self) -> bool:
        """Raises OutputInUseError when the lease is lost."""
        if self.lease.lost.is_set():
            held = look(self.store)
            raise OutputInUseError(held.holder.run, held.holder.host, held.holder.pid, held.age)
        if self.signal:
            self.stop(self.signal)
        now = time.monotonic()
        if now - self.looked > LOOK_SECONDS:
            self.looked = now
            if self.store.exists(stop_key(self.request.spec.run)):
                self.stop("asked to by `stop`")
            self.crew.leave_draining_nodes(_GRACE_OF_WORKERS * self.request.grace_seconds)
        return self.state == "running"

    def _hand_out(self, tasks: Iterator[Task | None]) -> bool:
        """Gives who is idle something to do; returns whether there may be more to give."""
        for member in self.crew.idle:
            if not self._goes_on():
                return False
            batch = self._next_batch(tasks)
            if batch is None:
                return False
            if batch:
                member.give(batch)
        return True

    def _next_batch(self, tasks: Iterator[Task | None]) -> list[Task] | None:
        """Rows for one worker; none yet (empty), or none any more (None)."""
        if self.suspects:
            return [self.suspects.popleft()]
        k = self.request.spec.images_per_step
        if self.again:
            return [self.again.popleft() for _ in range(min(k, len(self.again)))]
        k = max(1, min(k, math.ceil(self.plan.left / len(self.crew.members))))  # near the end no GPU idles
        batch = []
        for task in tasks:
            if task is None:  # a shard was closed without work: time to look around
                return batch
            batch.append(task)
            if len(batch) == k:
                return batch
        return batch or None

    def _collect(self, member: Member) -> None:
        batch, alive = member.batch, True
        try:
            rows = ray.get(member.call)
            if self.state == "running":  # a worker that is to leave gives rows back
                finished = {row.row_digest for row in rows}
                self.again.extend(task for task in batch if task.row_digest not in finished)
        except RayError as error:
            rows, alive = self._after(error, member), cluster.is_ours(error)
        tasks = {task.row_digest: task for task in batch}
        for row in rows:
            self._finish(tasks[row.row_digest], row)
        if alive and not member.leaving:
            member.rest()
            return
        if alive:
            member.kill()
        member.come_up()

    def _after(self, error: RayError, member: Member) -> list[ResultRow]:
        """What a broken batch has finished; the rest runs again, or has had its chances."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, StoreError):
            raise cause
        batch = member.batch
        self.log("worker_lost", pid=member.pid, error=cluster.reason(error), ids=[task.row.id for task in batch])
        rows = []
        for task in batch:
            if row := self.ledger.find(task.place):
                rows.append(row)
            elif cluster.is_ours(error):  # `process` promises not to raise
                rows.append(self._commit_failure(task, "internal", str(cause)))
            elif cluster.is_node_gone(error, member.node) and self.requeues[task.row_digest] < MAX_REQUEUES:
                self.requeues[task.row_digest] += 1
                self.again.append(task)
            elif failure := self._suspect(task, error, alone=len(batch) == 1):
                rows.append(failure)
        return rows

    def _suspect(self, task: Task, error: RayError, alone: bool) -> ResultRow | None:
        """A row whose process died gets a try alone; the second death is its outcome."""
        out_of_memory = cluster.ran_out_of_memory(error)
        self.deaths[task.row_digest] += alone or not out_of_memory
        if self.deaths[task.row_digest] < MAX_DEATHS:
            self.suspects.append(task)
            return None
        why = "the machine's memory ran out" if out_of_memory else type(error).__name__
        message = f"the worker process died {MAX_DEATHS} times on this row ({why})"
        return self._commit_failure(task, "process_died", message)

    def _commit_failure(self, task: Task, kind: str, message: str) -> ResultRow:
        row = replace(blank_result(task, self.request.spec, self.models), error_kind=kind, error_message=message)
        return self.ledger.commit(task.place, row, uuid.uuid4().hex)

    def _finish(self, task: Task, row: ResultRow) -> None:
        self.plan.finish(task.place, row)
        self.finished += 1
        if self.request.spec.device == "cuda":
            gpus = self.request.gpus_per_worker
            self.gpu_seconds += row.seconds * (1.0 if gpus is None else gpus)
        if row.status != FAILED:
            return
        facts = {"id": row.id, "kind": row.error_kind, "message": row.error_message}
        self.errors.append(facts)
        self.log("row_failed", **facts)
        self.failed += 1
        if self.failed > failure_limit(self.request.max_failures, self.plan.total) and self.state == "running":
            self.state, self.reason = "too_many_failures", f"more than {self.request.max_failures} rows failed"
            self.log("stopping", reason=self.reason)  # running rows end

    # Around the loop -----------------------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """Ends the run within the grace period: rows end or are checkpointed."""
        if self.state not in ("running", "too_many_failures"):
            return
        grace = self.request.grace_seconds
        self.state, self.reason, self.deadline = "stopped", why, time.monotonic() + grace
        self.log("stopping", reason=why, grace=grace)
        self.crew.request_stop(_GRACE_OF_WORKERS * grace)

    def _look_around(self) -> None:
        self.crew.ask_progress()
        self._note()
        self.watch(self.snapshot())

    def _store_retry(self, error: BaseException, delay: float) -> None:
        """A store that is away does not hold up a stop for longer than the grace."""
        self.log("store_retry", error=str(error), seconds=delay)
        if self.signal and time.monotonic() > self.signalled + self.request.grace_seconds:
            raise StoreError(f"stopped by {self.signal} while the store was away ({error})")

    def _note(self) -> None:
        """Makes what the next beat says."""
        rate = self.finished / max(1e-3, time.monotonic() - self.started)
        self.document = {
            "plan": self.plan.id,
            "state": self.state,
            "reason": self.reason,
            **self.plan.counts,
            "rate": rate or None,
            "eta": (self.plan.total - self.plan.done) / rate if rate else None,
            "gpu_seconds": round(self.gpu_seconds, 1),
            "workers": [{"pid": member.pid, **member.progress} for member in self.crew.members],
            "errors": list(self.errors),
        }

    def _report(self) -> None:
        """A stopped run has no time left for it."""
        if self.state == "stopped":
            return
        try:
            self.at_end(self.store, self.finished > 0)
        except Exception as error:  # the results are safe, and `report` writes it at any time
            self.log("report_failed", error=f"{type(error).__name__}: {error}")

    def snapshot(self) -> Snapshot:
        workers = [member.progress for member in self.crew.busy]
        return Snapshot(
            rows=self.plan.total, **self.plan.counts, imported=self.plan.imported, state=self.state, workers=workers
        )


def _job_facts(request: JobRequest, count: int) -> dict[str, Any]:
    spec = request.spec
    return {
        "run": spec.run,
        "rows": count,
        "submitted_at": time.time(),
        "manifest": redacted(request.manifest),
        "columns": request.columns,
        "default_caption": request.default_caption,
        "base_model": spec.base_model,
        "judge": spec.judge,
        "preset": spec.config.preset,
        "config_digest": digest(spec.config),
        "config": asdict(spec.config),
        "device": spec.device,
        "images_per_step": spec.images_per_step,
        "max_pixels": spec.max_pixels,
        "outputs": asdict(spec.outputs),
        "preconditions": spec.preconditions,
    }
