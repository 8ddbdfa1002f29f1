"""Runs a request here or in a cluster, and says how it ended."""

import os
import time
from contextlib import suppress

import typer

from pipelines.commands.exit_codes import ExitCode, of_run
from pipelines.commands.terminal import console, open_output, print_json, reported, say
from pipelines.job import JobRequest, OnRunning, absolute_path
from pipelines.progress import RunState


def run_here(request: JobRequest, as_json: bool = False) -> ExitCode:
    """Runs a job with this process as its driver, and says how it ended."""
    output = request.spec.output
    with reported():
        from pipelines.commands.console import summary, watching
        from pipelines.curation.report.report import refresh_report
        from pipelines.driver.run import run_job
        from pipelines.errors import OutputInUseError
        from pipelines.operations.status import status

        try:
            with watching(console) as watch:
                snapshot = run_job(request, watch, say, refresh_report)
        except OutputInUseError:
            if request.on_running is not OnRunning.attach:
                raise
            return _attach(output, as_json)
    if request.dry_run:
        left = snapshot.rows - snapshot.done
        say(f"{summary(snapshot, None)} here or in an earlier plan; at most {left} to do: known fits are only sampled")
        return ExitCode.OK
    ended = {RunState.stopped: "stopped, submit again to resume; ", RunState.too_many_failures: "too many failures; "}
    imported = f", {snapshot.imported} of them from an earlier plan" if snapshot.imported else ""
    say(f"{summary(snapshot, None)}{imported}; {ended.get(snapshot.state, '')}results in {output}")
    if as_json:
        print_json(status(open_output(output)).to_json())
    return of_run(snapshot.state, snapshot.failed)


def run_in_cluster(request: JobRequest, address: str, env: list[str], follow: bool) -> int:
    """Has a driver in the cluster run the job; the exit code is read from the output store."""
    from pipelines.driver.ray_job import EndedEarlyError, RayJob, end_of_run
    from pipelines.operations.status import note_submitted
    from pipelines.store.store import Store

    if missing := [name for name in env if name not in os.environ]:
        raise typer.BadParameter(f"not set here: {', '.join(missing)}", param_hint="--env")
    place, job = absolute_path(request.spec.output), RayJob(address)
    job_id = job.submit(request, {name: os.environ[name] for name in env})
    say(f"submitted {job_id} to {address}; follow its progress with: diffcolor-batch status {place}")
    try:
        note_submitted(Store(place).with_timeout(), request.spec.run, job_id)
    except Exception as error:  # this machine need not reach the store; the cluster does
        say(f"warning: the output cannot be written from here ({error}); `status` knows the job once it has begun")
    if not follow:
        return ExitCode.OK
    try:
        with suppress(RuntimeError):  # the log stream broke: the store has the rest of the story
            for lines in job.follow():
                console.print(lines, end="", highlight=False, markup=False)
        return of_run(*end_of_run(Store(place), request.spec.run, job))
    except KeyboardInterrupt:
        say(f"no longer following; the job continues in the cluster as {job_id}")
        return ExitCode.INTERRUPTED
    except EndedEarlyError as error:
        if error.code in set(ExitCode) - {ExitCode.UNEXPECTED, ExitCode.INTERRUPTED}:  # it was refused, or attached
            return error.code
        raise


def _attach(output: str, as_json: bool) -> ExitCode:
    """Follows the run that holds the output; its exit code."""
    from pipelines.commands.console import status_line
    from pipelines.ledger.layout import JOB_KEY
    from pipelines.operations.status import status
    from pipelines.store.lease import read_lease
    from pipelines.store.store import Store

    with reported():
        starting = Store(output).with_timeout()
        while not starting.exists(JOB_KEY) and (lease := read_lease(starting)) and lease.is_alive:
            time.sleep(2.0)
    store, shown = open_output(output), ""
    with reported():
        found = status(store)
        say(f"attached to run {found.run} on {found.host}")
        while found.state is RunState.running:
            if (line := status_line(found)) != shown:
                say(line)
                shown = line
            time.sleep(5.0)
            found = status(store)
    say(status_line(found))
    if as_json:
        print_json(found.to_json())
    return of_run(found.state, found.failed)
