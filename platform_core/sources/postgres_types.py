"""How each PostgreSQL type reaches Arrow exactly, and what is refused because it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.sources.naming import column as column_node
from platform_core.sources.types import UNBOUNDED_DECIMAL, UnfitError, convert

_NATIVE = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}
_CURSORS = {"int2", "int4", "int8", "float4", "float8", "numeric", "date", "timestamp", "timestamptz"}
_TEXTS = {"text", "varchar", "bpchar"}
# 4714-11-24 BC, the first day PostgreSQL knows. The driver adds the epoch without a check, so that 'infinity' and
# times beyond the year 294,246 come out before it.
_FIRST_DAY = -2_440_588
_FIRST_MICROSECOND = _FIRST_DAY * 86_400_000_000


@dataclass(frozen=True)
class Column:
    """One column: what is selected, and what becomes of it.

    Args:
        name: its name at the source.
        source_type: PostgreSQL's name of its type, domains resolved.
        type: the Arrow type that readers see.
        expression: what the SELECT asks for.
        arrow: turns the driver's array into one of ``type``; raises UnfitError.
    """

    name: str
    source_type: str
    type: pa.DataType
    expression: exp.Expression
    arrow: Callable[[pa.Array], pa.Array]

    @property
    def ordered(self) -> exp.Expression:
        """The column as the lake orders it: texts by code point."""
        node = column_node(self.name)
        if self.source_type in _TEXTS:
            return exp.Collate(this=node, expression=exp.Identifier(this="C", quoted=True))
        return node


def sql_type(column: Column) -> str | None:
    """The SQL type to which a cursor value is cast; None for a column that cannot be a cursor."""
    if column.source_type in _TEXTS:
        return "text"
    return column.source_type if column.source_type in _CURSORS else None


def column_of(
    name: str, source_type: str, *, modifier: int, category: str, declared: pa.DataType | None, where: str
) -> Column:
    """How one column is read.

    Args:
        name: its name.
        source_type: ``pg_type.typname``, domains resolved.
        modifier: ``pg_attribute.atttypmod``; -1: none.
        category: ``pg_type.typcategory``; ``A``: an array.
        declared: type declared in the object's options.
        where: table, for messages.

    Raises:
        SourceError: the type cannot be read exactly.
    """
    node = column_node(name)
    if declared is not None:
        text = _cast(_json(node) if category == "A" else node, "text")
        if pa.types.is_binary(declared):
            return Column(name, source_type, declared, node, _converter(declared))
        return Column(name, source_type, declared, text, _converter(declared))
    if source_type in _NATIVE:
        return Column(name, source_type, _NATIVE[source_type], node, _converter(_NATIVE[source_type]))
    if source_type == "numeric":
        return _numeric(name, modifier, where)
    if source_type == "oid":
        return Column(name, source_type, pa.int64(), _cast(node, "bigint"), _converter(pa.int64()))
    if source_type == "money":
        return Column(name, source_type, UNBOUNDED_DECIMAL, _cast(node, "numeric"), _converter(UNBOUNDED_DECIMAL))
    # The driver flattens arrays of more than one dimension without a word; JSON keeps their shape.
    text = _cast(_json(node) if category == "A" else node, "text")
    return Column(name, source_type, pa.string(), text, _converter(pa.string()))


def _numeric(name: str, modifier: int, where: str) -> Column:
    node = column_node(name)
    if modifier < 0:
        return Column(name, "numeric", UNBOUNDED_DECIMAL, node, _converter(UNBOUNDED_DECIMAL))
    precision = (modifier - 4) >> 16 & 0xFFFF
    scale = ((modifier - 4) & 0x7FF ^ 1024) - 1024
    # numeric(3,-2) holds 99,900 and numeric(2,4) holds 0.0099: what counts is digits before and after the point.
    digits, scale = max(precision, scale, precision - scale), max(scale, 0)
    if digits > 38:
        raise SourceError(
            f"{where}: column '{name}' is numeric({precision},{scale}), and the lake's decimals have 38 digits\n"
            f"  name its type under the table's options: columns: {{{name}: text}}, or a decimal that its values fit"
        )
    type_ = pa.decimal128(digits, scale)
    if digits > 18:
        return Column(name, "numeric", type_, node, _converter(type_))
    # Half as fast again as the driver's own way, which writes every number as text and reads it back.
    shifted = exp.Mul(this=node, expression=exp.Literal.number(10**scale)) if scale else node
    return Column(name, "numeric", type_, _cast(shifted, "bigint"), lambda values: _scaled(values, type_))


def _cast(node: exp.Expression, type_: str) -> exp.Expression:
    return exp.cast(exp.Paren(this=node) if isinstance(node, exp.Binary) else node, type_, dialect="postgres")


def _json(node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="to_json", expressions=[node])


def _scaled(values: pa.Array, type_: pa.DataType) -> pa.Array:
    """Whole numbers of the last decimal place, as decimals."""
    low = np.frombuffer(values.buffers()[1], dtype=np.int64, count=values.offset + len(values))
    words = np.empty((len(low), 2), dtype=np.int64)
    words[:, 0] = low
    words[:, 1] = low >> 63
    buffers = [values.buffers()[0], pa.py_buffer(words)]
    return pa.Array.from_buffers(type_, len(values), buffers, offset=values.offset)


def _converter(type_: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    return lambda values: _exactly(values, type_)


def _exactly(values: pa.Array, type_: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_date(type_) and pa.types.is_date(values.type):
        _refuse_before(values.cast(pa.int32()), _FIRST_DAY)
    if pa.types.is_timestamp(type_) and pa.types.is_timestamp(values.type):
        _refuse_before(values.cast(pa.int64()), _FIRST_MICROSECOND)
    return convert(values, type_)


def _refuse_before(values: pa.Array, first: int) -> None:
    lowest = pc.min(values).as_py()
    if lowest is not None and lowest < first:
        raise UnfitError(pc.sum(pc.less(values, first)).as_py())
