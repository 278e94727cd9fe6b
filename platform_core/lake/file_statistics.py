"""Statistics of Parquet files as the Delta protocol writes them, read from the files' own footers."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

EXACT_TEXT_BYTES = 32
"""Texts of fewer bytes are whole in every writer's statistics; longer ones may be cut, by some to a smaller value."""

_INDEXED_COLUMNS = 32


def delta_statistics(footer: FileMetaData, *, always: frozenset[str]) -> str:
    """The ``stats`` of one file's *add* action.

    Args:
        footer: the file's metadata.
        always: columns with statistics wherever they stand; of the others the first 32 get them.
    """
    lowest: dict[str, Any] = {}
    highest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for position, (name, leaf) in enumerate(_flat_columns(footer.schema.to_arrow_schema())):
        if position >= _INDEXED_COLUMNS and name not in always:
            continue
        groups = [footer.row_group(group).column(leaf).statistics for group in range(footer.num_row_groups)]
        if not all(groups):
            continue
        if all(group.has_null_count for group in groups):
            nulls[name] = sum(group.null_count for group in groups)
        bounds = _bounds(groups)
        if bounds is not None:
            lowest[name], highest[name] = bounds
    return json.dumps(
        {"numRecords": footer.num_rows, "minValues": lowest, "maxValues": highest, "nullCount": nulls},
        ensure_ascii=False,
        allow_nan=False,
    )


def largest_in_footer(footer: FileMetaData, column: str) -> tuple[bool, Any]:
    """Whether the footer tells a column's largest value exactly, and that value (None: no value is set)."""
    leaf = dict(_flat_columns(footer.schema.to_arrow_schema())).get(column)
    if leaf is None:
        return False, None
    largest: Any = None
    for group in range(footer.num_row_groups):
        statistics = footer.row_group(group).column(leaf).statistics
        if statistics is None:
            return False, None
        if not statistics.has_min_max:
            if not statistics.has_null_count or statistics.null_count < footer.row_group(group).num_rows:
                return False, None
            continue
        value = statistics.max
        if not isinstance(value, int | dt.date):
            return False, None
        largest = value if largest is None else max(largest, value)
    return True, largest


def _flat_columns(schema: pa.Schema) -> Iterator[tuple[str, int]]:
    """Name and leaf number of every column that is not nested."""
    leaf = 0
    for field in schema:
        leaves = _leaves(field.type)
        if not pa.types.is_nested(field.type):
            yield field.name, leaf
        leaf += leaves


def _leaves(type_: pa.DataType) -> int:
    if not pa.types.is_nested(type_):
        return 1
    return sum(_leaves(type_.field(inner).type) for inner in range(type_.num_fields))


def _bounds(groups: list[Any]) -> tuple[Any, Any] | None:
    """Smallest and largest value of a column as JSON; None where they are unknown or may not be shown."""
    with_values = [group for group in groups if group.has_min_max]
    if not with_values or any(
        not group.has_min_max and not (group.has_null_count and group.num_values == 0) for group in groups
    ):
        return None
    smallest = _as_json(min(group.min for group in with_values))
    largest = _as_json(max(group.max for group in with_values))
    return None if smallest is None or largest is None else (smallest, largest)


def _as_json(value: object) -> int | float | str | None:
    match value:
        case bool():
            return None
        case int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value if len(value.encode()) < EXACT_TEXT_BYTES else None
        case dt.datetime():
            moment = value.astimezone(dt.UTC).replace(tzinfo=None) if value.tzinfo else value
            return moment.isoformat(timespec="microseconds") + ("Z" if value.tzinfo else "")
        case dt.date():
            return value.isoformat()
        case _:
            return None
