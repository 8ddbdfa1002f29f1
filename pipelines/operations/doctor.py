"""Checks whether this machine and an output store are fit for a job. Each finding says what to do."""

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from manifests.locations import redacted
from pipelines.errors import StoreError
from pipelines.store.probe import probe_preconditions
from pipelines.store.retry import Patience
from pipelines.store.store import Store
from pipelines.version import libraries

GOOD, DOUBTFUL, BAD = "ok", "warn", "fail"
_PAGE_BYTES = 4 << 30  # of temporary space for a few large pages at once
_SKEW_SECONDS = 30.0


@dataclass(frozen=True)
class Finding:
    """One check: `state` is "ok", "warn" or "fail"."""

    state: str
    what: str
    found: str


def examine(output: str | None, base_model: str, judge: str) -> Iterator[Finding]:
    """Checks the machine, then the models, then the output store."""
    yield Finding(GOOD, "python", f"{platform.python_version()} on {sys.platform}, {os.cpu_count()} CPUs")
    known = {name: number for name, number in {**libraries(), "ray": version("ray")}.items() if number}
    yield Finding(GOOD, "libraries", ", ".join(f"{name} {number}" for name, number in known.items()))
    yield _gpu()
    free = shutil.disk_usage(tempfile.gettempdir()).free
    state = GOOD if free > _PAGE_BYTES else DOUBTFUL
    remedy = "" if state == GOOD else "; large pages need it: point TMPDIR to a larger disk"
    yield Finding(state, "temporary space", f"{free / 1e9:.1f} GB in {tempfile.gettempdir()}{remedy}")
    yield from _models(base_model, judge)
    if output:
        yield from _store(output)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        why = "torch was built without CUDA" if torch.version.cuda is None else "no driver or no device"
        return Finding(DOUBTFUL, "gpu", f"none ({why}): the embedded model runs on the CPU, larger ones are very slow")
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    described = ", ".join(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus)
    return Finding(GOOD, "gpu", f"{described}; CUDA {torch.version.cuda}")


def _models(base_model: str, judge: str) -> Iterator[Finding]:
    from diffcolor.base_model import load_base_model
    from diffcolor.coarse import load_coarse
    from diffcolor.config import NO_BASE
    from diffcolor.errors import DiffColorError
    from diffcolor.judge import load_judge

    wanted: list[tuple[str, str, Callable[..., Any]]] = [("judge", judge, load_judge)]
    wanted.append(("coarse colorizer", "embedded", lambda _, device: load_coarse(device)))
    if base_model != NO_BASE:
        wanted.insert(0, ("base model", base_model, load_base_model))
    for what, name, load in wanted:
        started = time.monotonic()
        try:
            loaded = load(name, "cpu")
        except (DiffColorError, OSError) as error:
            yield Finding(BAD, what, str(error))
        else:
            seconds = time.monotonic() - started
            yield Finding(GOOD, what, f"{name}, digest {loaded.digest[:16]}, loaded in {seconds:.1f} s")


def _store(output: str) -> Iterator[Finding]:
    place = redacted(output)
    try:
        store = Store(output, patience=Patience(total=10.0))
        key = f"_engine/probe/doctor-{os.getpid()}"
        store.write(key, b"a")
        read = store.read(key)
        clock = store.clock()
        store.delete(key)
    except (StoreError, OSError, ValueError, ImportError) as error:
        yield Finding(BAD, "output", f"{place} cannot be written and read: {error}")
        return
    yield Finding(GOOD if read == b"a" else BAD, "output", f"{place} can be written, read and deleted from")
    skew = abs((datetime.now(UTC) - (clock if clock.tzinfo else clock.replace(tzinfo=UTC))).total_seconds())
    remedy = "" if skew < _SKEW_SECONDS else "; set this machine's clock: S3 refuses requests that are 15 minutes off"
    yield Finding(GOOD if skew < _SKEW_SECONDS else DOUBTFUL, "clock", f"{skew:.0f} s from the store's{remedy}")
    if probe_preconditions(output, Patience(total=10.0)):
        yield Finding(GOOD, "preconditions", "conditional writes work: two runs at once cannot harm each other")
    else:
        text = "the store ignores conditional writes: results are safe, but of two runs at once the later result counts"
        yield Finding(DOUBTFUL, "preconditions", text)
