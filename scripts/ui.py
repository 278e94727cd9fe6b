"""Start the Dagster UI and its daemon over this project, once for each state folder.

Two daemons over one run storage would both start what is due, so a second one is refused.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

HOST = "127.0.0.1"


def main(port: str) -> str | None:
    """Become `dagster dev`; returns only where that cannot be, with the reason."""
    fault = _port_fault(port) or _lock_fault(f"http://{HOST}:{port}")
    if fault is None:
        _become_ui(port)
    return fault


def _become_ui(port: str) -> NoReturn:
    sys.stdout.write(f"Dagster UI: http://{HOST}:{port}, ready in some seconds (Ctrl-C ends it)\n")
    sys.stdout.flush()
    # It recommends another command line tool, which this project does not install.
    os.environ["PYTHONWARNINGS"] = "ignore:Function `dev_command` is superseded"
    program = Path(sys.executable).with_name("dagster")
    options = ("--workspace", "workspace.yaml", "--host", HOST, "--port", port, "--log-level", "warning")
    os.execv(program, [str(program), "dev", *options])  # noqa: S606  # no shell is wanted


def _lock_fault(address: str) -> str | None:
    """Hold the lock of this state folder for as long as the process that this one becomes."""
    lock = os.open(Path(os.environ["EDP_STATE"]) / "ui.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return f"the UI is running already: {os.read(lock, 100).decode() or 'it is just starting'}"
    os.ftruncate(lock, 0)
    os.write(lock, address.encode())
    os.set_inheritable(lock, True)
    return None


def _port_fault(port: str) -> str | None:
    if not port.isdigit() or not 0 < int(port) < 65536:
        return f"PORT={port} is not a port number"
    with socket.socket() as probe:
        # As the server itself does; a port that someone listens on is refused nonetheless.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(port)))
        except OSError as error:
            return f"port {port} cannot be used: {error.strerror}\n  choose another one: make ui PORT={int(port) + 1}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
