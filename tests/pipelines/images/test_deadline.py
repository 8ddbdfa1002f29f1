"""A file that a library would read for ever ends as a refusal, in any thread, and leaves nothing behind."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.images import deadline
from pipelines.images.deadline import within_deadline
from pipelines.images.errors import InputImageError


@within_deadline
def for_ever(file: io.BytesIO) -> None:
    while True:
        file.seek(0)


@within_deadline
def outer(file: io.BytesIO) -> None:
    at_once(file)
    for_ever(file)


@within_deadline
def at_once(file: io.BytesIO, more: int = 0) -> int:
    return len(file.read()) + more


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr(deadline, "SECONDS", 0.2)


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("read", [for_ever, outer])
def test_what_would_not_end_is_refused(read):
    with pytest.raises(InputImageError, match="not read to its end") as refused:
        read(io.BytesIO(b"abc"))
    assert refused.value.kind == "too_slow"
    with ThreadPoolExecutor(2) as threads:
        failed = [threads.submit(read, io.BytesIO(b"abc")) for _ in range(2)]
        assert {type(one.exception()) for one in failed} == {InputImageError}


@pytest.mark.usefixtures("_short")
def test_what_ends_in_time_is_left_alone():
    before = threading.active_count()
    assert [at_once(io.BytesIO(b"abc"), more=k) for k in range(100)] == list(range(3, 103))
    until = time.monotonic() + 0.5
    while time.monotonic() < until:  # an exception that came late would come now
        pass
    assert threading.active_count() <= before + 1
