"""Arrays too large for memory, in unnamed files (a killed process leaves nothing behind), and sha256 of files."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from diffcolor.upsample import release_pages

IN_MEMORY = 32 << 20  # bytes
_CHUNK = 8 << 20


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """An array to be filled: in memory while it is small, else mapped from an unnamed file in the temporary folder.

    Raises:
        OSError: ENOSPC, there is no room for it.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # closed here, kept by the mapping
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and would be a crash at the first write
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "w+", shape=shape)


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """A file from its start, some MB at a time."""
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk


def sha256_of_file(file: BinaryIO) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    for chunk in chunks(file):
        digest.update(chunk)
    return digest.hexdigest()


def strips(height: int, width: int, pixels: int = 1 << 17) -> Iterator[tuple[int, int]]:
    """Ranges of rows [first, last) of about `pixels` pixels each."""
    step = max(1, pixels // width)
    for first in range(0, height, step):
        yield first, min(first + step, height)


def sha256_of_pixels(array: NDArray) -> str:
    """Hex sha256 of an array's values in C order, little-endian, whatever its size."""
    digest = hashlib.sha256()
    for first, last in strips(*array.shape[:2]):
        digest.update(np.ascontiguousarray(array[first:last], array.dtype.newbyteorder("<")).data)
    release_pages(array)
    return digest.hexdigest()
