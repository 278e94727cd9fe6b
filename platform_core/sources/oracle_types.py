"""How each Oracle type reaches Arrow exactly, and what is refused because it cannot.

Numbers of no declared precision, dates and times come as texts that the server writes in a fixed format: the driver
would make doubles of the one, and of the others Arrow times that end in the year 2262.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.sources.cursor_rows import Column
from platform_core.sources.naming import column as column_node
from platform_core.sources.types import UNBOUNDED_DECIMAL

_AS_THEY_ARE = {
    "DB_TYPE_VARCHAR": pa.string(),
    "DB_TYPE_NVARCHAR": pa.string(),
    "DB_TYPE_CHAR": pa.string(),
    "DB_TYPE_NCHAR": pa.string(),
    "DB_TYPE_LONG": pa.string(),
    "DB_TYPE_LONG_NVARCHAR": pa.string(),
    "DB_TYPE_CLOB": pa.string(),
    "DB_TYPE_NCLOB": pa.string(),
    "DB_TYPE_RAW": pa.binary(),
    "DB_TYPE_LONG_RAW": pa.binary(),
    "DB_TYPE_BLOB": pa.binary(),
    "DB_TYPE_BINARY_FLOAT": pa.float32(),
    "DB_TYPE_BINARY_DOUBLE": pa.float64(),
    "DB_TYPE_BOOLEAN": pa.bool_(),
}
_LARGE = {"LONG", "LONG_NVARCHAR", "LONG_RAW", "CLOB", "NCLOB", "BLOB"}
_TEXTS = {
    "DB_TYPE_ROWID": "ROWIDTOCHAR",
    "DB_TYPE_UROWID": "ROWIDTOCHAR",
    "DB_TYPE_INTERVAL_DS": "TO_CHAR",
    "DB_TYPE_INTERVAL_YM": "TO_CHAR",
}
# The year has a sign, so that one before Christ is refused and not taken for one after.
_DATE = 'SYYYY-MM-DD"T"HH24:MI:SS'
_TIME = f"{_DATE}.FF9"
_DATE_CHARACTERS, _TIME_CHARACTERS = 19, 26
_LARGEST_INTEGER_DIGITS = 18
_NO_SCALE = -127


@dataclass(frozen=True)
class Announced:
    """What the driver says of a column: name of its type, and of a number its digits and those behind the point."""

    name: str
    type: str
    precision: int
    scale: int


def column_of(column: Announced, *, declared: pa.DataType | None, where: str) -> Column:
    """How one column is read.

    Args:
        column: what the driver says of it.
        declared: type declared in the object's options.
        where: table or query, for messages.

    Raises:
        SourceError: the type cannot be read exactly.
    """
    natural = _number(column, declared, where) if column.type == "DB_TYPE_NUMBER" else _other(column, where)
    if declared is None or declared.equals(natural.type):
        return natural
    # A DATE or TIMESTAMP of which it is declared that it is UTC, or a day, is ordered as before.
    alike = natural.text is not None and pa.types.is_temporal(declared)
    return dataclasses.replace(natural, type=declared, bound=natural.bound if alike else None)


def _number(column: Announced, declared: pa.DataType | None, where: str) -> Column:
    node = column_node(column.name)
    precision, scale = column.precision, column.scale
    if precision > 0 and 0 <= scale <= precision:
        whole = scale == 0 and precision <= _LARGEST_INTEGER_DIGITS
        type_ = pa.int64() if whole else pa.decimal128(precision, scale)
        return Column(name=column.name, type=type_, expression=node, bound="NUMBER")
    text = _call("TO_CHAR", node, "TM9")
    if precision == 0 or scale == _NO_SCALE:
        # NUMBER and FLOAT alone: 38 digits or more, wherever the point stands.
        return Column(name=column.name, type=UNBOUNDED_DECIMAL, expression=text, bound="NUMBER")
    # NUMBER(3,-2) holds 99,900 and NUMBER(2,4) holds 0.0099: what counts is digits before and after the point.
    digits, after = max(precision, scale, precision - scale), max(scale, 0)
    if digits > 38 and declared is None:
        raise SourceError(
            f"{where}: column '{column.name}' is NUMBER({precision},{scale}), and the lake's decimals have 38 digits\n"
            f"  name its type under the table's options: columns: {{{column.name}: text}}, "
            "or a decimal that its values fit"
        )
    type_ = pa.decimal128(digits, after) if digits <= 38 else pa.string()
    return Column(name=column.name, type=type_, expression=text, bound="NUMBER")


def _other(column: Announced, where: str) -> Column:
    node, name, type_ = column_node(column.name), column.name, column.type
    if type_ in _AS_THEY_ARE:
        large = type_.removeprefix("DB_TYPE_") in _LARGE
        return Column(name=name, type=_AS_THEY_ARE[type_], expression=node, large=large)
    if type_ in _TEXTS:
        return Column(name=name, type=pa.string(), expression=_call(_TEXTS[type_], node))
    if type_ == "DB_TYPE_DATE":
        text = _call("TO_CHAR", node, _DATE)
        return Column(name=name, type=pa.timestamp("us"), expression=text, text=_DATE_CHARACTERS, bound="DATE")
    if type_ == "DB_TYPE_TIMESTAMP":
        text = _call("TO_CHAR", node, _TIME)
        return Column(name=name, type=pa.timestamp("us"), expression=text, text=_TIME_CHARACTERS, bound="TIMESTAMP")
    if type_ in ("DB_TYPE_TIMESTAMP_TZ", "DB_TYPE_TIMESTAMP_LTZ"):
        text = _call("TO_CHAR", _call("SYS_EXTRACT_UTC", node), _TIME)
        utc = pa.timestamp("us", tz="UTC")
        return Column(name=name, type=utc, expression=text, text=_TIME_CHARACTERS, bound="TIMESTAMP_TZ")
    raise SourceError(
        f"{where}: column '{name}' is of type {type_.removeprefix('DB_TYPE_')}, which the lake does not have\n"
        f"  leave it out with 'select', or read a 'query' that makes it a text{_HINTS.get(type_, '')}"
    )


_HINTS = {
    "DB_TYPE_JSON": ": JSON_SERIALIZE(column RETURNING CLOB)",
    "DB_TYPE_XMLTYPE": ": XMLSERIALIZE(DOCUMENT column AS CLOB)",
    "DB_TYPE_VECTOR": ": VECTOR_SERIALIZE(column RETURNING CLOB)",
    "DB_TYPE_OBJECT": ", such as its attributes one by one",
}


def bound_value(column: Column, value: Any, *, last: bool) -> object:
    """A cursor value as the driver takes it; of what is cut to microseconds, the first or last that was cut to it."""
    if not isinstance(value, dt.date):
        return value
    if not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time.max if last else dt.time.min)
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    if column.bound == "DATE":
        return value.isoformat(timespec="seconds")
    text = f"{value.isoformat(timespec='microseconds')}{'999' if last else '000'}"
    return f"{text}+00:00" if column.bound == "TIMESTAMP_TZ" else text


def bound_node(column: Column, node: exp.Expression) -> exp.Expression:
    """A cursor value in a statement, of the column's own type, so that an index on it serves."""
    match column.bound:
        case "DATE":
            return _call("TO_DATE", node, _DATE)
        case "TIMESTAMP":
            return _call("TO_TIMESTAMP", node, _TIME)
        case "TIMESTAMP_TZ":
            return _call("TO_TIMESTAMP_TZ", node, f"{_TIME}TZH:TZM")
    return node


def _call(function: str, *arguments: exp.Expression | str) -> exp.Expression:
    nodes = [exp.Literal.string(given) if isinstance(given, str) else given for given in arguments]
    return exp.Anonymous(this=function, expressions=nodes)
