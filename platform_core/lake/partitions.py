"""Which partitions a result holds rows of, and the condition by which Delta finds their rows in a table.

A partition is one combination of values, null included; it needs no layout of its own, so the files of a table stay as
every reader takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import LoadError, SchemaError

MOST_PARTITIONS = 1_000
"""What one write may replace: the condition names each, and planning it takes longer than rewriting the table."""

_DIALECT = "postgres"

Values = tuple[Any, ...]


@dataclass(frozen=True)
class Touched:
    """Partitions, and the condition that holds for all their rows and no others."""

    number: int
    condition: str


def touched(rows: pa.Table, *, of: str, columns: tuple[str, ...]) -> Touched:
    """The partitions of which ``rows`` has some.

    Args:
        rows: at least one, in the types of the lake.
        of: the table, for messages.
        columns: whose values are a partition.

    Raises:
        LoadError: there are more than :data:`MOST_PARTITIONS`.
    """
    found = rows.select(list(columns)).group_by(list(columns)).aggregate([])
    if found.num_rows > MOST_PARTITIONS:
        raise LoadError(
            f"{of}: the result has rows of {found.num_rows} partitions, and one write replaces at most "
            f"{MOST_PARTITIONS}; nothing was written\n  partition by: {', '.join(columns)}\n"
            "  do it in several ranges, choose larger partitions, or make the whole table anew by a full refresh"
        )
    # What varies most is listed, the others compared one by one.
    order = sorted(columns, key=lambda name: len(found[name].unique()))
    types = [found.schema.field(name).type for name in order]
    partitions: list[Values] = sorted(zip(*(found[name].to_pylist() for name in order), strict=True), key=_order)
    conditions = [
        exp.and_(
            *(_is_one_of(name, type_, [value]) for name, type_, value in zip(order, types, fixed, strict=False)),
            _is_one_of(order[-1], types[-1], [values[-1] for values in group]),
        )
        for fixed, group in groupby(partitions, key=lambda values: values[:-1])
    ]
    return Touched(found.num_rows, str(_any(conditions).sql(dialect=_DIALECT)))


def check_columns(schema: pa.Schema, *, of: str, columns: tuple[str, ...]) -> None:
    """Refuse columns that make no partitions.

    Raises:
        SchemaError: one is missing, or of a type whose values are not plainly equal or not.
    """
    if unknown := [name for name in columns if name not in schema.names]:
        raise SchemaError(
            f"{of}: no partition column {', '.join(unknown)}; nothing was written\n  columns: {', '.join(schema.names)}"
        )
    for name in columns:
        if not _is_plain(type_ := schema.field(name).type):
            raise SchemaError(
                f"{of}: column '{name}' of type {type_} cannot be a partition; nothing was written\n"
                "  partition by dates, texts, integers, decimals, booleans or times"
            )


def _is_plain(type_: pa.DataType) -> bool:
    kinds = (
        pa.types.is_integer,
        pa.types.is_string,
        pa.types.is_boolean,
        pa.types.is_date,
        pa.types.is_timestamp,
        pa.types.is_decimal,
    )
    return any(kind(type_) for kind in kinds)


def _order(values: Values) -> tuple[tuple[bool, Any], ...]:
    return tuple((value is not None, 0 if value is None else value) for value in values)


def _any(conditions: Sequence[exp.Expression]) -> exp.Expression:
    """One of them holds; in halves, because planners walk a long chain by recursion and run out of stack."""
    if len(conditions) == 1:
        return conditions[0]
    half = len(conditions) // 2
    return exp.paren(exp.Or(this=_any(conditions[:half]), expression=_any(conditions[half:])))


def _is_one_of(name: str, type_: pa.DataType, values: Sequence[Any]) -> exp.Expression:
    """The column has one of some values; never null itself, as Delta keeps no row of which its opposite is null."""
    column = exp.column(name, quoted=True)
    is_null = exp.Is(this=column, expression=exp.null())
    known = [_literal(value, type_) for value in values if value is not None]
    conditions: list[exp.Expression] = []
    if known:
        among = exp.In(this=column.copy(), expressions=known)
        conditions.append(exp.paren(exp.and_(exp.not_(is_null.copy()), among)))
    if len(known) < len(values):
        conditions.append(is_null)
    return _any(conditions)


def _literal(value: Any, type_: pa.DataType) -> exp.Expression:
    if pa.types.is_boolean(type_):
        return exp.true() if value else exp.false()
    if pa.types.is_integer(type_):
        return exp.Literal.number(value)
    if pa.types.is_string(type_):
        return exp.Literal.string(value)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return exp.Anonymous(this="arrow_cast", expressions=[exp.Literal.string(text), exp.Literal.string(_arrow(type_))])


def _arrow(type_: pa.DataType) -> str:
    """The name of a type as the query engine of delta-rs writes it."""
    if pa.types.is_date(type_):
        return "Date32"
    if pa.types.is_decimal(type_):
        return f"Decimal128({type_.precision}, {type_.scale})"
    return "Timestamp(Microsecond, None)" if type_.tz is None else 'Timestamp(Microsecond, Some("UTC"))'
