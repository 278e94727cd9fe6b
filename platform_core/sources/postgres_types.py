"""How each PostgreSQL type reaches Arrow exactly, and what is refused because it cannot."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.sources.naming import column as column_node
from platform_core.sources.postgres_catalog import Announced
from platform_core.sources.types import UNBOUNDED_DECIMAL, convert, refuse_other_years

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
_SPLITS = {"int2", "int4", "int8", "numeric", "date", "timestamp", "timestamptz"}
_TEXTS = {"text", "varchar", "bpchar"}


@dataclass(frozen=True)
class Column:
    """One column: what is selected, and what becomes of it.

    Args:
        name: its name at the source.
        source_type: PostgreSQL's name of its type, domains resolved.
        type: the Arrow type that readers see.
        expression: what the SELECT asks for.
        arrow: turns the driver's array into one of ``type``; raises UnfitError.
        flattened: is true where the driver would flatten an array without a word; None: it never does.
        scaled: whether the server makes whole numbers of its decimals, which fails for NaN without naming the column.
    """

    name: str
    source_type: str
    type: pa.DataType
    expression: exp.Expression
    arrow: Callable[[pa.Array], pa.Array]
    flattened: exp.Expression | None = None
    scaled: bool = False

    @property
    def ordered(self) -> exp.Expression:
        """The column as the lake orders it: texts by code point."""
        node = column_node(self.name)
        if self.source_type in _TEXTS:
            return exp.Collate(this=node, expression=exp.Identifier(this="C", quoted=True))
        return node

    @property
    def splits(self) -> bool:
        """Whether ranges of its values can be shared out."""
        return self.source_type in _SPLITS


def sql_type(column: Column) -> str | None:
    """The SQL type to which a cursor value is cast; None for a column that cannot be a cursor."""
    if column.source_type in _TEXTS:
        return "text"
    return column.source_type if column.source_type in _CURSORS else None


def split_value(column: Column, text: str) -> Any:
    """A smallest or largest value, from the server's text; None where ranges cannot be made of it (infinity, NaN)."""
    try:
        if column.source_type == "numeric":
            value = Decimal(text)
            return value if value.is_finite() else None
        if column.source_type.startswith("int"):
            return int(text)
        return (dt.date if column.source_type == "date" else dt.datetime).fromisoformat(text)
    except ValueError:
        return None


def column_of(announced: Announced, *, declared: pa.DataType | None, where: str) -> Column:
    """How one column is read.

    Args:
        announced: what the server says of it.
        declared: type declared in the object's options.
        where: table, for messages.

    Raises:
        SourceError: the type cannot be read exactly.
    """
    name, source_type = announced.name, announced.type
    node = column_node(name)
    if declared is not None:
        # JSON keeps the shape of an array.
        text = _cast(_json(node) if announced.element else node, "text")
        asked = node if pa.types.is_binary(declared) else text
        return Column(name, source_type, declared, asked, _converter(declared))
    if announced.element is not None:
        return _array(announced, where)
    if source_type in _NATIVE:
        return Column(name, source_type, _NATIVE[source_type], node, _converter(_NATIVE[source_type]))
    if source_type == "numeric":
        return _numeric(announced, where)
    if source_type == "oid":
        return Column(name, source_type, pa.int64(), _cast(node, "bigint"), _converter(pa.int64()))
    if source_type == "money":
        return Column(name, source_type, UNBOUNDED_DECIMAL, _cast(node, "numeric"), _converter(UNBOUNDED_DECIMAL))
    return Column(name, source_type, pa.string(), _cast(node, "text"), _converter(pa.string()))


def _array(announced: Announced, where: str) -> Column:
    """A list of what the elements are in the lake; the number of dimensions is no part of PostgreSQL's type."""
    node = column_node(announced.name)
    element, asked = _NATIVE.get(announced.element or ""), node
    if announced.element == "numeric":
        element = _decimal(announced, where)
    elif element is None:
        element = pa.string()
        asked = exp.Cast(this=node.copy(), to=exp.DataType.build("text[]", dialect="postgres"))
    dimensions = exp.Anonymous(this="array_ndims", expressions=[node.copy()])
    flattened = exp.GT(this=dimensions, expression=exp.Literal.number(1))
    type_ = pa.list_(element)
    return Column(announced.name, announced.type, type_, asked, _converter(type_), flattened=flattened)


def _decimal(announced: Announced, where: str) -> pa.DataType:
    if announced.modifier < 0:
        return UNBOUNDED_DECIMAL
    precision = (announced.modifier - 4) >> 16 & 0xFFFF
    scale = ((announced.modifier - 4) & 0x7FF ^ 1024) - 1024
    # numeric(3,-2) holds 99,900 and numeric(2,4) holds 0.0099: what counts is digits before and after the point.
    digits, kept = max(precision, scale, precision - scale), max(scale, 0)
    if digits > 38:
        raise SourceError(
            f"{where}: column '{announced.name}' is numeric({precision},{scale}), and the lake's decimals have 38 "
            "digits\n  name its type under the table's options: "
            f"columns: {{{announced.name}: text}}, or a decimal that its values fit"
        )
    return pa.decimal128(digits, kept)


def _numeric(announced: Announced, where: str) -> Column:
    name, node = announced.name, column_node(announced.name)
    type_ = _decimal(announced, where)
    if type_.precision > 18:
        return Column(name, "numeric", type_, node, _converter(type_))
    # Half as fast again as the driver's own way, which writes every number as text and reads it back.
    scale = type_.scale
    shifted = exp.Mul(this=node, expression=exp.Literal.number(10**scale)) if scale else node
    return Column(name, "numeric", type_, _cast(shifted, "bigint"), lambda values: _scaled(values, type_), scaled=True)


def _cast(node: exp.Expression, type_: str) -> exp.Expression:
    return exp.cast(exp.Paren(this=node) if isinstance(node, exp.Binary) else node, type_, dialect="postgres")


def _json(node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="to_json", expressions=[node])


def _scaled(values: pa.Array, type_: pa.DataType) -> pa.Array:
    """Whole numbers of the last decimal place, as decimals."""
    low = np.frombuffer(values.buffers()[1], dtype=np.int64, count=values.offset + len(values))
    words = np.empty((len(low), 2), dtype=np.int64)
    words[:, 0] = low
    np.right_shift(low, 63, out=words[:, 1])
    buffers = [values.buffers()[0], pa.py_buffer(words)]
    return pa.Array.from_buffers(type_, len(values), buffers, offset=values.offset)


def _converter(type_: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    return lambda values: _exactly(values, type_)


def _exactly(values: pa.Array, type_: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_list(type_) and pa.types.is_list(values.type):
        # The elements under nulls are left out, so that what is refused is there.
        items = _exactly(values.flatten(), type_.value_type)
        sizes = pc.fill_null(pc.list_value_length(values), 0)
        ends = pc.cumulative_sum(sizes)
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
        mask = values.is_null() if values.null_count else None
        return pa.ListArray.from_arrays(offsets, items, type=type_, mask=mask)
    # The driver adds PostgreSQL's epoch without a check: 'infinity' and years beyond 294,246 come out before year 1.
    refuse_other_years(values)
    return convert(values, type_)
