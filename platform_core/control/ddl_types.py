"""Which type the lake keeps for a type that is written in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp

from platform_core.control.ddl_parsing import SqlFault

if TYPE_CHECKING:
    import pyarrow as pa

KNOWN = (
    "BOOLEAN, TINYINT, SMALLINT, INTEGER, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), VARCHAR, BLOB, DATE, "
    "TIMESTAMP (without zone), TIMESTAMPTZ (UTC), <type>[], STRUCT(name type, …), MAP(type, type)"
)

_INSTEAD = {
    "UTINYINT": "SMALLINT",
    "USMALLINT": "INTEGER",
    "UINT": "BIGINT",
    "UBIGINT": "DECIMAL(20, 0)",
    "INT128": "DECIMAL(38, 0)",
    "TIME": "VARCHAR",
    "UUID": "VARCHAR",
    "JSON": "VARCHAR",
    "INTERVAL": "BIGINT, in microseconds",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "CHAR": "VARCHAR",
}
_MOST_DIGITS = 38


def lake_type_of(type_: exp.DataType) -> pa.DataType:
    """The Arrow type in which the lake keeps values of a SQL type (DuckDB's words).

    Raises:
        SqlFault: the lake has no such type.
    """
    import pyarrow as pa

    plain = {
        "BOOLEAN": pa.bool_(),
        "TINYINT": pa.int8(),
        "SMALLINT": pa.int16(),
        "INT": pa.int32(),
        "BIGINT": pa.int64(),
        "FLOAT": pa.float32(),
        "DOUBLE": pa.float64(),
        "TEXT": pa.string(),
        "VARCHAR": pa.string(),
        "VARBINARY": pa.binary(),
        "BLOB": pa.binary(),
        "DATE": pa.date32(),
        "DATE32": pa.date32(),
        "TIMESTAMP": pa.timestamp("us"),
        "TIMESTAMPNTZ": pa.timestamp("us"),
        "TIMESTAMPTZ": pa.timestamp("us", "UTC"),
    }
    kind = type_.this.value if hasattr(type_.this, "value") else str(type_.this)
    inner = type_.expressions
    if kind in plain:
        if inner:
            raise SqlFault(f"type {_written(type_)}: the lake keeps no lengths", f"write {_written_kind(kind)}")
        return plain[kind]
    if kind == "DECIMAL":
        return _decimal(type_)
    if kind in ("ARRAY", "LIST") and len(inner) == 1 and isinstance(inner[0], exp.DataType):
        if type_.args.get("values"):
            raise SqlFault(f"type {_written(type_)}: the lake keeps no lengths", "write <type>[]")
        return pa.list_(pa.field("element", lake_type_of(inner[0])))
    if kind == "MAP" and len(inner) == 2:
        return pa.map_(lake_type_of(inner[0]), lake_type_of(inner[1]))
    if kind == "STRUCT" and inner and all(isinstance(each, exp.ColumnDef) and each.args.get("kind") for each in inner):
        return pa.struct([(each.name, lake_type_of(each.args["kind"])) for each in inner])
    instead = _INSTEAD.get(kind)
    raise SqlFault(f"the lake has no type {_written(type_)}", f"write {instead}" if instead else f"types: {KNOWN}")


def _decimal(type_: exp.DataType) -> pa.DataType:
    import pyarrow as pa

    given = [part.name for part in type_.expressions]
    if len(given) != 2 or not all(each.isdigit() for each in given):
        raise SqlFault(
            f"type {_written(type_)} needs its digits", "write DECIMAL(<digits>, <of them behind the point>)"
        )
    precision, scale = map(int, given)
    if not 1 <= precision <= _MOST_DIGITS or scale > precision:
        raise SqlFault(
            f"type {_written(type_)}: at most {_MOST_DIGITS} digits, and no more behind the point than in all"
        )
    return pa.decimal128(precision, scale)


def _written(type_: exp.DataType) -> str:
    return str(type_.sql(dialect="duckdb"))


def _written_kind(kind: str) -> str:
    return "VARCHAR" if kind in ("TEXT", "VARCHAR") else kind
