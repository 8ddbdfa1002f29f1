"""`--on-end`: tells somebody how a run ended."""

import json
import shlex
import subprocess
import urllib.request
from typing import Any

SECONDS = 60.0


def tell(place: str, said: dict[str, Any]) -> str | None:
    """Posts JSON to a URL, or runs a command with the JSON as its input.

    Returns:
        Why that failed, None if it did not. The run has ended either way.
    """
    content = json.dumps(said).encode()
    try:
        if place.startswith(("http://", "https://")):
            request = urllib.request.Request(place, content, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=SECONDS).close()
            return None
        if not (command := shlex.split(place)):
            return "it is empty"
        done = subprocess.run(command, input=content, capture_output=True, timeout=SECONDS)
        if done.returncode:
            return f"exit code {done.returncode}: {done.stderr.decode(errors='replace')[-300:].strip()}"
        return None
    except Exception as error:  # such as what a server answers that speaks no HTTP
        return f"{type(error).__name__}: {error}"
