"""Which faults of a store are transient, and how long to keep retrying."""

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
LONGEST_ASKED = 300.0  # seconds
FULL = {errno.ENOSPC, errno.EDQUOT}
OnRetry = Callable[[BaseException, float], None]  # the fault, and the seconds until the next try


def ignore_retry(_error: BaseException, _delay: float) -> None:
    """Reports nothing."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Exponential backoff with full jitter; seconds. Gives up after `total`."""

    total: float = 600.0
    first: float = 0.5
    longest: float = 30.0

    def delays(self) -> Iterator[float]:
        """Seconds to sleep before each further attempt."""
        deadline, bound = time.monotonic() + self.total, self.first
        while (left := deadline - time.monotonic()) > 0:
            yield min(left, random.uniform(0, bound))
            bound = min(self.longest, 2 * bound)


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def response_of(error: BaseException) -> dict[str, Any]:
    """The S3 response behind an exception of s3fs; empty if there is none."""
    responses = (getattr(link, "response", None) for link in _chain(error))
    return next((response for response in responses if isinstance(response, dict)), {})


def _passes(status: int) -> bool:
    return (status >= 500 and status != 501) or status in _STATUSES  # 501: not implemented, ever


def is_transient(error: BaseException) -> bool:
    """Throttling, server faults, timeouts, lost connections: yes. Refusals, missing objects, full disks: no."""
    response = response_of(error)
    if response:
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _passes(status) or response.get("Error", {}).get("Code") in _CODES
    for link in _chain(error):
        if isinstance(status := getattr(link, "status", None), int):  # an answer over plain HTTP
            return _passes(status)
        if isinstance(link, (FileNotFoundError, PermissionError, FileExistsError)):
            return False
        if isinstance(link, (TimeoutError, ConnectionError)) or type(link).__module__.startswith("aiohttp"):
            return True
        if isinstance(link, OSError) and link.errno in _ERRNOS:
            return True
        if type(link).__module__.startswith("botocore") and _LOST_CONNECTION & {
            kind.__name__ for kind in type(link).__mro__
        }:
            return True
    return False


def asked_delay(error: BaseException) -> float:
    """The seconds that a server's Retry-After asks for, at most `LONGEST_ASKED`; 0 if it does not say so in seconds."""
    headers = response_of(error).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    for link in _chain(error):
        headers = headers or getattr(link, "headers", None) or {}
    text = str({str(name).lower(): value for name, value in dict(headers).items()}.get("retry-after", ""))
    return min(float(text), LONGEST_ASKED) if text.isdecimal() else 0.0


def retrying(
    call: Callable[[], Value],
    patience: Patience,
    on_retry: OnRetry = ignore_retry,
) -> Value:
    """The value of `call`, retried while its errors are transient and patience lasts; then raises the last error."""
    delays = patience.delays()
    while True:
        try:
            return call()
        except Exception as error:
            delay = next(delays, None) if is_transient(error) else None
            if delay is None:
                raise
            delay = max(delay, asked_delay(error))
            on_retry(error, delay)
            time.sleep(delay)
