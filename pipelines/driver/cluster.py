"""Ray itself: joining or starting a cluster, a worker process per GPU, what Ray's errors mean."""

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from diffcolor.config import MOST_IMAGES
from diffcolor.identity import ModelIdentity
from pipelines.driver.dispatch import Loss
from pipelines.driver.last_words import LastWords, LastWordsFile
from pipelines.errors import JobError
from pipelines.job import IMAGES_PER_STEP, Device, JobRequest, JobSpec
from pipelines.ledger.results import ResultRow
from pipelines.ledger.task import Task
from pipelines.progress import WorkerProgress

_CODE_FOLDER = Path(__file__).resolve().parents[2]
_START_ATTEMPTS = 4
MOST_GPU_CPUS = 8  # cores of a worker with a GPU, if not said otherwise
AHEAD, MOST_AHEAD = 8, 128  # rows that a worker has at once, in multiples of K, and at most
_CONNECT_SECONDS, _AWAY_SECONDS = 2.0, 15.0  # a head that is restarted is back sooner


class JobWorker(Protocol):
    """What a worker offers. It is made with a `JobSpec`; its methods are called while it works, `process` for several
    rows at a time.

    Attributes:
        at_work: set by us, to be called with the ids of the rows in hand whenever they change.
    """

    identity: ModelIdentity
    at_work: Callable[[Sequence[str]], None]

    def process(self, tasks: list[Task]) -> list[ResultRow]:
        """Commits an outcome for every task, but for those that a stop leaves out; raises StoreError only."""
        ...

    def progress(self) -> WorkerProgress: ...

    def request_stop(self, seconds: float) -> None: ...


@ray.remote(concurrency_groups={"control": 1})  # type: ignore[call-overload]  # an option that its stub lacks
class WorkerActor:
    """A worker in a process of its own; its `control` methods answer while `process` works."""

    def __init__(self, spec: JobSpec, worker: str, folder: str | None) -> None:
        if folder:  # the driver's, which relative paths in environment variables start from
            os.chdir(folder)
        module, _, name = worker.partition(":")
        last_words = LastWordsFile(str(ray.get_runtime_context().get_actor_id()))
        self.last_words = last_words.before
        self.worker: JobWorker = getattr(import_module(module), name)(spec)
        self.worker.at_work = last_words.write

    def describe(self) -> tuple[ModelIdentity, str, int, LastWords]:
        """The models, this node's id and this process's, and what the process before it had in hand."""
        return self.worker.identity, ray.get_runtime_context().get_node_id(), os.getpid(), self.last_words

    def process(self, tasks: list[Task]) -> list[ResultRow]:
        return self.worker.process(tasks)

    @ray.method(concurrency_group="control")
    def progress(self) -> WorkerProgress:
        return self.worker.progress()

    @ray.method(concurrency_group="control")
    def request_stop(self, seconds: float) -> None:
        self.worker.request_stop(seconds)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Joins the cluster at `address`, or starts an embedded Ray; one that is initialized already is left alone."""
    if ray.is_initialized():
        yield
        return
    # An embedded Ray needs no dashboard.
    own: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        start_ray(address=address or "local", **own)
    except Exception as error:  # Ray raises a bare Exception where a node is too slow to start
        raise JobError(f"Ray cannot be reached or started ({type(error).__name__}: {error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(**options: Any) -> None:
    """`ray.init` with quiet logs, tried again where a busy machine was too slow for the 30 s that Ray gives a node."""
    if options.get("address") != "local":
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    for attempt in range(_START_ATTEMPTS):
        try:
            # Ray puts the current folder before all others on its workers' module path, where a foreign `pipelines`
            # or `cli.py` may lie.
            with contextlib.chdir(_CODE_FOLDER), _on_loopback():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except Exception as error:
            ray.shutdown()
            if "timed out" not in str(error) or attempt + 1 == _START_ATTEMPTS:
                raise


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started binds to this machine's loopback address alone: its ports are not for the network. Ray does
    so by itself on macOS and Windows, where it has no clusters, and has no public option for it."""
    try:
        from ray._private import ray_constants
    except ImportError:  # another version of Ray
        yield
        return
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


class ControlService:
    """Ray's control service (GCS), without which nothing can be started. Ray ends this process, without a word of ours,
    when it has been away for a minute, and questions to it wait as long."""

    def __init__(self) -> None:
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self.address, self._heard = (host.strip("[]"), int(port)), time.monotonic()

    def answers(self) -> bool:
        """Whether it can be reached.

        Raises:
            JobError: it has been away for too long.
        """
        try:
            with socket.create_connection(self.address, timeout=_CONNECT_SECONDS):
                self._heard = time.monotonic()
                return True
        except OSError as error:
            if time.monotonic() - self._heard < _AWAY_SECONDS:
                return False
            message = f"Ray's control service at {':'.join(map(str, self.address))} is gone ({error}); what is finished"
            raise JobError(f"{message} is kept, submit again to go on") from error


def with_device(request: JobRequest, notice: Callable[[str], None]) -> JobRequest:
    """Resolves "auto" by what the workers have, not this process: a cluster's head often has no GPU. One that has none
    now may be about to get some, so it is said that none is waited for."""
    device = request.spec.device
    if device is Device.auto:
        device = Device.cuda if ray.cluster_resources().get("GPU", 0) else Device.cpu
        if device is Device.cpu and request.address:
            notice("warning: no machine of the cluster has a GPU now, so CPUs are used; --device cuda waits for GPUs")
    return replace(request, spec=replace(request.spec, device=device))


def _gpus_per_worker(request: JobRequest) -> float:
    on_gpu = request.spec.device is Device.cuda
    return request.gpus_per_worker if request.gpus_per_worker is not None else float(on_gpu)


def wanted_workers(request: JobRequest) -> int:
    """How many workers the job asks for, or the cluster has room for now: one for each GPU, or for each machine."""
    if request.workers is not None:
        return request.workers
    gpus, nodes = _gpus_per_worker(request), [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max(1, int(sum(node.get("GPU", 0) for node in nodes) / gpus)) if gpus else len(nodes)


def start_workers(request: JobRequest, workers: int, expected: int | None = None) -> list[Any]:
    """Starts worker actors with their share of resources. On a cluster that is too small they wait for it to grow.

    Args:
        expected: how many workers there will be, these included, if others have been started.

    Raises:
        JobError: this machine is too small for one.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpu = request.spec.device is Device.cuda
    gpus, expected = _gpus_per_worker(request), expected or workers
    cores = int(max(node.get("CPU", 1) for node in nodes))
    cpus = request.cpus_per_worker
    if cpus is None:  # torch on the CPU uses all cores
        cpus = _cores_beside_a_gpu(nodes, gpus) if on_gpu else max(1, cores // math.ceil(expected / len(nodes)))
    fits = any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes)
    if not fits and request.address is None:
        remedy = "lower --cpus-per-worker, or see --device and --gpus-per-worker"
        raise JobError(f"no machine has {cpus} CPU and {gpus:g} GPU for a worker; {remedy}")
    options = {
        "num_gpus": gpus,
        "num_cpus": cpus,
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(cpus)}},
        "max_concurrency": rows_ahead(request.spec),
        "max_restarts": -1,  # Ray restarts processes; the driver alone decides what runs again
        "max_task_retries": 0,
    }
    actor: Any = WorkerActor
    folder = os.getcwd() if request.address is None else None
    return [actor.options(**options).remote(request.spec, request.worker, folder) for _ in range(workers)]


def _cores_beside_a_gpu(nodes: list[dict[str, float]], gpus: float) -> int:
    """Cores for a worker that takes `gpus`: one for Python and others for files, so many that every GPU of every node
    gets its worker."""
    shares = [
        node.get("CPU", 1) // max(1, node["GPU"] // gpus) for node in nodes if gpus and node.get("GPU", 0) >= gpus
    ]
    if not shares:  # the nodes with GPUs are still to come
        return min(2, int(max(node.get("CPU", 1) for node in nodes)))
    return max(1, int(min(MOST_GPU_CPUS, *shares)))


def rows_ahead(spec: JobSpec) -> int:
    """Rows that a worker has at once: it reads them ahead, to find K of one size."""
    k = spec.images_per_step or (MOST_IMAGES if spec.device is Device.cuda else IMAGES_PER_STEP)
    return max(k, min(AHEAD * k, MOST_AHEAD))


def restart(actor: Any) -> None:
    """Kills a worker's process; Ray starts another, on another node if this one takes no more work."""
    ray.kill(actor, no_restart=False)


def draining_nodes() -> set[str]:
    """Ids of nodes that are about to go: preempted or scaled down. Ray has no public call for it."""
    try:
        from ray._private.state import state

        return set(state.get_draining_nodes())
    except Exception:  # another version of Ray: the node's end then appears as a lost process
        return set()


def is_final(error: RayError) -> bool:
    """Whether a worker can never start: its constructor raised, or no node fits."""
    return isinstance(error, (RayTaskError, ActorDiedError, RuntimeEnvSetupError, ActorUnschedulableError))


def is_ours(error: RayError) -> bool:
    """Whether our own code raised in a healthy process; `error.cause` is what it raised."""
    return isinstance(error, RayTaskError)


def is_gone(node: str | None) -> bool:
    """Whether a node is no longer in the cluster."""
    return node not in {each["NodeID"] for each in ray.nodes() if each["Alive"]}


def loss_of(error: RayError, node: str | None) -> tuple[Loss, str]:
    """Why a row of a worker on `node` did not come back, and in words."""
    if is_ours(error):
        return Loss.OUR_ERROR, str(getattr(error, "cause", None))
    name = type(error).__name__
    if isinstance(error, NodeDiedError) or is_gone(node):
        return Loss.NODE_GONE, name
    return (Loss.OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else Loss.PROCESS_DIED), name


def reason(error: BaseException) -> str:
    """The last line of Ray's message, which is the one that names the fault."""
    text = str(getattr(error, "cause", None) or error)
    return [line for line in text.strip().splitlines() if line.strip()][-1].strip()
