"""The highest cursor value that is safely in bronze, read from bronze itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.errors import SchemaError, StorageError, redacted
from platform_core.lake.delta import table_schema
from platform_core.lake.file_statistics import EXACT_TEXT_BYTES, largest_in_footer
from platform_core.lake.storage import filesystem
from platform_core.plugins.interfaces import Cursor

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyarrow.fs import FileSystem

_MILLISECOND = dt.timedelta(milliseconds=1)


def watermark(table: DeltaTable, cursor: str, *, storage_options: Mapping[str, str]) -> Cursor | None:
    """The largest value of a column over all rows, deleted ones too; None where no row has one.

    The log's statistics tell in which files it can be: writers may cut timestamps to milliseconds and long texts, so
    those files are then asked themselves, by their footer, or by the column where the footer is silent.

    Raises:
        SchemaError: the table has no such column, or its type orders nothing.
        StorageError: a file cannot be read.
    """
    schema = table_schema(table)
    check_cursor(schema, cursor, of=table.table_uri)
    largest: Any = None
    folder = filesystem(table.table_uri, storage_options)
    try:
        for path in _candidates(table, cursor):
            value = _largest(folder, path, cursor)
            if largest is None or (value is not None and value > largest):
                largest = value
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{table.table_uri}: column '{cursor}' cannot be read\n  {redacted(error)}") from None
    return int(largest) if isinstance(largest, Decimal) else largest


def check_cursor(schema: pa.Schema, cursor: str, *, of: str) -> None:
    """Refuse a cursor column that is missing or whose type orders nothing.

    Raises:
        SchemaError: it says which types can.
    """
    if cursor not in schema.names:
        raise SchemaError(f"{of}: no cursor column '{cursor}'\n  columns: {', '.join(schema.names)}")
    type_ = schema.field(cursor).type
    orders = (
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_date(type_)
        or pa.types.is_timestamp(type_)
        or pa.types.is_string(type_)
        or (pa.types.is_decimal(type_) and type_.scale == 0)
    )
    if not orders:
        raise SchemaError(
            f"{of}: column '{cursor}' of type {type_} cannot be a cursor\n"
            "  a cursor is an integer, a float, a whole decimal, a date, a timestamp or a text"
        )


def _candidates(table: DeltaTable, cursor: str) -> list[str]:
    """Paths of the files that can hold the largest value."""
    actions = pa.table(table.get_add_actions())
    paths = [unquote(path) for path in actions["path"].to_pylist()]
    if not paths:
        return []
    maxima = _statistic(actions, "max", cursor)
    nulls = _statistic(actions, "null_count", cursor)
    rows = actions["num_records"].to_pylist()
    without = [nulls[i] is not None and rows[i] is not None and nulls[i] >= rows[i] for i in range(len(paths))]
    unknown = [path for i, path in enumerate(paths) if maxima[i] is None and not without[i]]
    known = [(path, value) for path, value in zip(paths, maxima, strict=True) if value is not None]
    if any(isinstance(value, str) and len(value.encode()) >= EXACT_TEXT_BYTES for _, value in known):
        return [path for i, path in enumerate(paths) if not without[i]]
    if not known:
        return unknown
    best = max(value for _, value in known)
    floor = best - _MILLISECOND if isinstance(best, dt.datetime) else best
    return [*unknown, *(path for path, value in known if value >= floor)]


def _statistic(actions: pa.Table, kind: str, column: str) -> list[Any]:
    if kind not in actions.column_names:
        return [None] * actions.num_rows
    position = actions.schema.field(kind).type.get_field_index(column)
    if position < 0:
        return [None] * actions.num_rows
    values: list[Any] = pc.struct_field(actions[kind], [position]).to_pylist()
    return values


def _largest(folder: FileSystem, path: str, column: str) -> Any:
    import pyarrow.parquet as pq

    with folder.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
        exact, value = largest_in_footer(file.metadata, column)
        if exact:
            return value
        largest: Any = None
        for group in range(file.num_row_groups):
            values = file.read_row_group(group, columns=[column])[column]
            if pa.types.is_floating(values.type):
                values = values.filter(pc.invert(pc.is_nan(values)))
            found = pc.max(values).as_py()
            if largest is None or (found is not None and found > largest):
                largest = found
        return largest
