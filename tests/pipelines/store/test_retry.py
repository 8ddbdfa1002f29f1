"""What is waited out and what is not."""

import errno
import random
import time

import pytest
from aiohttp import ClientPayloadError
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from pipelines.store.retry import Patience, is_transient, retrying


def answered(status: int, code: str, raised: type = OSError, number: int = errno.EIO) -> Exception:
    """What s3fs makes of an answer of S3."""
    error = raised(number, "message")
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error.__cause__ = ClientError(response, "PutObject")
    return error


TRANSIENT = {
    "SlowDown": answered(503, "SlowDown", number=errno.EBUSY),
    "HEAD 503 has no code": answered(503, "503"),
    "InternalError": answered(500, "InternalError", number=121),
    "throttled": answered(429, "TooManyRequests"),
    "conflict of conditional writes": answered(409, "ConditionalRequestConflict"),
    "request timeout": answered(400, "RequestTimeout"),
    "reset": EndpointConnectionError(endpoint_url="http://x"),
    "closed": ConnectionClosedError(endpoint_url="http://x"),
    "read timeout": ReadTimeoutError(endpoint_url="http://x"),
    "cut body": ClientPayloadError(),
    "timeout": TimeoutError(),
    "stale NFS handle": OSError(errno.ESTALE, "stale"),
}
PERMANENT = {
    "denied": answered(403, "AccessDenied", PermissionError),
    "missing": answered(404, "NoSuchKey", FileNotFoundError),
    "precondition": answered(412, "PreconditionFailed", number=errno.EINVAL),
    "no bucket": answered(404, "NoSuchBucket", FileNotFoundError),
    "no credentials": NoCredentialsError(),
    "not implemented": answered(501, "NotImplemented"),
    "full disk": OSError(errno.ENOSPC, "full"),
    "local denied": PermissionError(errno.EACCES, "denied"),
    "a bug": ValueError("x"),
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_passes_by_itself_is_tried_again(name):
    assert is_transient(TRANSIENT[name])
    outcomes, told = [TRANSIENT[name], TRANSIENT[name], "value"], []

    def call():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    patience = Patience(total=30, first=0.001, longest=0.002)
    assert retrying(call, patience, lambda error, delay: told.append(delay)) == "value"
    assert len(told) == 2


@pytest.mark.parametrize("name", PERMANENT)
def test_what_does_not_is_raised_at_once(name):
    assert not is_transient(PERMANENT[name])
    tries = []

    def call():
        tries.append(1)
        raise PERMANENT[name]

    with pytest.raises(type(PERMANENT[name])):
        retrying(call, Patience(total=30))
    assert len(tries) == 1


def test_patience_ends_and_the_last_error_is_what_is_raised():
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        retrying(lambda: (_ for _ in ()).throw(TimeoutError()), Patience(total=0.3, first=0.01, longest=0.05))
    assert 0.2 < time.monotonic() - started < 5


def test_delays_grow_within_full_jitter_up_to_the_longest(monkeypatch):
    bounds = []
    monkeypatch.setattr(random, "uniform", lambda low, high: bounds.append((low, high)) or 0.0)
    delays = Patience(total=60, first=0.5, longest=30).delays()
    for _ in range(9):
        next(delays)
    assert bounds == [(0, bound) for bound in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)]
