"""Holds what a database driver hands out as Arrow to the columns that were announced: exactly, or the read stops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from sqlglot import exp

from platform_core.sources.streaming import Batches
from platform_core.sources.types import TypedOptions, UnfitError, convert, unfit


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: what is selected, and what becomes of it.

    Args:
        name: its name at the source.
        type: the Arrow type that readers see.
        expression: what the SELECT asks for.
        text: most characters of the text in which it is handed out, where more stand for what is cut; None: all count.
        large: whether one value may be of any length.
        bound: the SQL type by which the server compares a cursor value; None: it is compared here alone.
    """

    name: str
    type: pa.DataType
    expression: exp.Expression
    text: int | None = None
    large: bool = False
    bound: str | None = None


class LargeValueOptions(TypedOptions):
    """Options of one object of a database whose driver counts rows, not bytes."""

    large_value_rows: int = Field(
        default=1_000, ge=1, description="Most rows of one batch where a column may hold values of any length."
    )


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The columns as readers see them."""
    return pa.schema([(column.name, column.type) for column in columns])


def batch_rows(columns: Iterable[Column], options: LargeValueOptions, *, most: int) -> int:
    """How many rows the driver is asked for at a time."""
    return min(most, options.large_value_rows) if any(column.large for column in columns) else most


def announced(batches: Iterable[pa.RecordBatch], columns: Sequence[Column], *, where: str) -> Batches:
    """The same rows in the announced types.

    Raises:
        SourceError: a value does not fit.
    """
    schema = schema_of(columns)
    read = 0
    for batch in batches:
        arrays = []
        for column, values in zip(columns, batch.columns, strict=True):
            try:
                arrays.append(exactly(values, column))
            except UnfitError as error:
                rows = (read + 1, read + batch.num_rows)
                raise unfit(where, column=column.name, type_=column.type, count=error.count, rows=rows) from None
        yield pa.record_batch(arrays, schema=schema)
        read += batch.num_rows


def exactly(values: pa.Array, column: Column) -> pa.Array:
    """One column of one batch.

    Raises:
        UnfitError: a value would be changed; also when the driver gave floats for what is no float.
    """
    type_ = column.type
    if pa.types.is_floating(values.type) and not pa.types.is_floating(type_) and len(values) > values.null_count:
        raise UnfitError(len(values) - values.null_count)
    if column.text is not None:
        cut = pc.utf8_slice_codeunits(pc.utf8_trim_whitespace(convert(values, pa.string())), 0, column.text)
        values = cut if pa.types.is_string(type_) else convert(cut, pa.timestamp("us"))
    if pa.types.is_integer(values.type) and (pa.types.is_decimal(type_) or pa.types.is_boolean(type_)):
        # Arrow makes an integer a decimal only where the type has room for every integer, and any but 0 true.
        values = values.cast(pa.string())
    if pa.types.is_date(type_) and pa.types.is_timestamp(values.type):
        return _days(values)
    if pa.types.is_timestamp(type_) and type_.tz is not None and getattr(values.type, "tz", None) is None:
        return pc.assume_timezone(convert(values, pa.timestamp("us")), "UTC")
    return convert(values, type_)


def _days(values: pa.Array) -> pa.Array:
    """Times as days, if they are midnight all."""
    days = values.cast(pa.date32())
    others = pc.sum(pc.not_equal(days.cast(values.type), values)).as_py()
    if others:
        raise UnfitError(others)
    return days
