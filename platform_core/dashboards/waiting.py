"""Waiting that ends: by a deadline, or because the run is being cancelled."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Protocol

_SLICE = 1.0


class Clock(Protocol):
    """Time as the waiting code sees it, so that tests need not wait."""

    def now(self) -> dt.datetime:
        """The time of day, UTC."""

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> dt.datetime:
        """The time of day, UTC."""
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class WaitCancelledError(Exception):
    """The run is being cancelled; never leaves the plug-in."""


class OutOfTimeError(Exception):
    """The deadline would pass before the wait ends; never leaves the plug-in."""


class Waiting:
    """What is left of the time that one refresh may take."""

    def __init__(self, clock: Clock, *, timeout: dt.timedelta, cancelled: Callable[[], bool]) -> None:
        self.clock = clock
        self._deadline = clock.monotonic() + timeout.total_seconds()
        self._cancelled = cancelled

    def check(self) -> None:
        """Raise WaitCancelledError or OutOfTimeError where it is time to end."""
        if self._cancelled():
            raise WaitCancelledError
        if self.clock.monotonic() >= self._deadline:
            raise OutOfTimeError

    def pause(self, seconds: float) -> None:
        """Wait in slices, so that a cancelled run ends within a second.

        Raises:
            WaitCancelledError: the run is being cancelled.
            OutOfTimeError: at once, where the deadline comes before the end of the wait.
        """
        until = self.clock.monotonic() + seconds
        self.check()
        if until > self._deadline:
            raise OutOfTimeError
        while (left := until - self.clock.monotonic()) > 0:
            self.clock.sleep(min(left, _SLICE))
            self.check()
