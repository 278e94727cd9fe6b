"""Asks PostgreSQL which columns a table or a query has, and how large a table is."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp, select

from platform_core.errors import SourceError
from platform_core.sources.naming import identifier, known
from platform_core.sources.postgres_session import Session
from platform_core.sources.statement import check_query, written

DIALECT = "postgres"


@dataclass(frozen=True)
class Announced:
    """A column as the server announces it.

    Args:
        name: of the column.
        type: ``pg_type.typname``, domains resolved.
        modifier: ``pg_attribute.atttypmod``, of the elements of an array; -1: none.
        element: type of the elements of an array; None: it is none.
    """

    name: str
    type: str
    modifier: int
    element: str | None


def table_columns(session: Session, schema: str, name: str) -> list[Announced]:
    """The columns of a table or view, in its order; empty where there is none."""
    rows = session.fetch(_COLUMNS, schema, name)
    if any(is_domain for *_, is_domain in rows):
        rows = [(*row, False) for row in session.fetch(_COLUMNS_WITH_DOMAINS, schema, name)]
    return [Announced(column, type_, int(modifier), element) for column, type_, modifier, element, _ in rows]


def unknown_table(session: Session, schema: str, name: str, *, database: str, user: str) -> SourceError:
    """The error for a table that is not there, with what there is."""
    tables = [f"{found_schema}.{found}" for found_schema, found in session.fetch(_TABLES)]
    return SourceError(
        f"{session.where}: database '{database}' has no table or view '{schema}.{name}' "
        f"that '{user}' can see\n{known('tables', f'{schema}.{name}', tables)}"
    )


def query_columns(session: Session, query: str) -> list[Announced]:
    """The columns of a query, in its order; it is prepared and not run.

    Raises:
        SourceError: the query may not run, the server refuses it, or two of its columns have one name.
    """
    checked = check_query(query, dialect=DIALECT).subquery(identifier("edp_rows"), copy=False)
    schema = prepared_schema(session, written(select("*").from_(checked), dialect=DIALECT))
    if doubled := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise SourceError(
            f"{session.where}: the query has several columns named {', '.join(doubled)}\n  give each a name of its own"
        )
    announced = [_type_name(field) for field in schema]
    found = {
        key: (type_, element)
        for key, type_, element in session.fetch(_TYPES, ",".join(sorted({key for key, _ in announced})))
    }
    return [
        Announced(name, found[key][0], modifier, found[key][1])
        for name, (key, modifier) in zip(schema.names, announced, strict=True)
    ]


def prepared_schema(session: Session, statement: str) -> pa.Schema:
    """What the driver says of the columns of a statement that it prepares and does not run."""
    with session.asking(statement_is_ours=False):
        return session.cursor.adbc_execute_schema(statement)


def largest_part(session: Session, schema: str, name: str) -> int | None:
    """Pages of the largest of a table's own files: a table, its partitions, or its heirs.

    None where rows have no place that ranges could be made of: views, foreign tables, and servers before 14, which
    would read the whole table for every range.
    """
    (row,) = session.fetch(_PAGES, schema, name)
    return None if row[0] is None else int(row[0])


def limits(session: Session, source: exp.Expression, column: exp.Expression) -> tuple[str | None, str | None, bool]:
    """Smallest and largest value of a column, as text, and whether it is null anywhere."""
    text = exp.DataType.build("text", dialect=DIALECT)
    ends = [exp.Cast(this=kind(this=column.copy()), to=text.copy()) for kind in (exp.Min, exp.Max)]
    nulls = exp.Coalesce(
        this=exp.LogicalOr(this=exp.Is(this=column.copy(), expression=exp.Null())), expressions=[exp.false()]
    )
    ((low, high, nullable),) = session.fetch(written(select(*ends, nulls).from_(source), dialect=DIALECT))
    return low, high, bool(nullable)


def _type_name(field: pa.Field) -> tuple[str, int]:
    """How the driver names a field's type, and its modifier: by name, without a schema, or by number where the type
    is younger than the session."""
    told = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    name = told["POSTGRESQL:type"]
    return name.removeprefix("unnamed<oid:").removesuffix(">"), int(told.get("POSTGRESQL:typmod", -1))


# Most tables have no domains, and what resolves them takes the server twice as long.
_COLUMNS = """
SELECT a.attname::text, t.typname::text, a.atttypmod,
    CASE WHEN t.typcategory = 'A'
        THEN (SELECT e.typname::text FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) END,
    t.typtype = 'd'
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = (
    SELECT c.oid FROM pg_catalog.pg_class c
    WHERE c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1)
)
ORDER BY a.attnum
"""
_COLUMNS_WITH_DOMAINS = """
WITH RECURSIVE base(attnum, type, modifier) AS (
    SELECT a.attnum, a.atttypid, a.atttypmod
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attnum, t.typbasetype, t.typtypmod
    FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.type WHERE t.typtype = 'd'
)
SELECT a.attname::text, t.typname::text, b.modifier, e.typname::text
FROM base b
JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype <> 'd'
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' AND e.typarray = t.oid
JOIN pg_catalog.pg_attribute a ON a.attnum = b.attnum
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY b.attnum
"""
_TABLES = """
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%'
ORDER BY 1, 2 LIMIT 5000
"""
_TYPES = """
SELECT DISTINCT ON (k.key) k.key, t.typname::text, e.typname::text
FROM unnest(string_to_array($1, ',')) AS k(key)
JOIN pg_catalog.pg_type t ON CASE WHEN k.key ~ '^[0-9]+$' THEN t.oid::text = k.key ELSE t.typname = k.key END
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' AND e.typarray = t.oid
ORDER BY k.key, t.typnamespace <> 'pg_catalog'::regnamespace, t.typtype = 'c', t.oid
"""
_PAGES = """
WITH RECURSIVE parts(oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
    UNION ALL
    SELECT i.inhrelid FROM parts p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid
)
SELECT CASE WHEN bool_and(c.relkind IN ('r', 'p', 'm')) AND current_setting('server_version_num')::int >= 140000
    THEN max(pg_catalog.pg_relation_size(c.oid)) / current_setting('block_size')::bigint END
FROM parts JOIN pg_catalog.pg_class c ON c.oid = parts.oid
"""
