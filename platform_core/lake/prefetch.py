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
def prefetched(items: Iterator[Item], *, ahead: int = 2, after: int = 0) -> Iterator[Iterator[Item]]:
    """Hand out the items of an iterator that another thread steps through.

    Reading and using then overlap; and the iterator may call into libraries that must not be called from the threads
    of the one that uses it. The thread sees the caller's context variables. At the end of the block it has ended: what
    was read ahead is dropped, and an item under way is waited for.

    Args:
        ahead: most items that wait.
        after: items that are taken without a thread first: a short stream is not worth one.
    """
    reader = _Reader(items, ahead)
    if not after:
        reader.start()
    try:
        yield reader.handed_out(after)
    finally:
        reader.end()


class _Reader(Generic[Item]):
    def __init__(self, items: Iterator[Item], ahead: int) -> None:
        self._items = items
        self._waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="prefetch", daemon=True)

    def start(self) -> None:
        """Begin to read ahead."""
        self._thread.start()

    def end(self) -> None:
        """Stop the thread, and wait until it has ended."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item, None):
                    return
        # Every error belongs to whoever uses the items, and is raised there.
        except BaseException as error:  # noqa: BLE001
            self._put(None, error)
        else:
            self._put(None, StopIteration())

    def handed_out(self, after: int) -> Iterator[Item]:
        """All items: the first ones are read when they are asked for, the others by the thread."""
        if after:
            for _ in range(after):
                try:
                    first = next(self._items)
                except StopIteration:
                    return
                yield first
            self.start()
        while True:
            item, error = self._waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            # Without an error there is an item.
            yield item  # type: ignore[misc]

    def _put(self, item: Item | None, error: BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._waiting.put((item, error), timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
