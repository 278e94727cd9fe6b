"""The private folder for what queries cannot keep in memory; what killed processes left is removed.

A query spills rows of the lake, in which personal data is masked already. The folder is still for its owner alone.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

PREFIX = "edp-spill-"
_LOCK = "in-use"
_UNLOCKED_SECONDS = 3600
"""How old a folder without a lock must be to count as left behind: its process may be about to take it."""


_MAKING = threading.Lock()
_MADE: dict[tuple[int, Path], Path] = {}


def spill_folder(parent: Path | None = None) -> Path:
    """The folder of this process below ``parent``, with mode 0700; it is removed when the process ends.

    A lock on a file in it tells other processes that it is in use, from another container too; the operating system
    lets go of it when the process dies, however it dies. A forked child gets a folder of its own.

    Args:
        parent: folder that takes it, made with mode 0700 where it is missing; None: the system's folder for temporary
            files.
    """
    above = Path(tempfile.gettempdir()) if parent is None else parent
    with _MAKING:
        if (os.getpid(), above) not in _MADE:
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_left_behind(above)
            _MADE[os.getpid(), above] = _made(above)
        return _MADE[os.getpid(), above]


def _made(above: Path) -> Path:
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    atexit.register(_remove, path, os.getpid())
    return path


def remove_left_behind(parent: Path) -> int:
    """Remove spill folders of this user whose process is gone; returns how many there were."""
    removed = 0
    for folder in parent.glob(f"{PREFIX}*"):
        if not folder.is_symlink() and folder.is_dir() and _is_left_behind(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _is_left_behind(folder: Path) -> bool:
    try:
        about = folder.stat()
        if about.st_uid != os.getuid():
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return folder.exists() and time.time() - about.st_mtime > _UNLOCKED_SECONDS
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _remove(path: Path, owner: int) -> None:
    # A forked child runs the same, and must not take the folder away from its parent.
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
