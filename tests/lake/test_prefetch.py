"""Reading ahead in a thread."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator

import pytest

from platform_core.lake.prefetch import prefetched

WHO = contextvars.ContextVar("WHO", default="nobody")


def test_items_come_in_order_from_a_thread_with_the_callers_context() -> None:
    WHO.set("caller")

    def items() -> Iterator[tuple[int, str, bool]]:
        for i in range(10):
            yield i, WHO.get(), threading.current_thread() is threading.main_thread()

    with prefetched(items()) as handed_out:
        assert list(handed_out) == [(i, "caller", False) for i in range(10)]


def test_an_error_is_raised_where_the_items_are_used() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    with prefetched(items()) as handed_out:
        assert next(handed_out) == 1
        with pytest.raises(KeyError, match="broken"):
            next(handed_out)


def test_no_more_is_read_than_asked_and_the_thread_ends_with_the_block() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1000):
            read.append(i)
            yield i

    with prefetched(items(), ahead=2) as handed_out:
        next(handed_out)
    assert len(read) <= 5
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
