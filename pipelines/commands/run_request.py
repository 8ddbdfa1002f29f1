"""`python -m pipelines.commands.run_request FILE`: what `submit --address` has the cluster run as the job's driver."""

import json
import sys
from pathlib import Path

import typer

from pipelines.commands.running import run_here
from pipelines.job import JobRequest


def main(file: Path) -> int:
    """Runs the request in a JSON file; the exit code."""
    try:
        return run_here(JobRequest.from_json(json.loads(file.read_text())))
    except typer.Exit as stopped:
        return stopped.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
