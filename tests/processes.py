"""Processes that tests start, and how long they are waited for.

Every deadline is a multiple of `TEST_SLOWNESS` (an environment variable, 1 by default): on a busy machine, raise it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")
ROOT = Path(__file__).parents[1]
SLOWNESS = float(os.environ.get("TEST_SLOWNESS", "1"))


def deadline(seconds: float) -> float:
    """How long to wait for what takes some seconds on an idle machine."""
    return SLOWNESS * seconds


class Processes:
    """Starts processes in groups of their own, and ends them all."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen] = []

    def start(self, command: list, environment: dict[str, str] | None = None, **options) -> subprocess.Popen:
        """Starts a command from the project's folder; its output, both streams, is kept for `communicate`."""
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT, **options}
        process = subprocess.Popen([str(part) for part in command], env=variables, start_new_session=True, **settings)
        self.started.append(process)
        return process

    def end_all(self) -> None:
        """Kills every process that is left of the groups."""
        for process in self.started:
            kill(descendants(process.pid))
            with suppress(subprocess.TimeoutExpired, ValueError):
                process.communicate(timeout=deadline(30))


@contextmanager
def owned_processes() -> Iterator[Processes]:
    """Processes that do not outlive the block."""
    processes = Processes()
    try:
        yield processes
    finally:
        processes.end_all()


def descendants(session: int, named: str = "") -> list[int]:
    """Processes that were started in a session, whatever became of their parents."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(folder.name)
            if os.getsid(pid) == session and named in (folder / "cmdline").read_text():
                found.append(pid)
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], Value], seconds: float = 120.0) -> Value:
    """The condition's value once it is true; a file that is not there yet makes it false."""
    end = time.monotonic() + deadline(seconds)
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except FileNotFoundError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"it did not come to that within {deadline(seconds):.0f} s")


def ended(process: subprocess.Popen, seconds: float = 300.0) -> tuple[int, str]:
    """The exit code and the output of a process, once it has ended."""
    output, _ = process.communicate(timeout=deadline(seconds))
    return process.returncode, output


def finish(process: subprocess.Popen, code: int, seconds: float = 300.0) -> str:
    """The output of a process that has to end with `code`."""
    returned, output = ended(process, seconds)
    assert returned == code, output[-3000:]
    return output


def kill_everything(driver: subprocess.Popen) -> None:
    """A driver and all that it started."""
    kill(descendants(driver.pid))
    driver.communicate()
