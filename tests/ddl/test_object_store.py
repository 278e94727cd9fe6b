"""The same changes on a disk and in an object store."""

from __future__ import annotations

import pyarrow as pa
from deltalake import write_deltalake

from platform_core.engines.local import LocalEngine, LocalOptions
from platform_core.lake.delta import open_table
from platform_core.lake.paths import Lake
from platform_core.lake.table_changes import is_made, make, read_table
from platform_core.lake.views import make_view, open_table_or_view
from platform_core.specs.ddl import (
    AddColumns,
    Change,
    CreateTable,
    CreateView,
    DropTable,
    DropView,
    RewriteColumns,
    Stamp,
    TableColumn,
)
from platform_core.specs.table import TableRef

A = TableRef("mobility", "gold", "a")
V = TableRef("mobility", "gold", "v")
ID, TEXT = TableColumn("id", pa.int64()), TableColumn("text", pa.string())
WIDE = TableColumn("id", pa.decimal128(20, 0))


def _stamp(number: int) -> Stamp:
    return Stamp(workstream="mobility", number=number, statement=1, digest=f"{number:064x}")


def _make(lake: Lake, change: Change, number: int) -> bool:
    """Make a change twice; returns whether the first time did it, and the second left it."""
    where = {"uri": lake.table(change.table), "storage_options": lake.storage_options, "stamp": _stamp(number)}
    if isinstance(change, CreateView | DropView):
        return make_view(change, **where) and not make_view(change, **where)
    first, second = make(change, **where).committed, make(change, **where).committed
    return first and not second and is_made(change, **where)


def test_changes_are_made_once_wherever_the_lake_lies(any_lake: Lake) -> None:
    lake = any_lake
    uri, options = lake.table(A), dict(lake.storage_options)
    engine = LocalEngine(LocalOptions(memory_limit="300MB", threads=1))

    def select(sql: str, tables: object) -> pa.RecordBatchReader:
        return engine.select(sql, tables=tables, variables={})

    assert _make(lake, CreateTable(table=A, columns=(ID,)), 1)
    write_deltalake(uri, pa.table({"id": [1, 2]}), mode="append", storage_options=options)
    assert _make(lake, AddColumns(table=A, columns=(TEXT,)), 2)
    assert _make(lake, RewriteColumns(table=A, columns=(WIDE, TEXT), sources=("id", "text")), 3)
    view = CreateView(table=V, sql='SELECT id FROM "mobility".gold.a', reads=(A,))
    assert _make(lake, view, 4)
    found = open_table_or_view(V, lake=lake, select=select)
    assert found is not None
    assert sorted(int(row["id"]) for row in found.read().read_all().to_pylist()) == [1, 2]
    live = read_table(uri, storage_options=options)
    assert live is not None
    assert live.columns == (WIDE, TEXT)
    assert _make(lake, DropView(table=V), 5)
    assert _make(lake, DropTable(table=A), 6)
    assert open_table(uri, storage_options=options) is None
    assert open_table_or_view(V, lake=lake, select=select) is None
