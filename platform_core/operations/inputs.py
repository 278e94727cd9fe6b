"""Opens what a step or dashboard reads: a table of the lake, or a view over tables."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.views import ViewReader, open_table_or_view
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.table import TableRef


def open_input(ref: TableRef, *, platform: Platform) -> DeltaTableReader | ViewReader | None:
    """A reader of a table or view as of now; None where there is neither.

    Raises:
        StorageError: it cannot be read, or a view reads a table that is not there, or itself.
    """

    def select(sql: str, tables: Mapping[TableRef, TableReader]) -> pa.RecordBatchReader:
        return platform.engine.select(sql, tables=tables, variables={}, cancelled=platform.cancelled)

    return open_table_or_view(ref, lake=platform.lake, select=select)
