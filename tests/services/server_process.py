"""What starting a real server for tests takes: a place for its data, a port, a user other than root, a sure end."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOM_BYTES = 4 * 1024**3


def data_parent() -> Path:
    """Where the data lies: in memory if there is room, for deleting a hundred databases from a disk takes a minute."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= ROOM_BYTES
    return memory if roomy else Path("/tmp")


def unprivileged(*folders: Path) -> dict[str, Any]:
    """How child processes change user, where we are root: database servers refuse to run as that."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    for folder in folders:
        os.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}


def end_with_parent(by: signal.Signals) -> Callable[[], None] | None:
    """On Linux, have the kernel end the server when the tests are killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    death_signal = 1
    return lambda: prctl(death_signal, by)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
