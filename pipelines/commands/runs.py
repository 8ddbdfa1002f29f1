"""`status`, `list`, `logs`, `stop`, `gc`: they need the output store alone, no cluster."""

import time
from typing import Annotated

import typer

from pipelines.commands.exit_codes import ExitCode
from pipelines.commands.terminal import Json, Output, open_output, print_json, reported, say
from pipelines.progress import RunState

app = typer.Typer()


@app.command()
def status(
    output: Output,
    hours: Annotated[
        bool, typer.Option("--hours", help="Also read all results: worker hours, and what of them went into failures.")
    ] = False,
    price: Annotated[float | None, typer.Option(min=0, help="With --hours: price per worker hour.")] = None,
    by_group: Annotated[bool, typer.Option("--by-group", help="With --hours: for each group_id as well.")] = False,
    as_json: Json = False,
) -> None:
    """Show a job's progress, read from its output folder."""
    from pipelines.commands.console import hours_line, status_line, worker_line
    from pipelines.operations.hours import hours_by_group, total
    from pipelines.operations.status import starting
    from pipelines.operations.status import status as status_of
    from pipelines.store.store import Store

    with reported():
        begun = starting(Store(output).with_timeout())
    if begun:
        where = f"last seen on {begun['host']}" if begun["host"] else "handed to a cluster"
        if as_json:
            print_json(begun)
        else:
            typer.echo(f"starting: run {begun['run']}, {where} {begun['seconds']:.0f} s ago, has no plan yet")
        return
    store = open_output(output)
    with reported():
        found = status_of(store)
        groups = hours_by_group(store) if hours else {}
    spent = total(groups).to_json(price)
    if as_json:
        listed = {name: one.to_json(price) for name, one in groups.items()} if by_group else None
        more = {"hours": {**spent, **({"groups": listed} if by_group else {})}} if hours else {}
        print_json({**found.to_json(), **more})
        return
    typer.echo(status_line(found))
    if hours:
        typer.echo(hours_line("all rows", spent))
        for name, one in groups.items() if by_group else ():
            typer.echo(hours_line(name or "without a group", one.to_json(price)))
    for worker in found.workers:
        typer.echo(f"  {worker_line(worker)}")
    for row in found.errors:
        typer.echo(f"  failed: {row.id}: {row.kind}: {row.message}")


@app.command("list")
def list_outputs(
    root: Annotated[str, typer.Argument(help="Folder or URI that holds outputs.")], as_json: Json = False
) -> None:
    """List the outputs under a folder or URI, with progress."""
    from pipelines.commands.console import status_line
    from pipelines.errors import DamagedFileError
    from pipelines.operations.status import outputs
    from pipelines.operations.status import status as status_of
    from pipelines.store.store import Store

    found, bad = [], []
    with reported():
        for uri in outputs(Store(root).with_timeout()):
            try:
                found.append(status_of(Store(uri).with_timeout()))
            except DamagedFileError as error:  # the others are listed all the same
                bad.append(str(error))
    if as_json:
        print_json([job.to_json() for job in found])
    else:
        for job in found:
            typer.echo(f"{job.output}\n  {status_line(job)}")
    for message in bad:
        say(message)
    if not found and not bad:
        say(f"no outputs of diffcolor-batch submit at {root}")
    if bad:
        raise typer.Exit(ExitCode.UNAVAILABLE)


@app.command()
def logs(
    output: Output,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the run ends.")] = False,
    run: Annotated[str | None, typer.Option(help="Id of the run. Default: the latest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout.")] = False,
) -> None:
    """Show the events of a run, read from its output folder."""
    import json

    from pipelines.commands.console import event_line
    from pipelines.ledger.ledger import Ledger
    from pipelines.store.events import read_events
    from pipelines.store.lease import read_lease

    store = open_output(output)
    seen: set[str] = set()
    with reported():
        run = run or Ledger(store).read_job().run
        while True:
            lease = read_lease(store) if follow else None
            goes_on = lease is not None and lease.holder.run == run and lease.is_alive
            for event in read_events(store, run, seen):
                typer.echo(json.dumps(event) if as_json else event_line(event))
            if not goes_on:
                return
            time.sleep(2.0)


@app.command()
def stop(
    output: Output,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the run's end.")] = 120.0,
    as_json: Json = False,
) -> None:
    """Stop the run that holds an output: images are finished or checkpointed. Submit again to resume."""
    from pipelines.commands.console import status_line
    from pipelines.operations.status import request_stop
    from pipelines.operations.status import status as status_of

    store = open_output(output)
    with reported():
        run = request_stop(store)
        if run is None:
            say("no run holds this output")
        else:
            say(f"asked run {run} to stop")
        deadline = time.monotonic() + wait
        while (found := status_of(store)).state is RunState.running and time.monotonic() < deadline:
            time.sleep(1.0)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(status_line(found))
    raise typer.Exit(ExitCode.IN_USE if found.state is RunState.running else ExitCode.OK)


@app.command()
def gc(
    output: Output,
    grace: Annotated[float, typer.Option(min=0, help="Keep files newer than this many hours.")] = 24.0,
    log_days: Annotated[float, typer.Option(min=0, help="Keep the events of runs for this many days.")] = 30.0,
) -> None:
    """Delete files that no result refers to, left by interrupted or concurrent runs."""
    from pipelines.operations.gc import collect
    from pipelines.store.lease import acquire

    store = open_output(output)
    with reported():
        lease = acquire(store, "gc", {})
        try:
            count = collect(store, grace, log_days, lease.lost.is_set)
        finally:
            lease.release(**lease.previous)
    typer.echo(f"{count} objects removed")
