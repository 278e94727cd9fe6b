"""Reads some columns of a table where an engine would else fetch all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.storage import local_path
from platform_core.lake.views import ViewReader
from platform_core.plugins.interfaces import TableReader


def narrowed(reader: TableReader, columns: tuple[str, ...]) -> TableReader:
    """The reader where an engine opens its files itself and so reads no more than a query names; else some columns."""
    if isinstance(reader, ViewReader):
        return reader
    is_here = isinstance(reader, DeltaTableReader) and local_path(reader.handle.table_uri) is not None
    if is_here and isinstance(reader, DeltaTableReader) and reader.plain_files is not None:
        return reader
    # Even a count of rows has to read something.
    return SomeColumns(reader, columns or tuple(reader.schema.names[:1]))


@dataclass(frozen=True)
class SomeColumns(TableReader):
    """Some columns of a table, so that no others are fetched."""

    table: TableReader
    columns: tuple[str, ...] = field(default=())

    @property
    def version(self) -> int:
        return self.table.version

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([self.table.schema.field(name) for name in self.columns])

    def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
        """Stream these columns, or some of them."""
        return self.table.read(columns=columns or self.columns)
