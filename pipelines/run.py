"""The Ray driver: reads the plan, hands batches to one worker per GPU, and sees that every row gets one result."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from diffcolor.config import digest
from manifests.locations import redacted
from manifests.read import extra_columns, read_rows, read_schema, validated
from manifests.schema import ManifestRow
from pipelines.errors import JobError
from pipelines.identity import Models, row_digest
from pipelines.ledger import Ledger
from pipelines.results import FAILED, ResultRow
from pipelines.store import Store
from pipelines.worker import AUTO, JobSpec, Task, Worker, blank_result

POLL_SECONDS = 1.0
BEAT_SECONDS = 10.0
START_SECONDS = 900.0  # a large model is downloaded and loaded once
MAX_DEATHS = 2  # of a worker, on one row: the second happens with that row alone


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What `submit` was asked for.

    Attributes:
        columns: our column name to the manifest's.
        address: None for an embedded Ray, "auto" inside a cluster.
        workers: number of worker actors; default one per GPU, or one on a machine without.
        gpus_per_worker, cpus_per_worker: what Ray reserves for each.
        retry_failed: run rows again whose result is "failed".
        run_id: names this submit in job.json.
    """

    manifest: str
    spec: JobSpec
    columns: dict[str, str] = field(default_factory=dict)
    default_caption: str | None = None
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    cpus_per_worker: int | None = None
    retry_failed: bool = False
    run_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The job as it stands: rows in all, counts by status, what each worker does."""

    rows: int
    ok: int
    failed: int
    skipped: int
    workers: list[dict[str, Any]]

    @property
    def done(self) -> int:
        return self.ok + self.failed + self.skipped


@ray.remote(concurrency_groups={"control": 1})
class WorkerActor(Worker):
    """`Worker` in a process of its own; `progress` answers while `process` works."""

    @ray.method(concurrency_group="control")
    def progress(self) -> dict:
        return super().progress()


def run_job(request: JobRequest, watch: Callable[[Snapshot], None] = lambda _: None) -> Snapshot:
    """Runs a manifest to the end. Rows that the output store already holds are not run again.

    Args:
        watch: called about once a second with the state of the job.

    Raises:
        ManifestError: the manifest has problems; nothing was started.
        JobError: no worker could be started.
    """
    count = validated(request.manifest, request.columns, request.default_caption)
    ledger = Ledger(_output_store(request.spec.output))
    started_here, actors = _connect(request.address), []
    request = replace(request, spec=replace(request.spec, device=_device(request.spec.device)))
    try:
        actors = _start_workers(request)
        references = {actor.describe.remote(): actor for actor in actors}
        models = _first_models(references)
        # Not before: a submit that cannot run must not touch what an earlier one left.
        driver = _Driver(request, ledger, models, references, watch)
        facts = {**_job_facts(request, count), "models": asdict(models)}
        ledger.beat({"workers": []})
        ledger.write_job(facts)
        try:
            driver.run()
        except BaseException:
            ledger.write_job({**facts, "state": "interrupted"})
            raise
        ledger.write_job({**facts, "state": "finished", "finished_at": time.time()})
        return driver.snapshot()
    finally:
        for actor in actors:
            ray.kill(actor)
        if started_here:
            ray.shutdown()


def _job_facts(request: JobRequest, count: int) -> dict[str, Any]:
    spec = request.spec
    return {
        "state": "running",
        "run_id": request.run_id,
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
    }


def _connect(address: str | None) -> bool:
    """Joins the cluster at `address`, or starts an embedded Ray; returns whether this process owns the connection."""
    if ray.is_initialized():
        return False
    # Workers of an embedded Ray are this machine's own processes; their stdout is ours to keep quiet.
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            **({} if address else {"include_dashboard": False}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise JobError(f"Ray cannot be reached or started ({type(error).__name__}: {error})") from error
    return True


def _output_store(uri: str) -> Store:
    try:
        return Store(uri)
    except (ValueError, ImportError) as error:
        raise JobError(f"output {redacted(uri)}: {error}") from error


def _device(device: str) -> str:
    """ "auto" is what the workers will find, not what this process sees: a cluster's head often has no GPU."""
    return device if device != AUTO else "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"


def _start_workers(request: JobRequest) -> list[Any]:
    """Worker actors, with what Ray reserves for each.

    Raises:
        JobError: no machine is large enough for one.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpu = request.spec.device == "cuda"
    gpus = request.gpus_per_worker if request.gpus_per_worker is not None else float(on_gpu)
    workers = request.workers
    if workers is None:
        workers = max(1, int(sum(node.get("GPU", 0) for node in nodes) / gpus)) if gpus else len(nodes)
    cores = int(max(node.get("CPU", 1) for node in nodes))
    cpus = request.cpus_per_worker
    if cpus is None:  # torch on the CPU takes all there is; a GPU worker needs one core for Python and one for files
        cpus = min(2, cores) if on_gpu else max(1, cores // math.ceil(workers / len(nodes)))
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        remedy = "lower --cpus-per-worker, or see --device and --gpus-per-worker"
        raise JobError(f"no machine has {cpus} CPU and {gpus:g} GPU for a worker; {remedy}")
    environment = {"env_vars": {"OMP_NUM_THREADS": str(cpus)}}
    options = {"num_gpus": gpus, "num_cpus": cpus, "runtime_env": environment}
    options |= {"max_restarts": -1, "max_task_retries": 0}  # Ray brings a process back, the driver says what runs again
    return [WorkerActor.options(**options).remote(request.spec) for _ in range(workers)]


def _first_models(references: dict[Any, Any]) -> Models:
    """What the first worker that is up has loaded; the others may still be starting, or never find a place."""
    ready, _ = ray.wait(list(references), timeout=START_SECONDS)
    if not ready:
        raise JobError(f"no worker could be started within {START_SECONDS} s")
    try:
        return ray.get(ready[0])
    except RayTaskError as error:
        raise JobError(str(error.cause)) from error
    except RayError as error:
        reason = getattr(error, "cause", None) or error
        raise JobError(f"no worker could be started: {_last_line(str(reason))}") from error


def _last_line(text: str) -> str:
    return [line for line in text.strip().splitlines() if line.strip()][-1].strip()


@dataclass
class _Batch:
    tasks: list[Task]
    actor: Any


class _Driver:
    """Pull dispatch with one batch in flight per worker; a batch is at most `images_per_step` rows."""

    def __init__(
        self,
        request: JobRequest,
        ledger: Ledger,
        models: Models,
        starting: dict[Any, Any],
        watch: Callable[[Snapshot], None],
    ) -> None:
        self.request, self.ledger, self.models, self.watch = request, ledger, models, watch
        self.known = ledger.load()
        self.stored = {*ledger.store.list("images"), *ledger.store.list("artifacts")}
        self.plan = [self._digest(row) for row in self._manifest_rows()]
        ledger.write_plan(self.plan)
        self.results = {key: self.known[key] for key in self.plan if self._is_done(key)}
        self.deaths: dict[str, int] = {}
        self.suspects: deque[Task] = deque()
        self.flying: dict[Any, _Batch] = {}
        self.starting = dict(starting)  # the first call to a worker that starts, or restarts; and the worker
        self.idle: list[Any] = []
        self.progress: list[dict] = []

    def run(self) -> None:
        tasks, last_beat = self._pending(), 0.0
        while True:
            while self.idle and (batch := self._next_batch(tasks)):
                actor = self.idle.pop()
                self.flying[actor.process.remote(batch)] = _Batch(batch, actor)
            if not self.flying and self.idle:  # a worker is free and nothing is left for it
                break
            ready, _ = ray.wait([*self.flying, *self.starting], timeout=POLL_SECONDS)
            for reference in ready:
                if reference in self.starting:
                    self._welcome(reference)
                else:
                    self._collect(reference, self.flying.pop(reference))
            self.progress = self._ask_workers()
            self.watch(self.snapshot())
            if time.monotonic() - last_beat > BEAT_SECONDS:
                self.ledger.beat({"workers": self.progress})
                last_beat = time.monotonic()
        self._publish()
        self.watch(self.snapshot())

    def snapshot(self) -> Snapshot:
        counts = {"ok": 0, "failed": 0, "skipped": 0}
        for row in self.results.values():
            counts[row.status] += 1
        return Snapshot(rows=len(self.plan), **counts, workers=self.progress)

    def _manifest_rows(self) -> Iterator[ManifestRow]:
        return read_rows(self.request.manifest, self.request.columns, self.request.default_caption)

    def _digest(self, row: ManifestRow) -> str:
        return row_digest(row, self.models, self.request.spec.config)

    def _is_done(self, key: str) -> bool:
        if key not in self.known or (self.request.retry_failed and self.known[key].status == FAILED):
            return False
        return self.known[key].files <= self.stored  # a picture that was lost is made again

    def _pending(self) -> Iterator[Task]:
        """Streams the manifest; only rows without a result."""
        for row, key in zip(self._manifest_rows(), self.plan, strict=True):
            if key not in self.results:
                yield Task(row=row, row_digest=key)

    def _next_batch(self, tasks: Iterator[Task]) -> list[Task]:
        if self.suspects:
            return [self.suspects.popleft()]
        batch = []
        for task in tasks:
            batch.append(task)
            if len(batch) == self.request.spec.images_per_step:
                break
        return batch

    def _welcome(self, reference: Any) -> None:
        """A restarted worker is given work only once it answers: a call to one that is still down would fail too,
        and count as a second death of rows that never ran."""
        actor = self.starting.pop(reference)
        try:
            ray.get(reference)
            self.idle.append(actor)
        except (RayTaskError, ActorDiedError) as error:  # it cannot come back: its constructor raises
            if not (self.starting or self.flying or self.idle):
                raise JobError(f"no worker is left: {_last_line(str(error))}") from error
        except RayError:
            time.sleep(POLL_SECONDS)
            self.starting[actor.describe.remote()] = actor

    def _collect(self, reference: Any, batch: _Batch) -> None:
        actor_lives = True
        try:
            rows = ray.get(reference)
        except RayTaskError as error:  # ours to fix: `process` promises not to raise
            rows, lost = self._committed(batch)
            rows += [self._commit_failure(task, "internal", str(error.cause)) for task in lost]
        except RayError as error:  # the process is gone: rows that it had not finished are tried again, each alone
            actor_lives = False
            rows, lost = self._committed(batch)
            for task in lost:
                self.deaths[task.row_digest] = self.deaths.get(task.row_digest, 0) + 1
                if self.deaths[task.row_digest] >= MAX_DEATHS:
                    message = f"the worker process died {MAX_DEATHS} times on this row ({type(error).__name__})"
                    rows.append(self._commit_failure(task, "process_died", message))
                else:
                    self.suspects.append(task)
        for row in rows:
            self.results[row.row_digest] = row
        if actor_lives:
            self.idle.append(batch.actor)
        else:
            self.starting[batch.actor.describe.remote()] = batch.actor

    def _committed(self, batch: _Batch) -> tuple[list[ResultRow], list[Task]]:
        """What a broken batch has finished in this run, and what it has not."""
        found = {task.row_digest: self.ledger.find(task.row_digest) for task in batch.tasks}
        done = [row for key, row in found.items() if row is not None and row != self.known.get(key)]
        finished = {row.row_digest for row in done}
        return done, [task for task in batch.tasks if task.row_digest not in finished]

    def _commit_failure(self, task: Task, kind: str, message: str) -> ResultRow:
        row = replace(blank_result(task, self.request.spec, self.models), error_kind=kind, error_message=message)
        self.ledger.commit(row)
        return row

    def _ask_workers(self) -> list[dict]:
        """What the workers do; one that is loading, restarting or gone does not answer in time."""
        references = [batch.actor.progress.remote() for batch in self.flying.values()]
        if not references:
            return []
        ready, _ = ray.wait(references, num_returns=len(references), timeout=POLL_SECONDS / 2)
        answers = []
        for reference in references:
            try:
                answers.append(ray.get(reference) if reference in ready else {"stage": "busy"})
            except RayError:
                answers.append({"stage": "restarting"})
        return answers

    def _publish(self) -> None:
        """`results/` in manifest order, with the carried columns as they are in the manifest now."""
        carried = extra_columns(read_schema(self.request.manifest), self.request.columns)
        known = self.ledger.load()  # not `self.results`: a `recolor` may have added to a row meanwhile
        rows = (
            replace(known[key], extra=dict(row.extra), group_id=row.group_id)
            for row, key in zip(self._manifest_rows(), self.plan, strict=True)
        )
        self.ledger.publish(rows, carried)
