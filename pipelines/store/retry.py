"""Which faults of a store pass by themselves, and how long to wait for that."""

import errno
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")
_STATUSES = {408, 409, 429}  # and all from 500 on; 409 is a conditional write that met another one
_CODES = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError", "ServiceUnavailable"}
_ERRNOS = {
    *(
        errno.EIO,
        getattr(errno, "EREMOTEIO", errno.EIO),
        errno.EAGAIN,
        errno.EBUSY,
        errno.ETIMEDOUT,
        errno.ESTALE,
        errno.EPIPE,
    ),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.ENETUNREACH, errno.EHOSTUNREACH),
}
_LOST_CONNECTION = {"HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseStreamingError"}
FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Exponential backoff with full jitter; seconds. Gives up after `total`."""

    total: float = 600.0
    first: float = 0.5
    longest: float = 30.0

    def delays(self) -> Iterator[float]:
        """How long to sleep before each further try."""
        deadline, bound = time.monotonic() + self.total, self.first
        while (left := deadline - time.monotonic()) > 0:
            yield min(left, random.uniform(0, bound))
            bound = min(self.longest, 2 * bound)


def _chain(error: BaseException) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def response_of(error: BaseException) -> dict[str, Any]:
    """S3's own answer behind an exception of s3fs; empty if there is none."""
    return next((one.response for one in _chain(error) if isinstance(getattr(one, "response", None), dict)), {})


def _passes(status: int) -> bool:
    return (status >= 500 and status != 501) or status in _STATUSES  # 501: it will never know how


def is_transient(error: BaseException) -> bool:
    """Throttling, server faults, timeouts, lost connections: yes. Refusals, missing objects, full disks: no."""
    response = response_of(error)
    if response:
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _passes(status) or response.get("Error", {}).get("Code") in _CODES
    for one in _chain(error):
        if isinstance(status := getattr(one, "status", None), int):  # an answer over plain HTTP
            return _passes(status)
        if isinstance(one, (FileNotFoundError, PermissionError, FileExistsError)):
            return False
        if isinstance(one, (TimeoutError, ConnectionError)) or type(one).__module__.startswith("aiohttp"):
            return True
        if isinstance(one, OSError) and one.errno in _ERRNOS:
            return True
        if type(one).__module__.startswith("botocore") and _LOST_CONNECTION & {
            kind.__name__ for kind in type(one).__mro__
        }:
            return True
    return False


def retrying(
    call: Callable[[], Value],
    patience: Patience,
    on_retry: Callable[[BaseException, float], None] = lambda _error, _delay: None,
) -> Value:
    """The value of `call`, tried again while its errors are transient and patience lasts; then the last error."""
    delays = patience.delays()
    while True:
        try:
            return call()
        except Exception as error:
            delay = next(delays, None) if is_transient(error) else None
            if delay is None:
                raise
            on_retry(error, delay)
            time.sleep(delay)
