"""Several readers in one stream, without a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pytest

from platform_core.errors import SourceError
from platform_core.sources.side_by_side import side_by_side
from platform_core.sources.streaming import Batches


def batch(number: int) -> pa.RecordBatch:
    return pa.record_batch({"v": [number]})


def batches(*numbers: int) -> Batches:
    for number in numbers:
        yield batch(number)


def rows(stream: Batches) -> list[int]:
    return sorted(value for part in stream for value in part.column("v").to_pylist())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edp-reader")] == []


def test_every_batch_of_every_reader_comes_once() -> None:
    for _ in range(50):
        parts = [batches(), batches(1, 2, 3), batches(), batches(4), batches(5, 6), batches()]
        assert rows(side_by_side(parts, interrupt=lambda: None)) == [1, 2, 3, 4, 5, 6]


def test_an_error_ends_all_readers_and_is_passed_on() -> None:
    interrupted = threading.Event()

    def waiting() -> Batches:
        yield batch(1)
        interrupted.wait(20)

    def broken() -> Batches:
        yield batch(2)
        raise SourceError("the read failed")

    with pytest.raises(SourceError, match="the read failed"):
        rows(side_by_side([waiting(), broken()], interrupt=interrupted.set))
    assert interrupted.is_set()


def test_readers_do_not_run_ahead() -> None:
    read: list[int] = []

    def counted() -> Batches:
        for number in range(100):
            read.append(number)
            yield batch(number)

    with closing(side_by_side([counted(), counted()], interrupt=lambda: None)) as stream:
        for _ in range(10):
            next(stream)
        assert len(read) <= 10 + 2 * 2


def test_closing_early_ends_the_readers() -> None:
    closed: list[bool] = []

    def endless() -> Batches:
        try:
            while True:
                yield batch(0)
        finally:
            closed.append(True)

    with closing(side_by_side([endless(), endless(), endless()], interrupt=lambda: None)) as stream:
        next(stream)
    assert closed == [True, True, True]
