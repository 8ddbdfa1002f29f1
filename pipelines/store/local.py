"""Files on a local disk, written whole or not at all."""

import errno
import os
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write_temporary(target: Path, content: bytes | BinaryIO) -> Path:
    """A whole, synced file in the target's folder under a hidden name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content.seek(0)
                shutil.copyfileobj(content, file, 8 << 20)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    """A new name is on disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(target: Path, content: bytes | BinaryIO) -> None:
    """Makes a file hold `content`, whatever it held before."""
    temporary = write_temporary(target, content)
    try:
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def create_file(target: Path, content: bytes) -> bool:
    """Makes a new file; False where it exists already. Of all that try at once, one wins."""
    temporary = write_temporary(target, content)
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without hard links a reader may meet the record half written, for a moment.
        try:
            with target.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return True
