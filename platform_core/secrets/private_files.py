"""Reads and replaces small files that only their owner may open, so that a crash leaves the old one or the new one."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AGAIN_SECONDS = 0.02
_OTHERS = 0o077


def read_file(file: Path, *, largest: int, linked: bool = False) -> bytes | None:
    """What a regular file holds; None where there is none.

    Args:
        largest: bytes; a larger file is refused.
        linked: whether it may be a symbolic link, as mounted secrets are.

    Raises:
        OSError: it cannot be read, is no regular file, or too large.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if linked else os.O_NOFOLLOW)
    try:
        descriptor = os.open(file, flags)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(file))
        data = stream.read(largest + 1)
    if len(data) > largest:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(file))
    return data


def open_to_others(file: Path) -> int | None:
    """The mode of a file that others than its owner may open; None where they may not."""
    mode = stat.S_IMODE(file.stat().st_mode)
    return mode if mode & _OTHERS else None


def replace_file(file: Path, data: bytes) -> None:
    """Put a file of mode 0600 in the place of another; when this returns it is on the disk.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    with _written(file, data) as new:
        new.rename(file)
        _flush(file.parent)


def create_file(file: Path, data: bytes) -> bool:
    """Make a file of mode 0600 where there is none; returns whether it was made.

    Raises:
        OSError: it cannot be written.
    """
    with _written(file, data) as new:
        try:
            file.hardlink_to(new)
        except FileExistsError:
            return False
        _flush(file.parent)
        return True


def remove_leftovers(file: Path) -> None:
    """Remove what killed writers of a file left beside it; call it under the lock that writers hold.

    Raises:
        OSError: one cannot be removed.
    """
    for left in file.parent.glob(f".{file.name}.*.tmp"):
        left.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, *, patience: float) -> Iterator[None]:
    """Hold a lock among all threads and processes of this machine; it ends with its holder.

    Args:
        file: the lock's file; made where it is missing, and never removed.
        patience: seconds to wait for another holder.

    Raises:
        TimeoutError: another holds it for longer.
        OSError: the file cannot be made.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + patience
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(_AGAIN_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _written(beside: Path, data: bytes) -> Iterator[Path]:
    """A new file with the data, on the disk already, that is gone after the block unless it was moved."""
    beside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = beside.with_name(f".{beside.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield new
    finally:
        new.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
