"""Ends calls of a driver that wait for too long, from one thread for the whole process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AGAIN_SECONDS = 1.0
_IDLE_SECONDS = 5.0


@contextmanager
def limited(seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """Have another thread call ``give_up`` where the block takes longer, again and again: a library may just be
    between two connections. At the end of the block no such call is under way.

    A thread of its own for each call would cost more than most calls of a small table's load.
    """
    limit = _Limit(time.monotonic() + seconds, give_up)
    watch = _watches.setdefault(os.getpid(), _Watch())
    watch.add(limit)
    try:
        yield
    finally:
        watch.remove(limit)
        limit.end()


class _Limit:
    """One block under way."""

    def __init__(self, deadline: float, give_up: Callable[[], None]) -> None:
        self.deadline = deadline
        self._give_up = give_up
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def pass_deadline(self) -> None:
        """Give up, in a thread of its own: to give up may itself wait for the server."""
        self.deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="edp-give-up", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for a call that is under way; there is no other from now on."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self._give_up()
            self._over.wait(_AGAIN_SECONDS)


class _Watch:
    """The blocks under way in this process, and the thread that looks at them."""

    def __init__(self) -> None:
        self._limits: set[_Limit] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def add(self, limit: _Limit) -> None:
        with self._changed:
            self._limits.add(limit)
            if self._thread is None:
                self._wakes_at = limit.deadline
                self._thread = threading.Thread(target=self._run, name="edp-limit", daemon=True)
                self._thread.start()
            elif limit.deadline < self._wakes_at:
                self._changed.notify()

    def remove(self, limit: _Limit) -> None:
        with self._changed:
            self._limits.discard(limit)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                for limit in [limit for limit in self._limits if limit.deadline <= now]:
                    limit.pass_deadline()
                idle = not self._limits
                self._wakes_at = min((limit.deadline for limit in self._limits), default=now + _IDLE_SECONDS)
                patience = min(self._wakes_at - now, threading.TIMEOUT_MAX)
                if not self._changed.wait(patience) and idle and not self._limits:
                    self._thread = None
                    return


_watches: dict[int, _Watch] = {}
"""By process: threads do not survive a fork."""
