"""`--address http://HEAD:8265`: the job as a Ray job whose driver runs inside the cluster."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from diffcolor.config import MINI
from pipelines.errors import JobError
from pipelines.job import JobRequest, JobSpec
from pipelines.ledger.job_file import Heartbeat
from pipelines.progress import RunState
from pipelines.store.lease import read_lease
from pipelines.store.store import Store

REQUEST_FILE = "request.json"
_PARTS = ("diffcolor", "pipelines", "manifests")
_AGENT_SECONDS = 60.0
_TOKEN_FILE = Path.home() / ".ray" / "auth_token"


def _use_token_if_any() -> None:
    """Clusters check a token by default. The Jobs client sends it only in token mode, which it never sets itself and
    which cannot be changed after ray's first import."""
    if "RAY_AUTH_MODE" not in os.environ and (os.environ.get("RAY_AUTH_TOKEN") or _TOKEN_FILE.exists()):
        os.environ["RAY_AUTH_MODE"] = "token"


def _refuse_other_addresses(address: str) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        other = os.environ.get(name)
        if other and other.rstrip("/") != address.rstrip("/"):
            # Ray would silently prefer the variable to the address that was given.
            raise JobError(f"{name}={other} is set and differs from --address {address}; unset it or use the same")


def stage_code(folder: Path, spec: JobSpec) -> None:
    """Copies this program's own code to `folder`: the cluster runs the same code. The weights of embedded models that
    the job does not use stay here: they are most of what would be sent."""
    for part in _PARTS:
        source = Path(str(import_module(part).__file__)).parent
        shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for model, used in (("mini", spec.base_model), ("judge", spec.judge)):
        for weights in (folder / "diffcolor" / "embedded" / model).rglob("*.safetensors") if used != MINI else ():
            weights.unlink()


class RayJob:
    """A job on a cluster.

    Args:
        address: the Ray dashboard's URL.

    Raises:
        JobError: it cannot be reached, or denies access.
    """

    def __init__(self, address: str) -> None:
        _use_token_if_any()
        _refuse_other_addresses(address)
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient

        try:
            self.client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise JobError(f"the Ray dashboard at {address} cannot be used ({error})") from error
        self.job_id = ""

    def submit(self, request: JobRequest, env_vars: dict[str, str]) -> str:
        """Starts the driver of a request in the cluster; returns Ray's job id."""
        # Between SIGTERM and SIGKILL, Ray's own `job stop` waits 3 seconds unless the job says otherwise.
        env_vars = {**env_vars, "RAY_JOB_STOP_WAIT_TIME_S": f"{request.grace_seconds + 10:g}"}
        request = replace(request.located(), address="auto")
        with tempfile.TemporaryDirectory() as staging:
            stage_code(Path(staging), request.spec)
            (Path(staging) / REQUEST_FILE).write_text(json.dumps(request.to_json()))
            command = f"python -m pipelines.commands.run_request {REQUEST_FILE}"
            environment = {"working_dir": staging, "env_vars": env_vars}
            deadline = time.monotonic() + _AGENT_SECONDS
            while not self.job_id:
                try:
                    self.job_id = self.client.submit_job(entrypoint=command, runtime_env=environment)
                except (RuntimeError, OSError) as error:  # refused, or the connection was lost
                    # A cluster that has just been started has a dashboard before it has an agent that runs jobs.
                    if "No available agent" not in str(error) or time.monotonic() > deadline:
                        raise JobError(f"the job cannot be submitted ({error})") from error
                    time.sleep(2.0)
        return self.job_id

    def follow(self) -> Iterator[str]:
        """The driver's output, line by line, until the job ends."""
        import asyncio

        lines = self.client.tail_job_logs(self.job_id)
        loop = asyncio.new_event_loop()
        try:
            while True:
                try:
                    yield loop.run_until_complete(anext(lines))
                except StopAsyncIteration:
                    return
        finally:
            loop.close()

    def exit_code(self) -> int | None:
        """The driver's exit code, None if Ray does not know it."""
        return self.client.get_job_info(self.job_id).driver_exit_code


def end_of_run(store: Store, run: str, job: RayJob) -> tuple[RunState, int]:
    """How a run in the cluster ended: its state and its failed rows, from the output store. What Ray says of a job's
    state is not reliable, nor does its log stream always last as long as the job.

    Raises:
        EndedEarlyError: it ended before it acquired the output; `code` is the driver's exit code.
    """
    while True:
        lease = read_lease(store)
        if lease is None or lease.holder.run != run:
            raise EndedEarlyError(job.exit_code())
        if not lease.is_alive:
            heartbeat = Heartbeat.from_json(lease.heartbeat)
            return heartbeat.ended_as, heartbeat.failed
        time.sleep(2.0)


class EndedEarlyError(JobError):
    """The driver ended before it acquired the output."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the job ended before it started to work (exit code {code}); see its output above")
        self.code = code
