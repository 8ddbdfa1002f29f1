"""The exit codes of all commands (docs/errors.md)."""

from enum import IntEnum

from pipelines.progress import RunState


class ExitCode(IntEnum):
    """What a command's end means."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    ROWS_FAILED = 3
    STOPPED = 4
    UNAVAILABLE = 5
    IN_USE = 7
    INTERRUPTED = 130


HELP = (
    "Exit codes: 0 all rows ok or skipped; 1 unexpected error; 2 bad usage or manifest; 3 some rows failed, or files "
    "differ; 4 stopped, submit again to resume; 5 store or cluster unavailable, submit again to resume; 7 output in "
    "use; 130 interrupted twice."
)


def of_run(state: RunState, failed: int) -> ExitCode:
    """The code of a run that ended in `state` with so many failed rows."""
    if state is RunState.stopped:
        return ExitCode.STOPPED
    if state in (RunState.failed, RunState.interrupted):
        return ExitCode.UNAVAILABLE
    return ExitCode.ROWS_FAILED if failed or state is RunState.too_many_failures else ExitCode.OK
