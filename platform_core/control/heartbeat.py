"""Renews every lease of this process from one thread, which ends when there is none left."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from platform_core.control.database import Database
from platform_core.control.leases import Lease, renew
from platform_core.errors import PlatformError

_LINGER_SECONDS = 5.0
_LONGEST_RETRY_SECONDS = 1.0
_PATIENCE = 0.0


def _never() -> bool:
    return False


@dataclass(eq=False)
class Beat:
    """A lease that is being renewed.

    Args:
        due: when it is renewed next, on the monotonic clock.
        lost: true once the database has refused to renew it.
        missed: true while the database cannot be reached.
        cancelled: true once its holder is asked to stop.
    """

    database: Database
    lease: Lease
    log: logging.Logger
    due: float
    lost: bool = False
    missed: bool = False
    cancelled: Callable[[], bool] = _never

    @property
    def every(self) -> float:
        """Seconds between two renewals: three may fail before the lease is lost."""
        return self.lease.length.total_seconds() / 4


class Heartbeat:
    """The leases of this process.

    A token is known from before its lease is written until after it is given back, so that a lease of this process
    with an unknown token is one that nobody holds any more.
    """

    def __init__(self) -> None:
        self._begin_in_this_process()

    def _begin_in_this_process(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._tokens: set[str] = set()
        self._beats: set[Beat] = set()
        self._thread: threading.Thread | None = None
        self._wakes = 0.0

    def expect(self, token: str) -> None:
        """A lease with this token is about to be asked for."""
        if self._process != os.getpid():
            self._begin_in_this_process()
        with self._changed:
            self._tokens.add(token)

    def knows(self, token: str | None) -> bool:
        """Whether a thread of this process holds, or asks for, the lease with this token."""
        with self._changed:
            return token in self._tokens

    def keep(
        self, database: Database, lease: Lease, *, log: logging.Logger, cancelled: Callable[[], bool] = _never
    ) -> Beat:
        """Renew a lease until :meth:`drop`, or until its holder is asked to stop.

        One that does not stop loses the lease then: somebody else takes the table over, and fences it.
        """
        beat = Beat(database, lease, log, due=0.0, cancelled=cancelled)
        beat.due = time.monotonic() + beat.every
        with self._changed:
            self._beats.add(beat)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
            elif beat.due < self._wakes:
                self._changed.notify()
        return beat

    def drop(self, token: str, beat: Beat | None = None) -> None:
        """Let go of a token, and of its lease."""
        with self._changed:
            self._tokens.discard(token)
            if beat is not None:
                self._beats.discard(beat)

    def _run(self) -> None:
        try:
            while due := self._next():
                for database in {beat.database for beat in due}:
                    self._renew(database, [beat for beat in due if beat.database is database])
        finally:
            # Whatever ended it, the next lease begins it anew.
            with self._changed:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _next(self) -> list[Beat]:
        """Wait for leases that are due; none once there has been no lease for a while, and the thread is to end."""
        idle_until = None
        with self._changed:
            while True:
                now = time.monotonic()
                if due := [beat for beat in self._beats if beat.due <= now]:
                    return due
                if self._beats:
                    idle_until = None
                    self._wakes = min(beat.due for beat in self._beats)
                else:
                    # Loads of small tables follow each other closely: a thread for each would be wasteful.
                    idle_until = idle_until or now + _LINGER_SECONDS
                    self._wakes = idle_until
                    if now >= idle_until:
                        self._thread = None
                        return []
                self._changed.wait(self._wakes - now)

    def _renew(self, database: Database, due: list[Beat]) -> None:
        ending = [beat for beat in due if beat.cancelled()]
        with self._changed:
            self._beats.difference_update(ending)
        due = [beat for beat in due if beat not in ending]
        if not due:
            return
        began = time.monotonic()
        try:
            kept = database.transact(
                lambda connection: [
                    renew(connection, beat.lease, now=now) for now in [database.clock(connection)] for beat in due
                ],
                patience=_PATIENCE,
            )
        except PlatformError as error:
            for beat in due:
                if not beat.missed:
                    beat.log.warning("%s: the lease cannot be renewed yet\n%s", beat.lease.table, error)
                beat.missed = True
                beat.due = time.monotonic() + min(_LONGEST_RETRY_SECONDS, beat.every)
            return
        for beat, renewed in zip(due, kept, strict=True):
            self._note(beat, renewed=renewed, began=began)

    def _note(self, beat: Beat, *, renewed: bool, began: float) -> None:
        if renewed:
            if beat.missed:
                beat.log.info("%s: the lease is renewed again", beat.lease.table)
            beat.missed = False
            beat.due = began + beat.every
            return
        beat.lost = True
        with self._changed:
            # One that was let go of meanwhile is not lost.
            held = beat in self._beats
            self._beats.discard(beat)
        if held:
            beat.log.error(
                "%s: the lease of batch %d was lost; the load will stop before it commits",
                beat.lease.table,
                beat.lease.epoch,
            )


HEARTBEAT = Heartbeat()
"""Of this process: one thread for all leases, however many platforms are open."""
