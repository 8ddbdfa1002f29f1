"""`--address http://HEAD:8265`: the same command, as a Ray job whose driver runs inside the cluster."""

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from pipelines.errors import JobError
from pipelines.store.lease import look
from pipelines.store.store import Store

_PARTS = ("diffcolor", "pipelines", "manifests")
_AGENT_SECONDS = 60.0
_TOKEN_FILE = Path.home() / ".ray" / "auth_token"


def _use_token_if_there_is_one() -> None:
    """Clusters check a token by default; the Jobs client sends it only in token mode, which it never sets itself and
    which is fixed when ray is first imported."""
    if "RAY_AUTH_MODE" not in os.environ and (os.environ.get("RAY_AUTH_TOKEN") or _TOKEN_FILE.exists()):
        os.environ["RAY_AUTH_MODE"] = "token"


def _refuse_other_addresses(address: str) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        other = os.environ.get(name)
        if other and other.rstrip("/") != address.rstrip("/"):
            # Ray would silently prefer the variable to what was asked for.
            raise JobError(f"{name}={other} is set and differs from --address {address}; unset it or use the same")


def stage_code(folder: Path) -> None:
    """Copies this program's own code to `folder`: what the cluster runs is what runs here."""
    for part in _PARTS:
        source = Path(import_module(part).__file__).parent
        shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(import_module("cli").__file__), folder / "cli.py")


class RayJob:
    """A job on a cluster.

    Args:
        address: the Ray dashboard's URL.

    Raises:
        JobError: it cannot be reached, or refuses us.
    """

    def __init__(self, address: str) -> None:
        _use_token_if_there_is_one()
        _refuse_other_addresses(address)
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient

        try:
            self.client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise JobError(f"the Ray dashboard at {address} cannot be used ({error})") from error
        self.job_id = ""

    def submit(self, arguments: Sequence[str], env_vars: dict[str, str], grace_seconds: float) -> str:
        """Starts `diffcolor-batch` with `arguments` in the cluster; returns Ray's job id."""
        # Between SIGTERM and SIGKILL, Ray's own `job stop` waits 3 seconds unless the job says otherwise.
        env_vars = {**env_vars, "RAY_JOB_STOP_WAIT_TIME_S": f"{grace_seconds + 10:g}"}
        with tempfile.TemporaryDirectory() as staging:
            stage_code(Path(staging))
            command = shlex.join(["python", "-m", "cli", *arguments])
            environment = {"working_dir": staging, "env_vars": env_vars}
            deadline = time.monotonic() + _AGENT_SECONDS
            while not self.job_id:
                try:
                    self.job_id = self.client.submit_job(entrypoint=command, runtime_env=environment)
                except RuntimeError as error:
                    # A cluster that has just been started has a dashboard before it has somebody to run jobs.
                    if "No available agent" not in str(error) or time.monotonic() > deadline:
                        raise JobError(f"the cluster refused the job ({error})") from error
                    time.sleep(2.0)
        return self.job_id

    def follow(self) -> Iterator[str]:
        """The driver's lines as they come, until the job ends."""
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
        """The driver's own exit code, None if Ray does not know it."""
        return self.client.get_job_info(self.job_id).driver_exit_code


def cluster_arguments(arguments: Sequence[str], manifest: str, output: str, run: str) -> list[str]:
    """The command line of `submit` as the driver in the cluster gets it: places absolute, what is ours left out."""
    # On the cluster's machines a relative path would mean another place.
    kept = ["submit", absolute_path(manifest), "--output", absolute_path(output), "--address", "auto", "--run", run]
    given = iter(arguments)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name in ("--address", "--output", "--env", "--base-model", "--judge"):
            value = value if equals else next(given)
            if name in ("--base-model", "--judge"):
                kept += [name, absolute_path(value) if Path(value).is_dir() else value]
        elif argument not in (manifest, "--follow", "--no-follow", "--json"):
            kept.append(argument)
    return kept


def absolute_path(place: str) -> str:
    """A URI as it is, a local path from the root."""
    return place if "://" in place else str(Path(place).resolve())


def end_of_run(store: Store, run: str, job: RayJob) -> tuple[str, int]:
    """How a run in the cluster ended: its state and its failed rows, from the output store: Ray's word for a job's
    state is not to be trusted, nor does its log stream always last as long as the job.

    Raises:
        JobError: it ended before it took the output; the driver's exit code stands in `code`.
    """
    while True:
        held = look(store)
        if held is None or held.holder.run != run:
            raise EndedEarlyError(job.exit_code())
        if not held.is_alive:
            return held.beat.get("state", "interrupted").replace("running", "interrupted"), held.beat.get("failed", 0)
        time.sleep(2.0)


class EndedEarlyError(JobError):
    """The driver ended before it took the output."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the job ended before it began to work (exit code {code}); its lines above say why")
        self.code = code
