"""Keeps connections to PostgreSQL for the next load: to connect costs many times the reading of a small table.

While it connects the driver asks for all types of the server: of a load of a thousand rows that took two thirds of the
time.
"""

from __future__ import annotations

import atexit
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection as DriverConnection

IDLE_SECONDS = 3.0
"""A connection that nobody asked for this long is closed: it counts against the server's limit."""

LIFE_SECONDS = 60.0
"""A connection is used for this long: it does not learn of the server's new types or of changed rights."""


@dataclass
class Opened:
    """An open connection.

    Args:
        key: tells connections of one server, database and user from others; holds no password in clear text.
        mark: by which its socket is found.
        born: when it was made, by the monotonic clock.
    """

    key: bytes
    connection: DriverConnection
    mark: int
    born: float
    idle_since: float = 0.0

    def close(self) -> None:
        """Close it; one that is broken already has nothing to say to that."""
        import adbc_driver_manager

        with suppress(adbc_driver_manager.Error, OSError):
            self.connection.close()


class IdleConnections:
    """Connections that no load uses at the moment."""

    def __init__(self) -> None:
        self._idle: list[Opened] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._secret = secrets.token_bytes(32)

    def key_of(self, text: str) -> bytes:
        """What stands for a connection's parameters, of which the password must not lie about in memory."""
        return hmac.digest(self._secret, text.encode(), "sha256")

    def take(self, key: bytes, *, works: Callable[[Opened], bool]) -> Opened | None:
        """The connection that was used last; None where none works."""
        while (opened := self._popped(key)) is not None:
            if works(opened):
                return opened
            opened.close()
        return None

    def give(self, opened: Opened) -> None:
        """Keep a connection; it is in no transaction, or in one that has not read yet."""
        opened.idle_since = time.monotonic()
        with self._changed:
            self._idle.append(opened)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="edp-idle-connections", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Close all of them."""
        with self._changed:
            idle, self._idle = self._idle, []
            self._changed.notify()
        for opened in idle:
            opened.close()

    def _popped(self, key: bytes) -> Opened | None:
        with self._changed:
            for at in reversed(range(len(self._idle))):
                if self._idle[at].key == key:
                    return self._idle.pop(at)
        return None

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._idle:
                    self._thread = None
                    return
                now = time.monotonic()
                late = [opened for opened in self._idle if _ends(opened) <= now]
                if not late:
                    self._changed.wait(min(_ends(opened) for opened in self._idle) - now)
                    continue
                self._idle = [opened for opened in self._idle if opened not in late]
            for opened in late:
                opened.close()


def _ends(opened: Opened) -> float:
    return min(opened.idle_since + IDLE_SECONDS, opened.born + LIFE_SECONDS)


_of_process: dict[int, IdleConnections] = {}
"""By process: a connection that a fork copied belongs to the parent."""


def idle_connections() -> IdleConnections:
    """Those of this process, closed when it ends."""
    process = os.getpid()
    if process not in _of_process:
        _of_process[process] = IdleConnections()
        atexit.register(_close, process)
    return _of_process[process]


def _close(process: int) -> None:
    if process == os.getpid():
        _of_process[process].close()
