"""A read under way: batches of one schema, bounded in rows, that end only when the source has ended."""

from __future__ import annotations

import datetime as dt
import functools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Cursor, ReadRequest

_PATIENCE_SECONDS = 0.1
_GATHERED_BYTES = 8 << 20

Batches = Generator[pa.RecordBatch, None, None]


class Stream:
    """Hands out the batches of one read until its end, an error or :meth:`close`."""

    def __init__(
        self, batches: Batches, *, resources: ExitStack, where: str, interrupt: Callable[[], None] | None = None
    ) -> None:
        """Take over what the read holds.

        Args:
            batches: the rows, read as they are asked for.
            resources: closed when the read ends, however it ends.
            where: source and object, for messages.
            interrupt: makes a call of the driver that waits in another thread return.
        """
        self._batches = batches
        self._resources = resources
        self._where = where
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._closed = False
        self._ended = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        with self._lock:
            if self._ended:
                raise StopIteration
            if self._closed:
                raise SourceError(f"{self._where}: the source was closed before all rows were read")
            try:
                return next(self._batches)
            except StopIteration:
                self._ended = True
                self._release()
                raise
            except BaseException:
                self._closed = True
                self._release()
                raise

    @property
    def done(self) -> bool:
        """Whether nothing is held any more."""
        return self._ended or self._closed

    def close(self) -> None:
        """Release what is held; a reader that has not come to its end raises from now on."""
        if self.done:
            return
        while not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            if self._interrupt is not None:
                self._interrupt()
        try:
            if not self.done:
                self._closed = True
                self._batches.close()
                self._release()
        finally:
            self._lock.release()

    def _release(self) -> None:
        self._resources.close()


class Streams:
    """The unfinished reads of one source."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: list[Stream] = []

    def reader(self, schema: pa.Schema, stream: Stream) -> pa.RecordBatchReader:
        """A reader over the stream, which :meth:`close` ends."""
        with self._lock:
            self._streams = [*(known for known in self._streams if not known.done), stream]
        return pa.RecordBatchReader.from_batches(schema, stream)

    def close(self) -> None:
        """End all reads; safe to call again."""
        with self._lock:
            streams, self._streams = self._streams, []
        for stream in streams:
            stream.close()


def since_scalar(request: ReadRequest, type_: pa.DataType, *, where: str) -> pa.Scalar | None:
    """The request's ``since`` as a value of the cursor column's type; None: read from the beginning.

    Raises:
        SourceError: the value is of another kind than the column.
    """
    return None if request.since is None else cursor_scalar(request.since, request, type_, where=where)


def until_scalar(request: ReadRequest, type_: pa.DataType, *, where: str) -> pa.Scalar | None:
    """The request's ``until`` as a value of the cursor column's type; None: read to the end.

    Raises:
        SourceError: the value is of another kind than the column.
    """
    return None if request.until is None else cursor_scalar(request.until, request, type_, where=where)


def cursor_scalar(value: Cursor, request: ReadRequest, type_: pa.DataType, *, where: str) -> pa.Scalar:
    """A bound of a read as a value of the cursor column's type.

    Raises:
        SourceError: the value is of another kind than the column.
    """
    if not _fits(value, type_):
        raise SourceError(
            f"{where}: cursor '{request.cursor}' has type {type_}, but the watermark is a {_kind(value)}\n"
            "  the column's type has changed, or another column was the cursor before; load the table anew"
        )
    try:
        return pa.scalar(value, type=type_)
    except (pa.ArrowException, OverflowError):
        raise SourceError(
            f"{where}: the watermark does not fit the type {type_} of cursor '{request.cursor}'"
        ) from None


def _fits(since: Cursor, type_: pa.DataType) -> bool:
    if pa.types.is_timestamp(type_):
        return isinstance(since, dt.datetime) and (since.tzinfo is not None) == (type_.tz is not None)
    if pa.types.is_date(type_):
        return isinstance(since, dt.date) and not isinstance(since, dt.datetime)
    if pa.types.is_string(type_):
        return isinstance(since, str)
    if pa.types.is_floating(type_):
        return isinstance(since, (int, float)) and not isinstance(since, bool)
    if pa.types.is_integer(type_):
        return isinstance(since, int) and not isinstance(since, bool)
    return pa.types.is_decimal(type_) and not isinstance(since, (str, dt.date, float, bool))


def _kind(since: Cursor) -> str:
    if isinstance(since, dt.datetime):
        return "time with time zone" if since.tzinfo else "time without time zone"
    return type(since).__name__


def from_cursor(
    batches: Iterable[pa.RecordBatch], *, cursor: str, since: pa.Scalar | None, until: pa.Scalar | None = None
) -> Batches:
    """Only the rows with ``since <= cursor <= until``; rows without a cursor value are left out, as SQL does."""
    for batch in batches:
        values = batch.column(cursor)
        bounds = [pc.greater_equal(values, since)] if since is not None else []
        bounds += [pc.less_equal(values, until)] if until is not None else []
        yield batch.filter(functools.reduce(pc.and_, bounds)) if bounds else batch


def shaped(batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, batch_rows: int) -> Batches:
    """Batches of exactly ``schema``, of one row at least and ``batch_rows`` at most.

    Small ones are put together: every batch costs the load some 10 ms, and a folder of daily files has many.
    """
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        narrow = batch.select(schema.names)
        for start in range(0, batch.num_rows, batch_rows):
            part = narrow.slice(start, batch_rows)
            if waiting and (rows + part.num_rows > batch_rows or size + part.nbytes > _GATHERED_BYTES):
                yield pa.concat_batches(waiting)
                waiting, rows, size = [], 0, 0
            waiting.append(part)
            rows, size = rows + part.num_rows, size + part.nbytes
    if waiting:
        yield pa.concat_batches(waiting)
