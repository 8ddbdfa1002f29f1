"""A deadline for reading a file that may have been made to be read for ever."""

import ctypes
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import BinaryIO, Concatenate, ParamSpec, TypeVar

from pipelines.images.errors import InputImageError

SECONDS = 120.0
BYTES_PER_SECOND = 1e6  # more for large files: slower than any decoder on any machine

_inside = threading.local()
Given = ParamSpec("Given")
Value = TypeVar("Value")


class _TooSlowError(BaseException):
    """Raised in the midst of whatever the thread is doing; no library's `except Exception` is to swallow it."""


def within_deadline(
    read: Callable[Concatenate[BinaryIO, Given], Value],
) -> Callable[Concatenate[BinaryIO, Given], Value]:
    """Decorator of a function that reads a file: it raises InputImageError `too_slow` if it does not come to an end."""

    @wraps(read)
    def limited(file: BinaryIO, *given: Given.args, **named: Given.kwargs) -> Value:
        if getattr(_inside, "deadline", False):  # of a function that calls this one
            return read(file, *given, **named)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        seconds = SECONDS + size / BYTES_PER_SECOND
        try:
            with _interrupted_after(seconds):
                _inside.deadline = True
                return read(file, *given, **named)
        except _TooSlowError:
            message = f"it was not read to its end within {seconds:.0f} s: a damaged or hostile file; convert it anew"
            raise InputImageError("too_slow", message) from None
        finally:
            _inside.deadline = False

    return limited


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """Raises _TooSlowError in this thread, as soon as it runs Python code, once the time is over.

    A library may loop for ever over what a file claims, in Python or by calling its codecs again and again; signals,
    the usual way, reach the main thread only, and workers read in others.
    """
    thread, lock, over = ctypes.c_ulong(threading.get_ident()), threading.Lock(), False

    def interrupt() -> None:
        with lock:
            if not over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_TooSlowError))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            over = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # one that has not arrived yet
        timer.cancel()
