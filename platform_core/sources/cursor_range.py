"""Keeps the rows of a requested cursor range, whatever a system made of the range before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from platform_core.plugins.interfaces import ReadRequest
from platform_core.sources.streaming import Batches, from_cursor, since_scalar, until_scalar


@dataclass(frozen=True)
class CursorRange:
    """From where to where a cursor column is read, both inclusive, in the column's own type."""

    cursor: str | None = None
    since: pa.Scalar | None = None
    until: pa.Scalar | None = None

    @classmethod
    def of(cls, request: ReadRequest, types: Mapping[str, pa.DataType], *, where: str) -> CursorRange:
        """The range of a request.

        Args:
            request: what is read.
            types: type by column; the cursor is among them.
            where: source and object, for messages.

        Raises:
            SourceError: a bound is of another kind than the column.
        """
        if request.since is None and request.until is None:
            return cls()
        if request.cursor is None:
            raise ValueError("since and until need cursor")
        type_ = types[request.cursor]
        return cls(request.cursor, since_scalar(request, type_, where=where), until_scalar(request, type_, where=where))

    @property
    def columns(self) -> tuple[str, ...]:
        """What must be read to tell whether a row is within."""
        return () if self.cursor is None else (self.cursor,)

    def only(self, batches: Iterable[pa.RecordBatch]) -> Batches:
        """The rows within; rows without a cursor value are left out, as SQL does."""
        if self.cursor is None:
            yield from batches
        else:
            yield from from_cursor(batches, cursor=self.cursor, since=self.since, until=self.until)
