"""`status`, `list`, `logs`, `stop`, `gc`: from the output store alone."""

import time
from typing import Annotated

import typer

from pipelines.commands.terminal import IN_USE, OK, Json, Output, open_output, print_json, reported, say

app = typer.Typer()


@app.command()
def status(output: Output, as_json: Json = False) -> None:
    """How far a job is, from its output alone."""
    from pipelines.commands.console import status_line, worker_line
    from pipelines.operations.status import status as status_of

    store = open_output(output)
    with reported():
        document = status_of(store)
    if as_json:
        print_json(document)
        return
    typer.echo(status_line(document))
    for worker in document["workers"]:
        typer.echo(f"  {worker_line(worker)}")
    for error in document["errors"]:
        typer.echo(f"  failed: {error['id']}: {error['kind']}: {error['message']}")


@app.command("list")
def list_outputs(
    root: Annotated[str, typer.Argument(help="Folder or URI that holds outputs.")], as_json: Json = False
) -> None:
    """The outputs at a place, and how far each is."""
    from pipelines.commands.console import status_line
    from pipelines.operations.status import outputs
    from pipelines.operations.status import status as status_of
    from pipelines.store.store import Store

    with reported():
        documents = [status_of(Store(uri).hurried()) for uri in outputs(Store(root).hurried())]
    if as_json:
        print_json(documents)
        return
    for document in documents:
        typer.echo(f"{document['output']}\n  {status_line(document)}")
    if not documents:
        say(f"no outputs of diffcolor-batch submit at {root}")


@app.command()
def logs(
    output: Output,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run ends.")] = False,
    run: Annotated[str | None, typer.Option(help="A run's id. Default: the latest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout.")] = False,
) -> None:
    """What happened in a run, from its output alone."""
    import json

    from pipelines.commands.console import event_line
    from pipelines.ledger.ledger import Ledger
    from pipelines.store.events import read_events
    from pipelines.store.lease import look

    store, seen = open_output(output), set()
    with reported():
        run = run or Ledger(store).read_job()["run"]
        while True:
            held = look(store) if follow else None
            goes_on = held is not None and held.holder.run == run and held.is_alive
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
    """End the run that holds an output, in good order: images end or are checkpointed. Submit again to go on."""
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
        while (document := status_of(store))["state"] == "running" and time.monotonic() < deadline:
            time.sleep(1.0)
    if as_json:
        print_json(document)
    else:
        typer.echo(status_line(document))
    raise typer.Exit(IN_USE if document["state"] == "running" else OK)


@app.command()
def gc(
    output: Output,
    grace: Annotated[float, typer.Option(min=0, help="Hours: what is younger stays.")] = 24.0,
    log_days: Annotated[float, typer.Option(min=0, help="Days that the events of a run are kept.")] = 30.0,
) -> None:
    """Remove what no result names: leavings of killed writers, lost races and closed shards."""
    from pipelines.operations.gc import collect
    from pipelines.store.lease import take

    store = open_output(output)
    with reported():
        lease = take(store, "gc", dict)
        try:
            count = collect(store, grace, log_days, lease.lost.is_set)
        finally:
            lease.release(**lease.previous)
    typer.echo(f"{count} objects removed")
