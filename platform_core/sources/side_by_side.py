"""Puts the batches of several readers into one stream, as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pyarrow as pa

from platform_core.sources.streaming import Batches

_PATIENCE_SECONDS = 0.1


def side_by_side(readers: Sequence[Batches], *, interrupt: Callable[[], None]) -> Batches:
    """The batches of all readers, each drained in a thread of its own; at most one batch a reader waits.

    The stream ends when every reader has; the first error ends all of them.

    Args:
        readers: the parts of one read.
        interrupt: makes the calls of the driver in which readers wait return.
    """
    # Batches wait for room; that a reader has ended is said without waiting, also by the thread that takes them out.
    handed: queue.SimpleQueue[pa.RecordBatch | Future[None]] = queue.SimpleQueue()
    room = threading.Semaphore(len(readers))
    over = threading.Event()

    def drain(batches: Batches) -> None:
        with closing(batches):
            for batch in batches:
                while not room.acquire(timeout=_PATIENCE_SECONDS):
                    if over.is_set():
                        return
                handed.put(batch)

    with ThreadPoolExecutor(len(readers), thread_name_prefix="edp-reader") as pool:
        running = len(readers)
        try:
            for batches in readers:
                pool.submit(drain, batches).add_done_callback(handed.put)
            while running:
                item = handed.get()
                if isinstance(item, Future):
                    item.result()
                    running -= 1
                else:
                    yield item
                    room.release()
        finally:
            over.set()
            if running:
                interrupt()
