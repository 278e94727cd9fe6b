"""How each SQL Server type reaches Arrow exactly, and what is refused because it cannot.

What a driver could turn into something else is turned by the server, in the SELECT, into what has one reading only:
money into a decimal, a uniqueidentifier into its text, a time with offset into a time in UTC.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.sources.cursor_rows import Column
from platform_core.sources.naming import column as column_node

_AS_THEY_ARE = {
    "bit": pa.bool_(),
    "tinyint": pa.int16(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "float": pa.float64(),
    "char": pa.string(),
    "varchar": pa.string(),
    "nchar": pa.string(),
    "nvarchar": pa.string(),
    "sysname": pa.string(),
    "binary": pa.binary(),
    "varbinary": pa.binary(),
    "date": pa.date32(),
}
_CONVERTED = {
    "money": ("DECIMAL(19, 4)", pa.decimal128(19, 4)),
    "smallmoney": ("DECIMAL(10, 4)", pa.decimal128(10, 4)),
    "text": ("NVARCHAR(MAX)", pa.string()),
    "ntext": ("NVARCHAR(MAX)", pa.string()),
    "xml": ("NVARCHAR(MAX)", pa.string()),
    "json": ("NVARCHAR(MAX)", pa.string()),
    "image": ("VARBINARY(MAX)", pa.binary()),
    "time": ("VARCHAR(16)", pa.string()),
    "datetime": ("DATETIME2(3)", pa.timestamp("us")),
    "smalldatetime": ("DATETIME2(0)", pa.timestamp("us")),
}
_LARGE = {"text", "ntext", "xml", "json", "image"}
_COMPARED = {"tinyint", "smallint", "int", "bigint", "decimal", "numeric", "money", "smallmoney", "rowversion"}
_COMPARED |= {"date", "datetime", "smalldatetime", "datetime2", "datetimeoffset"}
_NAME = re.compile(r"[a-z_0-9]+")


@dataclass(frozen=True)
class Announced:
    """What the server says of a column.

    Args:
        type: the name of its type without lengths; ``rowversion`` also where the server says timestamp.
        precision: digits, of a decimal.
        scale: digits behind the point, also of seconds.
        longest: bytes of the longest value; -1: any length.
    """

    name: str
    type: str
    precision: int
    scale: int
    longest: int


def announced(
    name: str, system_type: str | None, user_type: str | None, precision: int, scale: int, longest: int
) -> Announced:
    """A column as ``sys.dm_exec_describe_first_result_set`` describes it."""
    found = _NAME.match((system_type or user_type or "unknown").lower())
    type_ = found[0] if found else "unknown"
    return Announced(name, "rowversion" if type_ == "timestamp" else type_, precision, scale, longest)


def column_of(column: Announced, *, declared: pa.DataType | None, where: str) -> Column:
    """How one column is read.

    Args:
        column: what the server says of it.
        declared: type declared in the object's options.
        where: table or query, for messages.

    Raises:
        SourceError: the type cannot be read exactly.
    """
    natural = _natural(column, where)
    return natural if declared is None else dataclasses.replace(natural, type=declared, bound=None)


def _natural(column: Announced, where: str) -> Column:
    node = column_node(column.name)
    bound = column.type if column.type in _COMPARED else None
    if column.type in _AS_THEY_ARE:
        large = column.longest == -1
        return Column(name=column.name, type=_AS_THEY_ARE[column.type], expression=node, bound=bound, large=large)
    if column.type in _CONVERTED:
        to, type_ = _CONVERTED[column.type]
        large = column.type in _LARGE
        return Column(name=column.name, type=type_, expression=_convert(to, node), bound=bound, large=large)
    if column.type in ("decimal", "numeric"):
        type_ = pa.decimal128(column.precision, column.scale)
        return Column(name=column.name, type=type_, expression=node, bound=bound)
    if column.type == "uniqueidentifier":
        text = exp.Anonymous(this="LOWER", expressions=[_convert("CHAR(36)", node)])
        return Column(name=column.name, type=pa.string(), expression=text)
    if column.type == "rowversion":
        return Column(name=column.name, type=pa.int64(), expression=_convert("BIGINT", node), bound=bound)
    if column.type == "datetime2":
        return Column(name=column.name, type=pa.timestamp("us"), expression=_cut(node, column.scale), bound=bound)
    if column.type == "datetimeoffset":
        moved = exp.Anonymous(this="SWITCHOFFSET", expressions=[node, exp.Literal.string("+00:00")])
        cut = _cut(_convert(f"DATETIME2({column.scale})", moved), column.scale)
        return Column(name=column.name, type=pa.timestamp("us", tz="UTC"), expression=cut, bound=bound)
    raise SourceError(
        f"{where}: column '{column.name}' is of type {column.type}, which the lake does not have\n"
        f"  leave it out with 'select', or read a 'query' that makes it a text{_HINTS.get(column.type, '')}"
    )


_HINTS = {
    "hierarchyid": ": column.ToString()",
    "geography": ": column.STAsText()",
    "geometry": ": column.STAsText()",
    "sql_variant": ": CONVERT(nvarchar(4000), column)",
    "vector": ": CONVERT(nvarchar(max), column)",
}


def bound_value(column: Column, value: Any, *, last: bool) -> object:
    """A cursor value as the driver takes it; of what is cut to microseconds, the first or last that was cut to it."""
    if not isinstance(value, dt.date):
        return value
    if not isinstance(value, dt.datetime):
        return value.isoformat()
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    if column.bound in ("datetime", "smalldatetime"):
        # Its ticks are shown in milliseconds, and read back from them.
        return value.isoformat(timespec="milliseconds")
    text = f"{value.isoformat(timespec='microseconds')}{'9' if last else '0'}"
    return f"{text}+00:00" if column.bound == "datetimeoffset" else text


def bound_node(column: Column, node: exp.Expression) -> exp.Expression:
    """A cursor value in a statement, of the column's own type, so that an index on it serves."""
    match column.bound:
        case "rowversion":
            return rowversion(node)
        case "date":
            return _convert("DATE", node)
        case "datetime" | "smalldatetime":
            return _convert("DATETIME", node)
        case "datetime2":
            return _convert("DATETIME2(7)", node)
        case "datetimeoffset":
            return _convert("DATETIMEOFFSET(7)", node)
    return node


def rowversion(node: exp.Expression) -> exp.Expression:
    """A whole number as a row version."""
    return _convert("BINARY(8)", _convert("BIGINT", node))


def _convert(to: str, node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="CONVERT", expressions=[exp.Var(this=to), node])


def _cut(node: exp.Expression, scale: int) -> exp.Expression:
    """A time without what is smaller than a microsecond; a conversion alone would round it up."""
    if scale <= 6:
        return node
    unit = exp.Var(this="NANOSECOND")
    over = exp.Mod(
        this=exp.Anonymous(this="DATEPART", expressions=[unit, node.copy()]), expression=exp.Literal.number(1000)
    )
    less = exp.Anonymous(this="DATEADD", expressions=[unit.copy(), exp.Neg(this=exp.paren(over)), node.copy()])
    return _convert("DATETIME2(6)", less)
