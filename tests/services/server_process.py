"""What starting a real server for tests takes: a place for its data, a port, a user other than root, a sure end."""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOM_BYTES = 4 * 1024**3
PORTS = range(20_000, 32_000)
WORKERS = 16
ATTEMPTS = 100
_TURNS = itertools.count(random.randrange(PORTS.stop))


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
    """A port of loopback that nobody listens on, and that no other worker of this test run is given.

    It lies below the ports that the kernel hands out by itself, so that nothing takes it before the server does,
    and is not given twice in a row.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(PORTS.start + worker % WORKERS, PORTS.stop, WORKERS)
    for _ in range(ATTEMPTS):
        port = ports[next(_TURNS) % len(ports)]
        if _binds(port):
            return port
    raise RuntimeError(f"no free port among {ATTEMPTS} between {PORTS.start} and {PORTS.stop}")


def _binds(port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
