"""Reads a stream in a thread of its own, a few items ahead."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")

_POLL_SECONDS = 0.1


@contextmanager
def prefetched(items: Iterator[Item], *, ahead: int = 2) -> Iterator[Iterator[Item]]:
    """Hand out the items of an iterator that another thread steps through.

    Reading and using then overlap; and the iterator may call into libraries that must not be called from the threads
    of the one that uses it. The thread sees the caller's context variables. At the end of the block it has ended: what
    was read ahead is dropped, and an item under way is waited for.

    Args:
        ahead: most items that wait.
    """
    reader = _Reader(items, ahead)
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(reader.run,), name="prefetch", daemon=True)
    thread.start()
    try:
        yield reader.handed_out()
    finally:
        reader.stop.set()
        thread.join()


class _Reader(Generic[Item]):
    def __init__(self, items: Iterator[Item], ahead: int) -> None:
        self._items = items
        self._waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=ahead)
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item, None):
                    return
        # Every error belongs to whoever uses the items, and is raised there.
        except BaseException as error:  # noqa: BLE001
            self._put(None, error)
        else:
            self._put(None, StopIteration())

    def handed_out(self) -> Iterator[Item]:
        while True:
            item, error = self._waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            # Without an error there is an item.
            yield item  # type: ignore[misc]

    def _put(self, item: Item | None, error: BaseException | None) -> bool:
        while not self.stop.is_set():
            try:
                self._waiting.put((item, error), timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
