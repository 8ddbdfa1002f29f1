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
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from diffcolor.config import digest
from manifests.locations import redacted
from pipelines import cluster
from pipelines.errors import JobError, OutputInUseError, StoreError
from pipelines.events import EventLog
from pipelines.identity import Models, settings_digest
from pipelines.jobspec import JobRequest, Snapshot, Task, Watch, failure_limit
from pipelines.lease import Lease, take
from pipelines.ledger import Ledger
from pipelines.plan import Plan, Survey, survey
from pipelines.results import FAILED, ResultRow, blank_result
from pipelines.status import LAST_ERRORS, stop_key
from pipelines.store import Store, probe_preconditions

POLL_SECONDS = 1.0
LOOK_SECONDS = 5.0  # between looks at stop requests and draining nodes
START_SECONDS = 1800.0  # a cluster may have to grow, a large model to be downloaded
MAX_DEATHS = 2  # of a worker, on one row: the second happens with that row alone
MAX_REQUEUES = 10  # of a row whose machine went
MAX_FRUITLESS = 3  # restarts of a worker that does not come up

Notice = Callable[[str], None]


def run_job(request: JobRequest, watch: Watch = lambda _: None, notice: Notice = lambda _: None) -> Snapshot:
    """Runs a manifest to the end. Rows that the output store already holds are not run again.

    Args:
        watch: called about once a second with the state of the job.
        notice: called with what a person should know, such as whom we wait for.

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
    except (ValueError, ImportError) as error:
        raise JobError(f"output {redacted(spec.output)}: {error}") from error
    request = replace(request, spec=spec)
    driver = _Driver(request, found, store, watch)
    patient = request.on_running == "wait"
    lease = take(store.hurried(), spec.run, lambda: driver.document, patient, lambda error: notice(f"waiting: {error}"))
    with driver.held(lease), cluster.connected(request.address), _signals(driver.stop):
        return driver.run(cluster.with_device(request))


@contextmanager
def _signals(stop: Callable[[str], None]) -> Iterator[None]:
    """A first SIGTERM or Ctrl-C stops the run in good order, a second one leaves at once. After `ray.init`, which has
    a SIGTERM handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, _frame: Any) -> None:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, second)
        stop(signal.Signals(number).name)

    def second(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, first) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@dataclass(eq=False)
class _Worker:
    """A worker actor, as the driver sees it. `call` is what it does: starting up, or a batch."""

    actor: Any
    call: Any = None
    batch: list[Task] | None = None
    node: str | None = None
    pid: int | None = None
    question: Any = None
    progress: dict[str, Any] = field(default_factory=lambda: {"stage": "starting"})
    moved: float = 0.0  # when its progress last changed
    fruitless: int = 0
    leaving: bool = False  # its node drains

    def ask_to_come_up(self) -> None:
        self.batch, self.question, self.progress = None, None, {"stage": "starting"}
        self.call, self.leaving = self.actor.describe.remote(), False

    def give(self, batch: list[Task]) -> None:
        self.batch, self.moved = batch, time.monotonic()
        self.call = self.actor.process.remote(batch)


class _Driver:
    """Pull dispatch with one batch in flight per worker; a batch is at most `images_per_step` rows."""

    def __init__(self, request: JobRequest, found: Survey, store: Store, watch: Watch) -> None:
        self.request, self.found, self.store, self.watch = request, found, store, watch
        self.ledger = Ledger(store)
        self.log = EventLog(store.hurried(), request.spec.run, "driver")
        store.on_retry = lambda error, delay: self.log("store_retry", error=str(error), seconds=delay)
        self.document: dict[str, Any] = {"state": "running"}  # what the beat says
        self.state, self.reason, self.deadline = "running", "", math.inf
        self.workers: list[_Worker] = []
        self.suspects: deque[Task] = deque()  # each runs alone
        self.again: deque[Task] = deque()
        self.deaths: Counter[str] = Counter()
        self.requeues: Counter[str] = Counter()
        self.errors: deque[dict[str, Any]] = deque(maxlen=LAST_ERRORS)
        self.failures = 0
        self.gpu_seconds = 0.0
        self.finished_here = 0
        self.looked = -math.inf
        self.plan: Plan | None = None

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
            with suppress(StoreError):  # the next run will see the beat grow old
                lease.release(**{**self.document, "state": self.state})

    def run(self, request: JobRequest) -> Snapshot:
        self.request = request
        self.log("run_started", manifest=redacted(request.manifest), rows=self.found.rows)
        self.workers = [_Worker(actor) for actor in cluster.start_workers(request)]
        try:
            for worker in self.workers:
                worker.ask_to_come_up()
            self.models = self._first_models()
            self._begin_plan()
            if request.dry_run:
                self.state = "planned"
                return self.snapshot()
            self._work()
        finally:
            for worker in self.workers:
                ray.kill(worker.actor)
        if self.state == "running":
            self.state = "finished"
        self._note()
        self.log("run_ended", state=self.state, **self.plan.counts)
        return self.snapshot()

    def _first_models(self) -> Models:
        """What the first worker that is up has loaded; the others may still be starting, or never find a place."""
        waited = time.monotonic()
        while time.monotonic() - waited < START_SECONDS and self.state == "running":
            ready, _ = ray.wait([worker.call for worker in self.workers], timeout=POLL_SECONDS)
            for call in ready:
                worker = next(one for one in self.workers if one.call == call)
                try:
                    return ray.get(call)[0]
                except RayError as error:
                    self._not_up(worker, error)
            self._check_lease()
        raise JobError(f"no worker could be started within {START_SECONDS:g} s, or before the stop")

    def _begin_plan(self) -> None:
        settings = settings_digest(self.models, self.request.spec.config)
        damaged = self.ledger.damaged() if self.request.retry_failed else frozenset()
        self.plan = Plan(self.request, self.ledger, self.found, settings, damaged)
        self.started, self.before = time.monotonic(), self.plan.done
        self._note()
        if not self.request.dry_run:
            self.plan.write({**_job_facts(self.request, self.found.rows), "models": asdict(self.models)})
            self.lease.beat()
        self.log("plan", plan=self.plan.id, rows=self.plan.total, done=self.plan.done)

    # The loop ------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        tasks = self.plan.tasks()
        while True:
            self._check_lease()
            self._hand_out(tasks)
            calls = {worker.call: worker for worker in self.workers if worker.call is not None}
            busy = [worker for worker in calls.values() if worker.batch is not None]
            idle = any(worker.call is None for worker in self.workers)
            if not busy and (idle or self.state != "running"):
                return  # a worker is free and nothing is left for it; or we are to stop
            if time.monotonic() > self.deadline:
                self.log("grace_over", rows=sum(len(worker.batch) for worker in busy))
                return
            for call in ray.wait(list(calls), timeout=POLL_SECONDS)[0]:
                worker = calls[call]
                (self._welcome if worker.batch is None else self._collect)(worker)
            self._look_after(busy)

    def _check_lease(self) -> None:
        if self.lease.lost.is_set():
            raise OutputInUseError("another run", "another host", 0, 0.0)

    def _hand_out(self, tasks: Iterator[Task]) -> None:
        for worker in self.workers:
            if worker.call is None and self.state == "running" and not worker.leaving:
                batch = self._next_batch(tasks)
                if not batch:
                    return
                worker.give(batch)

    def _next_batch(self, tasks: Iterator[Task]) -> list[Task]:
        if self.suspects:
            return [self.suspects.popleft()]
        batch, k = [], self.request.spec.images_per_step
        while self.again and len(batch) < k:
            batch.append(self.again.popleft())
        if not batch:
            k = max(1, min(k, math.ceil(self.plan.left / len(self.workers))))  # near the end no GPU idles
            for task in tasks:
                batch.append(task)
                if len(batch) == k:
                    break
        return batch

    def _welcome(self, worker: _Worker) -> None:
        """A restarted worker is given work only once it answers: a call to one that is still down would fail too,
        and count as a second death of rows that never ran."""
        try:
            _, worker.node, worker.pid = ray.get(worker.call)
        except RayError as error:
            self._not_up(worker, error)
            return
        worker.call, worker.fruitless, worker.progress = None, 0, {"stage": "idle"}
        self.log("worker_up", pid=worker.pid, node=worker.node)

    def _not_up(self, worker: _Worker, error: RayError) -> None:
        worker.fruitless += 1
        cause = getattr(error, "cause", None)
        self.log("worker_not_up", error=cluster.reason(error))
        if cluster.is_final(error) or worker.fruitless >= MAX_FRUITLESS:
            self.workers.remove(worker)
            if not self.workers:
                raise (
                    cause
                    if isinstance(cause, JobError)
                    else JobError(f"no worker could be started: {cluster.reason(error)}")
                ) from error
            return
        time.sleep(POLL_SECONDS)
        worker.ask_to_come_up()

    def _collect(self, worker: _Worker) -> None:
        batch = worker.batch
        try:
            rows = ray.get(worker.call)
        except RayError as error:
            rows = self._lost(worker, error)
            alive = cluster.is_ours(error)
        else:
            worker.call = worker.batch = None
            worker.progress, alive = {"stage": "idle"}, True
            if self.state == "running":
                finished = {row.row_digest for row in rows}
                self.again.extend(task for task in batch if task.row_digest not in finished)
        tasks = {task.row_digest: task for task in batch}
        for row in rows:
            self._finish(tasks[row.row_digest], row)
        if not alive or worker.leaving:
            if alive:
                cluster.restart(worker.actor)
            worker.ask_to_come_up()

    def _lost(self, worker: _Worker, error: RayError) -> list[ResultRow]:
        """What a broken batch has finished; the rest runs again, or has had its chances."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, StoreError):
            raise cause
        batch = worker.batch
        self.log("worker_lost", pid=worker.pid, error=cluster.reason(error), ids=[task.row.id for task in batch])
        found = [(task, self.ledger.find(task.place)) for task in batch]
        rows = [row for _, row in found if row]
        for task in (task for task, row in found if not row):
            key = task.row_digest
            if cluster.is_ours(error):  # `process` promises not to raise
                rows.append(self._commit_failure(task, "internal", str(cause)))
            elif cluster.is_node_gone(error, worker.node) and self.requeues[key] < MAX_REQUEUES:
                self.requeues[key] += 1
                self.again.append(task)
            else:
                out_of_memory = cluster.ran_out_of_memory(error)
                self.deaths[key] += not (out_of_memory and len(batch) > 1)
                if self.deaths[key] < MAX_DEATHS:
                    self.suspects.append(task)
                else:
                    why = "the machine's memory ran out" if out_of_memory else type(error).__name__
                    message = f"the worker process died {MAX_DEATHS} times on this row ({why})"
                    rows.append(self._commit_failure(task, "process_died", message))
        if cluster.is_ours(error):
            worker.call = worker.batch = None
        return rows

    def _commit_failure(self, task: Task, kind: str, message: str) -> ResultRow:
        row = replace(blank_result(task, self.request.spec, self.models), error_kind=kind, error_message=message)
        return self.ledger.commit(task.place, row, uuid.uuid4().hex)

    def _finish(self, task: Task, row: ResultRow) -> None:
        self.plan.finish(task.place, row)
        self.finished_here += 1
        if self.request.spec.device == "cuda":
            gpus = self.request.gpus_per_worker
            self.gpu_seconds += row.seconds * (1.0 if gpus is None else gpus)
        if row.status == FAILED:
            facts = {"id": row.id, "kind": row.error_kind, "message": row.error_message}
            self.errors.append(facts)
            self.log("row_failed", **facts)
            self.failures += 1
            limit = failure_limit(self.request.max_failures, self.plan.total)
            if self.failures > limit and self.state == "running":
                self.state, self.reason = "too_many_failures", f"more than {self.request.max_failures} rows failed"
                self.log("stopping", reason=self.reason)  # running rows end

    # Looking after the workers -------------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """Ends the run within the grace period: rows end or are checkpointed."""
        if self.state != "running":
            return
        self.state, self.reason = "stopped", why
        self.deadline = time.monotonic() + self.request.grace_seconds
        self.log("stopping", reason=why, grace=self.request.grace_seconds)
        for worker in self.workers:
            if worker.batch is not None:
                worker.actor.request_stop.remote(self.request.grace_seconds)

    def _look_after(self, busy: list[_Worker]) -> None:
        now = time.monotonic()
        for worker in busy:
            self._ask(worker, now)
        self._note()
        self.watch(self.snapshot())
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        if self.store.exists(stop_key(self.request.spec.run)):
            self.stop("asked to by `stop`")
        draining = cluster.draining_nodes()
        for worker in busy:
            if worker.node in draining and not worker.leaving:
                worker.leaving = True
                self.log("node_drains", node=worker.node, ids=[task.row.id for task in worker.batch or ()])
                worker.actor.request_stop.remote(self.request.grace_seconds)

    def _ask(self, worker: _Worker, now: float) -> None:
        """Its progress, without waiting for it; a worker that makes none for too long is killed."""
        if worker.batch is None:
            return
        if worker.question is None:
            worker.question = worker.actor.progress.remote()
        elif ray.wait([worker.question], timeout=0)[0]:
            try:
                progress = ray.get(worker.question, timeout=0)
            except (RayError, GetTimeoutError):
                progress = worker.progress
            worker.question = None
            if progress != worker.progress:
                worker.progress, worker.moved = progress, now
        if now - worker.moved > self.request.stall_seconds:
            self.log("worker_stalled", pid=worker.pid, ids=[task.row.id for task in worker.batch])
            worker.moved = now
            cluster.restart(worker.actor)

    def _note(self) -> None:
        """Makes what the next beat says."""
        took = time.monotonic() - self.started
        rate = self.finished_here / took if self.finished_here else None
        self.document = {
            "plan": self.plan.id,
            "state": self.state,
            "reason": self.reason,
            **self.plan.counts,
            "rate": rate,
            "eta": (self.plan.total - self.plan.done) / rate if rate else None,
            "gpu_seconds": round(self.gpu_seconds, 1),
            "workers": [{"pid": worker.pid, **worker.progress} for worker in self.workers],
            "errors": list(self.errors),
        }

    def snapshot(self) -> Snapshot:
        workers = [worker.progress for worker in self.workers if worker.batch is not None]
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
        "etas": spec.config.etas,
        "device": spec.device,
        "images_per_step": spec.images_per_step,
        "max_pixels": spec.max_pixels,
        "preconditions": spec.preconditions,
    }
