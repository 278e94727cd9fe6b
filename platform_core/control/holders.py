"""Names the process that holds a lease, and says whether such a process is gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_ENDED = ("Z", "X")


@dataclass(frozen=True, kw_only=True)
class Holder:
    """One process, told apart from every other that ever had its number.

    Args:
        host: name of the machine or container.
        boot: the machine's current run and the process namespace; empty where the system does not tell.
        pid: process number.
        started: when the process began, in the system's own count; empty where the system does not tell.
    """

    host: str
    boot: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_gone(self) -> bool:
        """Whether the process has surely ended: it ran here, in this run of the machine, and is no longer.

        False for a process elsewhere, of which nothing can be known.
        """
        if not self.is_here():
            return False
        found = _stat(self.pid)
        if found is None:
            return not _answers(self.pid)
        return found[0] in _ENDED or found[1] != self.started

    def is_here(self) -> bool:
        """Whether its process number means a process of this machine, in this run of it."""
        own = this_process()
        return bool(self.boot) and (self.host, self.boot) == (own.host, own.boot)


def is_running(pid: int) -> bool:
    """Whether there is a process of that number here, and it has not ended."""
    found = _stat(pid)
    return _answers(pid) if found is None else found[0] not in _ENDED


def this_process() -> Holder:
    """The process that asks."""
    pid = os.getpid()
    found = _stat(pid)
    return Holder(host=socket.gethostname(), boot=_boot(), pid=pid, started=found[1] if found else "")


def _boot() -> str:
    # Containers of one machine share its boot id, and may share a host name; their process numbers mean different
    # processes, which only the namespace tells.
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _answers(pid: int) -> bool:
    """Whether there is such a process, also where the processes of others are hidden."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _stat(pid: int) -> tuple[str, str] | None:
    """State and start time of a process; None where there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The program's name stands in brackets and may hold anything, brackets too.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
