"""Runs a job: hands rows to one worker per GPU and sees that every row gets one result. The driver only coordinates:
Ray places and restarts processes, the output store holds the truth."""

import math
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from diffcolor.identity import ModelIdentity
from manifests.locations import redacted
from pipelines.driver import cluster
from pipelines.driver.control import LOOK_SECONDS, RunControl
from pipelines.driver.dispatch import Dispatcher, Nothing, Verdict
from pipelines.driver.idle import nothing_to_do
from pipelines.driver.metrics import RunMetrics
from pipelines.driver.on_end import tell
from pipelines.driver.pool import LostRow, WorkerHandle, WorkerPool
from pipelines.driver.signals import Signalled, first_signal
from pipelines.driver.tally import Tally
from pipelines.errors import JobError, StoreError
from pipelines.job import Device, JobRequest, OnRunning, failure_limit
from pipelines.ledger.identity import settings_digest
from pipelines.ledger.job_file import Heartbeat
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.manifest_summary import ManifestSummary, summarize
from pipelines.ledger.plan import Plan
from pipelines.ledger.results import FAILED, ResultRow
from pipelines.ledger.task import Task, blank_result
from pipelines.progress import RunState, Snapshot, Watch
from pipelines.store.lease import acquire
from pipelines.store.probe import probe_preconditions
from pipelines.store.store import Store

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
        notice: called with what a person should know, such as which run we wait for.
        at_end: called with the output store, and whether rows were finished, unless the run was stopped; what it raises
            is logged, the results are safe.

    Raises:
        ManifestError: the manifest has problems; nothing was started.
        OutputInUseError: another run holds the output, or has taken it over.
        StoreError: the output store cannot be used.
        JobError: no worker could be started.
    """
    try:
        snapshot = _run_job(request.located(), watch, notice, at_end)
    except Exception as error:
        _tell(request, notice, {"state": RunState.failed, "error": str(error)})
        raise
    _tell(request, notice, {**snapshot.to_json(), "error": None})
    return snapshot


def _tell(request: JobRequest, notice: Notice, said: dict[str, Any]) -> None:
    """Carries out `--on-end`."""
    if request.on_end and not request.dry_run:
        place = {"output": redacted(request.spec.output), "run": request.spec.run}
        if fault := tell(request.on_end, {**place, **said}):
            notice(f"warning: --on-end {redacted(request.on_end)}: {fault}")


def _run_job(request: JobRequest, watch: Watch, notice: Notice, at_end: AtEnd) -> Snapshot:
    manifest = summarize(request)
    request, store = _open_output(request, notice)
    lease = acquire(
        store.with_timeout(),
        request.spec.run,
        Heartbeat().to_json(),
        wait=request.on_running is OnRunning.wait,
        waiting=lambda error: notice(f"waiting: {error}"),
    )
    control = RunControl(request, store, lease, Signalled())
    with control.held():
        if ended := nothing_to_do(request, manifest, Ledger(store)):
            return _left_as_it_is(control, manifest, ended)
        return _work_through(request, manifest, control, watch, notice, at_end)


def _left_as_it_is(control: RunControl, manifest: ManifestSummary, ended: Heartbeat) -> Snapshot:
    """The end of a run that had nothing to do."""
    control.log("nothing_to_do", rows=manifest.rows)
    control.state = ended.state
    control.says(ended)
    return Snapshot(rows=manifest.rows, ok=ended.ok, failed=ended.failed, skipped=ended.skipped, state=ended.state)


def _work_through(
    request: JobRequest, manifest: ManifestSummary, control: RunControl, watch: Watch, notice: Notice, at_end: AtEnd
) -> Snapshot:
    with cluster.connected(request.address), first_signal(control.signalled):
        request = cluster.with_device(request, notice)
        control.log("run_started", manifest=redacted(request.manifest), rows=manifest.rows)
        with WorkerPool(request, control.log) as pool:
            models = pool.first_models(control.goes_on)
            if models is None:
                return Snapshot(rows=manifest.rows, state=control.state)
            run = _Run(request, manifest, control, pool, models, watch)
            if request.dry_run:
                return run.count(notice)
            run.work()
        run.finish(at_end)
        return run.snapshot()


def _open_output(request: JobRequest, notice: Notice) -> tuple[JobRequest, Store]:
    """The output store, and the request with what was found out about it."""
    spec = request.spec
    try:
        preconditions = probe_preconditions(spec.output, spec.patience)
        if not preconditions:
            notice("warning: the output store ignores conditional writes: two runs at once could both count")
        spec = replace(spec, preconditions=preconditions)
        return replace(request, spec=spec), Store(spec.output, patience=spec.patience, preconditions=preconditions)
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise JobError(f"output {redacted(spec.output)}: {error}") from error


class _Run:
    """A plan at work on a pool of workers."""

    def __init__(
        self,
        request: JobRequest,
        manifest: ManifestSummary,
        control: RunControl,
        pool: WorkerPool,
        models: ModelIdentity,
        watch: Watch,
    ) -> None:
        self.request, self.control, self.pool, self.models, self.watch = request, control, pool, models, watch
        self.ledger = Ledger(control.store)
        settings = settings_digest(models, request.spec.config, request.spec.outputs)
        damaged = self.ledger.damaged() if request.retry_failed else None
        self.plan = Plan(request, self.ledger, manifest, settings, damaged)
        self.dispatcher = Dispatcher(self.plan.tasks())
        self.looked, self.asked_to_stop = 0.0, False
        self.tally, self.metrics = Tally(), RunMetrics()
        control.on_retry = self.metrics.store_retry
        self._say()
        if not request.dry_run:
            self.plan.write(models)
            control.lease.heartbeat()
        control.log("plan", plan=self.plan.id, rows=self.plan.total, done=self.plan.done)

    def count(self, notice: Notice) -> Snapshot:
        """A dry run: the plan counts what is done, and writes nothing."""
        self.control.state = RunState.planned
        if anew := self.plan.anew():
            notice(f"{anew} rows have a result that would be made anew; that takes --replan")
        deque(self.plan.tasks(), maxlen=0)
        return self.snapshot()

    def finish(self, at_end: AtEnd) -> None:
        """After the work: checks that nothing is left, and says how the run ended."""
        if self.control.state == RunState.running:
            self.plan.check_complete()
        if self.plan.done == self.plan.total:  # also where it was asked to stop with its last row
            self.plan.complete()
            if self.control.state in (RunState.running, RunState.stopped):
                self.control.state = RunState.finished
        if self.request.retry_failed:
            self.ledger.write_damaged(self.plan.damaged)
        self._say()
        if self.control.state != RunState.stopped:  # which has no time left
            try:
                at_end(self.control.store, self.tally.finished > 0)
            except Exception as error:
                self.control.log("report_failed", error=f"{type(error).__name__}: {error}")
        self.control.log("run_ended", state=self.control.state, **self.plan.counts)

    # The loop ------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Until nothing is left to do, or the run is to end and its workers have ended, or the grace is over."""
        while self._goes_on() or self.pool.busy:
            nothing = self._hand_out()
            if nothing is Nothing.LEFT and not self.pool.busy and not self.pool.has_lost:
                return  # a worker is free and nothing is left for it
            if time.monotonic() > self.control.deadline:
                self.control.log("grace_over", rows=sum(len(worker.rows) for worker in self.pool.busy))
                return
            for worker, call in self.pool.returned(wait=nothing is not Nothing.YET):
                self._collect(worker, call)
            self._judge_lost()
            self._look_around()

    def _goes_on(self) -> bool:
        goes_on = self.control.goes_on()
        if self.control.state == RunState.stopped and not self.asked_to_stop:
            self.asked_to_stop = True
            self.pool.request_stop(_GRACE_OF_WORKERS * self.request.grace_seconds)
        return goes_on

    def _most(self) -> int:
        """Rows that each worker may have at once: enough to find K of one size among them, and near the end no more
        than leave the others their share."""
        share = math.ceil((self.plan.total - self.plan.done) / max(1, 2 * len(self.pool.workers) - 1))
        return min(cluster.rows_ahead(self.request.spec), max(self.request.spec.images_per_step or 1, share))

    def _hand_out(self) -> Nothing | None:
        """Gives workers something to do, until they have enough (None) or there is nothing to give."""
        while worker := self.pool.taker(self._most()):
            if not self._goes_on():
                return Nothing.LEFT
            task = self.dispatcher.next_row(to_free=not worker.rows)
            if isinstance(task, Nothing):
                return task
            worker.give(task, self.dispatcher.is_suspect(task))
        return None

    def _collect(self, worker: WorkerHandle, call: Any) -> None:
        """Takes a row that a worker returned, or lost."""
        task = worker.take_back(call)
        try:
            rows = ray.get(call)
        except RayError as error:
            rows = self._rows_of_lost(worker, task, error)
        else:
            if not rows and self.control.state == RunState.running:  # a worker that is to leave gives rows back
                self.dispatcher.give_back(task)
        for row in rows:
            self._enter(task, row)
        if worker.leaving and not worker.rows and not worker.lost:
            worker.kill()
            worker.start()

    def _rows_of_lost(self, worker: WorkerHandle, task: Task, error: RayError) -> list[ResultRow]:
        """The outcome of a row that did not come back, if it has one: it was finished, or an error of ours is it."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, StoreError):
            raise cause
        is_alive = cluster.is_ours(error)
        if is_alive or worker.starting is None:  # once for each process that was lost
            ids = [task.row.id, *worker.ids]
            self.control.log("worker_lost", pid=worker.pid, error=cluster.reason(error), ids=ids)
        if not is_alive and worker.starting is None:
            worker.start()
        self.metrics.lost()
        if row := self.ledger.find(task.place):
            return [row]
        loss, reason = cluster.loss_of(error, worker.node)
        if is_alive:
            verdict = self.dispatcher.lose(task, loss, reason, in_hand=True, alone=False)
            return [self._commit_failure(verdict)] if verdict else []
        worker.lost.append(LostRow(task, loss, reason))
        return []

    def _judge_lost(self) -> None:
        """Decides about lost rows once it is known what their workers had in hand."""
        for lost, in_hand, alone in self.pool.lost():
            was_in_hand = in_hand is None or lost.task.row.id in in_hand
            verdict = self.dispatcher.lose(lost.task, lost.loss, lost.reason, in_hand=was_in_hand, alone=alone)
            if verdict:
                self._enter(lost.task, self._commit_failure(verdict))

    def _commit_failure(self, verdict: Verdict) -> ResultRow:
        blank = blank_result(verdict.task, self.request.spec, self.models)
        row = replace(blank, error_kind=verdict.kind, error_message=verdict.message)
        return self.ledger.commit(verdict.task.place, row, uuid.uuid4().hex)

    def _enter(self, task: Task, row: ResultRow) -> None:
        """Enters an outcome into the plan, and counts it."""
        self.plan.finish(task.place, row)
        gpus = 0.0
        if self.request.spec.device is Device.cuda:
            gpus = 1.0 if self.request.gpus_per_worker is None else self.request.gpus_per_worker
        self.tally.add(row, gpus)
        self.metrics.finished(row)
        hours = self.request.budget_hours
        if hours is not None and self.tally.worker_seconds >= hours * 3600:
            self.control.stop(f"the budget of {hours:g} worker hours is used up")
        if row.status != FAILED:
            return
        self.control.log("row_failed", id=row.id, kind=row.error_kind, message=row.error_message)
        if self.tally.failed > failure_limit(self.request.max_failures, self.plan.total):
            self.control.give_up(f"more than {self.request.max_failures} rows failed")

    # Around the loop -----------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        self.pool.ask_progress()
        self.metrics.look(self.plan.total - self.plan.done, self.pool.workers)
        if time.monotonic() - self.looked > LOOK_SECONDS and self.pool.control_service.answers():
            self.looked = time.monotonic()
            self.pool.leave_draining_nodes(_GRACE_OF_WORKERS * self.request.grace_seconds)
            if self.control.state == RunState.running and self.plan.left:
                self.pool.grow()
        self._say()
        self.watch(self.snapshot())

    def _say(self) -> None:
        """Makes what the next heartbeat says."""
        rate = self.tally.rate
        heartbeat = Heartbeat(
            plan=self.plan.id,
            state=self.control.state,
            reason=self.control.reason,
            **self.plan.counts,
            rate=rate,
            eta=(self.plan.total - self.plan.done) / rate if rate else None,
            gpu_seconds=round(self.tally.gpu_seconds, 1),
            workers=tuple(replace(worker.progress, pid=worker.pid) for worker in self.pool.workers),
            errors=tuple(self.tally.last_errors),
        )
        self.control.says(heartbeat)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            rows=self.plan.total,
            **self.plan.counts,
            imported=self.plan.imported,
            state=self.control.state,
            workers=tuple(worker.progress for worker in self.pool.busy),
        )
