"""How each MySQL type reaches Arrow exactly, and what is refused because it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.sources.mysql_rows import Field
from platform_core.sources.naming import column as column_node
from platform_core.sources.types import UnfitError, convert

_TINY, _SHORT, _LONG, _FLOAT, _DOUBLE, _NO_TYPE, _TIMESTAMP, _LONGLONG, _INT24 = 1, 2, 3, 4, 5, 6, 7, 8, 9
_DATE, _TIME, _DATETIME, _YEAR, _NEWDATE, _BIT, _JSON, _GEOMETRY = 10, 11, 12, 13, 14, 16, 245, 255
_DECIMALS = {0, 246}
_TEXTS = {15, 249, 250, 251, 252, 253, 254}
_SIGNED = {_TINY: pa.int8(), _SHORT: pa.int16(), _INT24: pa.int32(), _LONG: pa.int32(), _LONGLONG: pa.int64()}
_UNSIGNED = {
    _TINY: pa.int16(),
    _SHORT: pa.int32(),
    _INT24: pa.int32(),
    _LONG: pa.int64(),
    _LONGLONG: pa.decimal128(20, 0),
}
_OTHERS = {
    _FLOAT: pa.float32(),
    _DOUBLE: pa.float64(),
    _NO_TYPE: pa.string(),
    _DATE: pa.date32(),
    _NEWDATE: pa.date32(),
    _DATETIME: pa.timestamp("us"),
    _TIMESTAMP: pa.timestamp("us", tz="UTC"),
    _TIME: pa.string(),
    _YEAR: pa.int16(),
    _JSON: pa.string(),
}
_DATED = {_DATE, _NEWDATE, _DATETIME, _TIMESTAMP}
_BYTES = 63
_NOT_NULL_FLAG, _UNSIGNED_FLAG = 0x01, 0x20
_ZERO_DATE = "^(0000-|.{4}-00|.{7}-00)"


@dataclass(frozen=True)
class Column:
    """One column: what is selected, and what becomes of it.

    Args:
        name: its name at the source.
        type: the Arrow type that readers see.
        nullable: whether it can hold null.
        dated: whether it can hold dates without a day, month or year.
        expression: what the SELECT asks for.
        ordered: what the server compares with a cursor value; None: it would order otherwise than the lake does.
        arrow: turns the values' texts, an array of bytes, into one of ``type``; raises UnfitError.
    """

    name: str
    type: pa.DataType
    nullable: bool
    dated: bool
    expression: exp.Expression
    ordered: exp.Expression | None
    arrow: Callable[[pa.Array], pa.Array]


def column_of(field: Field, *, declared: pa.DataType | None, zero_dates: str, where: str) -> Column:
    """How one column is read.

    Args:
        field: what the server says of it.
        declared: type declared in the object's options.
        zero_dates: ``refuse`` or ``null``: what becomes of dates without a day, month or year.
        where: table or query, for messages.

    Raises:
        SourceError: the type cannot be read exactly.
    """
    node = column_node(field.name)
    own = _own_type(field)
    if own is None and (declared is None or field.type == _GEOMETRY):
        raise _refused(field, where)
    type_ = own if declared is None else declared
    dated = field.type in _DATED
    # A DATETIME is kept as it was given; declared a time with zone, it stands for UTC.
    alike = own is not None and (own.equals(type_) or (pa.types.is_timestamp(own) and pa.types.is_timestamp(type_)))
    return Column(
        name=field.name,
        type=type_,
        nullable=not field.flags & _NOT_NULL_FLAG,
        dated=dated,
        expression=_expression(field, node),
        ordered=_ordered(field, node) if alike else None,
        arrow=lambda texts: _exactly(texts, type_, dated=dated, zero_dates=zero_dates),
    )


def _own_type(field: Field) -> pa.DataType | None:
    unsigned = bool(field.flags & _UNSIGNED_FLAG)
    if (field.type == _TINY and field.length == 1 and not unsigned) or (field.type == _BIT and field.length == 1):
        return pa.bool_()
    if field.type == _BIT:
        return pa.int64() if field.length < 64 else pa.decimal128(20, 0)
    if field.type in _SIGNED:
        return (_UNSIGNED if unsigned else _SIGNED)[field.type]
    if field.type in _DECIMALS:
        digits = field.length - (field.scale > 0) - (not unsigned)
        return pa.decimal128(digits, field.scale) if digits <= 38 else None
    if field.type in _TEXTS:
        return pa.binary() if field.charset == _BYTES else pa.string()
    return _OTHERS.get(field.type)


def _refused(field: Field, where: str) -> SourceError:
    if field.type in _DECIMALS:
        return SourceError(
            f"{where}: column '{field.name}' is a decimal of more than the 38 digits that the lake's decimals have\n"
            f"  name its type under the table's options: columns: {{{field.name}: text}}, "
            "or a decimal that its values fit"
        )
    if field.type == _GEOMETRY:
        return SourceError(
            f"{where}: column '{field.name}' is of a spatial type, which the lake does not have\n"
            "  leave it out with 'select', or read a 'query' in which ST_AsText() or ST_AsGeoJSON() makes it a text"
        )
    return SourceError(
        f"{where}: column '{field.name}' is of a type (number {field.type} in the protocol) that is not known here\n"
        f"  name its type under the table's options: columns: {{{field.name}: text}}, or leave it out with 'select'"
    )


def _expression(field: Field, node: exp.Expression) -> exp.Expression:
    """The column as it must be asked for, so that its text holds all of its value."""
    if field.type == _FLOAT:
        # Written as itself it has six digits; as a double it has all, and a product keeps the sign of zero.
        return exp.Mul(this=node, expression=exp.Literal.number("1e0"))
    if field.type == _BIT:
        return exp.Add(this=node, expression=exp.Literal.number(0))
    return node


def _ordered(field: Field, node: exp.Expression) -> exp.Expression | None:
    if field.type in _TEXTS and field.charset != _BYTES:
        # By code point, as the lake does, and not by a collation, which may ignore case, accents and final blanks.
        text = exp.cast(node, exp.DataType(this=exp.DataType.Type.CHARACTER_SET, kind=exp.Var(this="utf8mb4")))
        return exp.cast(text, exp.DataType(this=exp.DataType.Type.BINARY))
    if field.type in (_TIME, _JSON, _BIT, _NO_TYPE) or field.type in _TEXTS:
        return None
    return node


def _exactly(texts: pa.Array, type_: pa.DataType, *, dated: bool, zero_dates: str) -> pa.Array:
    if pa.types.is_binary(type_):
        return texts
    values = convert(texts, pa.string())
    if not dated or pa.types.is_string(type_):
        return convert(values, type_)
    values = _without_zero_dates(values, refuse=zero_dates == "refuse")
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        # The session's zone is UTC, and so are these without saying it.
        return pc.assume_timezone(convert(values, pa.timestamp("us")), "UTC")
    return convert(values, type_)


def _without_zero_dates(values: pa.Array, *, refuse: bool) -> pa.Array:
    zero = pc.match_substring_regex(values, _ZERO_DATE)
    if not (count := pc.sum(zero).as_py()):
        return values
    if refuse:
        raise UnfitError(count)
    return pc.if_else(zero, pa.scalar(None, pa.string()), values)
