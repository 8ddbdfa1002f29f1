"""`--address http://HEAD:8265`: the same command, as a Ray job whose driver runs inside the cluster."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from pipelines.errors import JobError

_PARTS = ("diffcolor", "pipelines", "manifests")
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
        ignored = shutil.ignore_patterns("__pycache__", "training")
        shutil.copytree(source, folder / part, ignore=ignored)
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

    def submit(self, arguments: Sequence[str], env_vars: dict[str, str]) -> str:
        """Starts `diffcolor-batch` with `arguments` in the cluster; returns Ray's job id."""
        with tempfile.TemporaryDirectory() as staging:
            stage_code(Path(staging))
            command = shlex.join(["python", "-m", "cli", *arguments])
            try:
                self.job_id = self.client.submit_job(
                    entrypoint=command, runtime_env={"working_dir": staging, "env_vars": env_vars}
                )
            except RuntimeError as error:
                raise JobError(f"the cluster refused the job ({error})") from error
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
