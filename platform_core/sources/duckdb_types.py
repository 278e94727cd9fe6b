"""How each DuckDB type reaches Arrow exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.sources.naming import column as column_node
from platform_core.sources.naming import identifier
from platform_core.sources.types import convert, refuse_other_years

DIALECT = "duckdb"

_AS_THEY_ARE = {
    "bigint",
    "blob",
    "boolean",
    "date",
    "decimal",
    "double",
    "float",
    "integer",
    "null",
    "smallint",
    "timestamp",
    "timestamp with time zone",
    "timestamp_ms",
    "timestamp_ns",
    "timestamp_s",
    "tinyint",
    "ubigint",
    "uinteger",
    "usmallint",
    "utinyint",
}
_NESTED = {"list", "array", "struct", "map"}
# 38 digits are what the lake's decimals have; the few numbers beyond are refused by the cast.
_WIDE = {"hugeint", "uhugeint"}


@dataclass(frozen=True)
class Column:
    """One column: what is selected, and of which type it then is.

    Args:
        name: its name at the source.
        expression: what the SELECT asks for.
        type: the Arrow type that readers see; None until DuckDB has told what it hands out.
        text: whether it holds texts, which the lake orders by code point.
    """

    name: str
    expression: exp.Expression
    type: pa.DataType | None
    text: bool

    @property
    def ordered(self) -> exp.Expression:
        """The column as the lake orders it; a column may have a collation of its own."""
        return _encoded(column_node(self.name)) if self.text else column_node(self.name)

    def bound(self, value: exp.Expression) -> exp.Expression:
        """A value that :attr:`ordered` is compared with."""
        return _encoded(exp.cast(value, "text", dialect=DIALECT)) if self.text else value


def column_of(name: str, type_: Any, *, declared: pa.DataType | None) -> Column:
    """How one column is read.

    Args:
        name: its name.
        type_: a ``DuckDBPyType``.
        declared: type declared in the object's options.
    """
    node = column_node(name)
    text = type_.id == "varchar"
    if declared is not None:
        as_text = exp.Anonymous(this="to_json", expressions=[node]) if type_.id in _NESTED else node
        expression = node if pa.types.is_binary(declared) else exp.cast(as_text, "text", dialect=DIALECT)
        return Column(name, expression, declared, text)
    wanted = _readable(type_)
    return Column(name, node if wanted is None else exp.Cast(this=node, to=wanted), None, text)


def arrow_type(type_: pa.DataType) -> pa.DataType:
    """The type in which values of a type that DuckDB hands out are read: times to the microsecond, in UTC."""
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", "UTC" if type_.tz else None)
    if pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(arrow_type(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, arrow_type(field.type)) for field in type_])
    if pa.types.is_map(type_):
        return pa.map_(arrow_type(type_.key_type), arrow_type(type_.item_type))
    if isinstance(type_, pa.BaseExtensionType):
        return arrow_type(type_.storage_type)
    return type_


def exactly(values: pa.Array, type_: pa.DataType) -> pa.Array:
    """The same values in another type.

    Raises:
        UnfitError: a value would be changed, such as a time with nanoseconds.
    """
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    refuse_other_years(values)
    return convert(values, type_)


def _encoded(node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="encode", expressions=[node])


def _readable(type_: Any) -> exp.DataType | None:
    """The type to which a value is cast before it is read; None: it is read as it is."""
    if type_.id in _AS_THEY_ARE or (type_.id == "varchar" and str(type_) == "VARCHAR"):
        return None
    if type_.id in _NESTED and all(_readable(child) is None for child in _children(type_).values()):
        return None
    return _target(type_)


def _target(type_: Any) -> exp.DataType:
    kinds = exp.DataType.Type
    if type_.id in _AS_THEY_ARE:
        return exp.DataType.build(str(type_), dialect=DIALECT)
    if type_.id in _WIDE:
        return exp.DataType.build("DECIMAL(38, 0)", dialect=DIALECT)
    if type_.id not in _NESTED:
        return exp.DataType.build("VARCHAR", dialect=DIALECT)
    children = {name: _target(child) for name, child in _children(type_).items()}
    if type_.id == "struct":
        fields = [exp.ColumnDef(this=identifier(name), kind=kind) for name, kind in children.items()]
        return exp.DataType(this=kinds.STRUCT, expressions=fields, nested=True)
    kind = kinds.MAP if type_.id == "map" else kinds.ARRAY
    return exp.DataType(this=kind, expressions=[*children.values()], nested=True)


def _children(type_: Any) -> dict[str, Any]:
    """The types within a nested one; beside that of its values an array has its length."""
    return {name: child for name, child in type_.children if not isinstance(child, int)}
