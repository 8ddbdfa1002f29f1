"""Everything that is Ray's: joining or starting one, a worker process per GPU, what its errors mean."""

import math
import os
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

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

from pipelines.errors import JobError
from pipelines.job import AUTO, JobRequest, JobSpec
from pipelines.ledger.identity import Models
from pipelines.ledger.results import ResultRow
from pipelines.ledger.task import Task


@ray.remote(concurrency_groups={"control": 1})
class WorkerActor:
    """A worker in a process of its own; the `control` methods answer while `process` works."""

    def __init__(self, spec: JobSpec, worker: str) -> None:
        module, _, name = worker.partition(":")
        self.worker = getattr(import_module(module), name)(spec)

    def describe(self) -> tuple[Models, str, int]:
        """The models, this node's id and this process's."""
        return self.worker.models, ray.get_runtime_context().get_node_id(), os.getpid()

    def process(self, tasks: list[Task]) -> list[ResultRow]:
        return self.worker.process(tasks)

    @ray.method(concurrency_group="control")
    def progress(self) -> dict[str, Any]:
        return self.worker.progress()

    @ray.method(concurrency_group="control")
    def request_stop(self, seconds: float) -> None:
        self.worker.request_stop(seconds)


@contextmanager
def connected(address: str | None):
    """Joins the cluster at `address`, or starts an embedded Ray; leaves one that was there before alone."""
    if ray.is_initialized():
        yield
        return
    # Workers of an embedded Ray are this machine's own processes; their stdout is ours to keep quiet.
    own = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise JobError(f"Ray cannot be reached or started ({type(error).__name__}: {error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def with_device(request: JobRequest) -> JobRequest:
    """ "auto" is what the workers will find, not what this process sees: a cluster's head often has no GPU."""
    device = request.spec.device
    if device == AUTO:
        device = "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"
    return replace(request, spec=replace(request.spec, device=device))


def start_workers(request: JobRequest) -> list[Any]:
    """Worker actors, with what Ray reserves for each. On a cluster that is not large enough they wait for it to grow.

    Raises:
        JobError: this machine is not large enough for one.
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
    fits = any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes)
    if not fits and request.address is None:
        remedy = "lower --cpus-per-worker, or see --device and --gpus-per-worker"
        raise JobError(f"no machine has {cpus} CPU and {gpus:g} GPU for a worker; {remedy}")
    options = {
        "num_gpus": gpus,
        "num_cpus": cpus,
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(cpus)}},
        "max_restarts": -1,  # Ray brings a process back, the driver alone says what runs again
        "max_task_retries": 0,
    }
    return [WorkerActor.options(**options).remote(request.spec, request.worker) for _ in range(workers)]


def restart(actor: Any) -> None:
    """Kills a worker's process; Ray starts another, on another node if this one takes no more work."""
    ray.kill(actor, no_restart=False)


def draining_nodes() -> set[str]:
    """Ids of nodes that are about to go: preempted, or scaled down. Ray has no public call for it."""
    try:
        from ray._private.state import state

        return set(state.get_draining_nodes())
    except Exception:  # another version of Ray: such a node's end is then met as a lost process
        return set()


def is_final(error: RayError) -> bool:
    """Whether a worker that answered so can never come up: its constructor raised, or no node will do."""
    return isinstance(error, (RayTaskError, ActorDiedError, RuntimeEnvSetupError, ActorUnschedulableError))


def is_ours(error: RayError) -> bool:
    """Whether our own code raised, the process being well; then `error.cause` is what it raised."""
    return isinstance(error, RayTaskError)


def ran_out_of_memory(error: RayError) -> bool:
    """Whether Ray killed the process because the machine's memory ran out."""
    return isinstance(error, OutOfMemoryError)


def is_node_gone(error: RayError, node: str | None) -> bool:
    """Whether the machine went, and not the process by itself."""
    return isinstance(error, NodeDiedError) or node not in {one["NodeID"] for one in ray.nodes() if one["Alive"]}


def reason(error: BaseException) -> str:
    """The last line of what Ray says, which is the one that names the fault."""
    text = str(getattr(error, "cause", None) or error)
    return [line for line in text.strip().splitlines() if line.strip()][-1].strip()
