"""Ends what is done in the database before its nth statement, and does several things at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa


class Killed(BaseException):
    """Ends an apply wherever it stands."""


@contextmanager
def killed_before(nth: int) -> Iterator[None]:
    """Within the block the nth statement, commits counted, is not executed any more."""
    left = [nth]

    def count(*_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    sa.event.listen(sa.Engine, "commit", count)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
        sa.event.remove(sa.Engine, "commit", count)


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What comes of several things that are done at the same time."""
    results: list[Any] = [None] * len(works)
    failed: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def run(place: int) -> None:
        try:
            gate.wait(timeout=30)
            results[place] = works[place]()
        except BaseException as error:  # noqa: BLE001 - raised by whoever asked
            failed.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return results
