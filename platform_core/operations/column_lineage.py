"""Which columns of its inputs each column of a query's result is made from, read from the SQL alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from platform_core.specs.sql import DIALECT

if TYPE_CHECKING:
    from sqlglot import exp

Origin = tuple[tuple[str, str, str], str]
"""A column of a table: the three parts of the table's name, and the column."""


def column_lineage(
    sql: str, *, schemas: Mapping[tuple[str, str, str], tuple[str, ...]], dialect: str = DIALECT
) -> dict[str, tuple[Origin, ...]]:
    """Origins by result column, in the order of the result; empty where the query cannot be followed.

    Lineage is a help, not a promise: a query that runs but that sqlglot cannot resolve has none.

    Args:
        sql: one SELECT that runs.
        schemas: columns by table name.
        dialect: that the SELECT is written in.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope
    from sqlglot.schema import MappingSchema

    schema = MappingSchema(dialect=DIALECT)
    for table, columns in schemas.items():
        # Types are not asked for here; DuckDB has checked them.
        schema.add_table(_table(table), dict.fromkeys(columns, "UNKNOWN"), dialect=DIALECT, normalize=False)
    try:
        query = qualify(
            sqlglot.parse_one(sql, dialect=dialect),
            schema=schema,
            dialect=DIALECT,
            validate_qualify_columns=False,
            identify=True,
        )
        scope = build_scope(query)
        result = {}
        for column in query.named_selects:
            node = lineage(column, query, schema=schema, scope=scope, dialect=DIALECT, copy=False)
            leaves = (leaf for leaf in node.walk() if not leaf.downstream and isinstance(leaf.expression, exp.Table))
            result[column] = tuple(sorted({_origin(leaf.expression, leaf.name) for leaf in leaves}))
    # The query has run: whatever sqlglot cannot follow must not fail its step.
    except Exception:  # noqa: BLE001
        return {}
    return result


def _table(parts: tuple[str, str, str]) -> exp.Table:
    from sqlglot import exp

    catalog, db, name = parts
    return exp.table_(name, db=db, catalog=catalog, quoted=True)


def _origin(table: exp.Table, column: str) -> Origin:
    return (table.catalog, table.db, table.name), column.rsplit(".", 1)[-1].strip('"')
