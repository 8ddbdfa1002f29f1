"""`diffcolor-batch`: the commands of `pipelines/commands/` under one name."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.curation import app as curation_app
from pipelines.commands.evaluation import app as evaluation_app
from pipelines.commands.exit_codes import HELP, ExitCode
from pipelines.commands.init import app as init_app
from pipelines.commands.manifest import app as manifest_app
from pipelines.commands.planning import app as planning_app
from pipelines.commands.runs import app as runs_app
from pipelines.commands.settings import FILE, PREFIX, described, found_here, read_settings, unknown_variables
from pipelines.commands.submit import app as submit_app

app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": PREFIX},
    help="Colorize archives of gray photographs by text (DiffColor). The scan's luminance is kept exactly.",
    epilog=HELP,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipelines.version import SYSTEM, VERSION

        typer.echo(f"{SYSTEM} {VERSION}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    settings: Annotated[
        Path | None,
        typer.Option(
            help=f"TOML file with options of any command. Default: {FILE} in the current folder, if there is one."
        ),
    ] = None,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print what that file and DIFFCOLOR_* variables set, and exit.")
    ] = False,
    print_version: Annotated[  # not "version": DIFFCOLOR_VERSION may well be set
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    for sentence in unknown_variables(context.command):
        typer.echo(f"warning: {sentence}", err=True)
    if file := settings or found_here():
        try:
            context.default_map = read_settings(context.command, file, is_trusted=settings is not None)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--settings") from error
    if print_settings:
        for line in described(context.command, context.default_map or {}):
            typer.echo(line)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


app.add_typer(init_app)
app.add_typer(submit_app)
app.add_typer(manifest_app, name="manifest")
for group in (runs_app, curation_app, evaluation_app, planning_app):
    app.add_typer(group)


def run() -> None:
    """The command line; what nobody foresaw ends with a sentence, and its traceback in a file."""
    try:
        app()
    except Exception as error:
        from pipelines.commands.unexpected import report

        report(error)
        sys.exit(ExitCode.UNEXPECTED)


if __name__ == "__main__":
    run()
