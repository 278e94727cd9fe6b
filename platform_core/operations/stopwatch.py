"""Where the time of a load goes, by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Seconds by phase; a phase within another is taken off the outer one, so that they add up."""

    def __init__(self, *phases: str) -> None:
        self.seconds = dict.fromkeys(phases, 0.0)
        self._inner = [0.0]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time for a phase."""
        begin = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            passed = time.perf_counter() - begin
            self.seconds[name] += passed - self._inner.pop()
            self._inner[-1] += passed

    def share(self, waited: float, among: Mapping[str, float]) -> None:
        """Count time spent waiting for another thread for the phases of that thread, in proportion.

        Phases of two threads overlap; counted so they still add up to the time that passed.

        Args:
            waited: seconds.
            among: seconds by phase in the other thread.
        """
        whole = sum(among.values())
        for name, seconds in among.items():
            self.seconds[name] += waited * seconds / whole if whole else 0.0
