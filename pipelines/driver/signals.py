"""Ctrl-C and SIGTERM: the first stops the run in good order, the second leaves at once."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Signalled:
    """The signal that came, if one did, and when; "" and infinity before."""

    name: str = ""
    at: float = math.inf


@contextmanager
def first_signal(signalled: Signalled) -> Iterator[None]:
    """Notes the first signal; a second one raises KeyboardInterrupt. To be entered after `ray.init`, which installs a
    SIGTERM handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, _frame: Any) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, second)
        # No more than this: the main thread may be anywhere.
        signalled.at, signalled.name = time.monotonic(), signal.Signals(number).name

    def second(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, first) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
