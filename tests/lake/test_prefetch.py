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


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_a_short_stream_needs_no_thread(length: int) -> None:
    seen: list[bool] = []

    def items() -> Iterator[int]:
        for i in range(length):
            seen.append(threading.current_thread() is threading.main_thread())
            yield i

    before = threading.active_count()
    with prefetched(items(), after=2) as handed_out:
        assert list(handed_out) == list(range(length))
    assert seen == [i < 2 for i in range(length)]
    assert threading.active_count() == before


def test_an_early_end_without_a_thread_is_fine() -> None:
    with prefetched(iter([1, 2, 3]), after=2) as handed_out:
        assert next(handed_out) == 1
