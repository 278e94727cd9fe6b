"""Streams PostgreSQL tables and views as Arrow, by ADBC's binary COPY, each read in one snapshot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field
from sqlglot import exp, select

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret, Source
from platform_core.sources.naming import check_columns, known, split_object, table
from platform_core.sources.postgres_types import Column, column_of, sql_type
from platform_core.sources.streaming import Batches, Stream, Streams, shaped, since_scalar
from platform_core.sources.types import TypedOptions, UnfitError, parse_type, type_name, unfit
from platform_core.specs.base import Model, SecretRef

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection as DriverConnection
    from adbc_driver_manager.dbapi import Cursor as DriverCursor

BATCH_BYTES = 8 * 1024 * 1024
"""About how many bytes the driver gathers before it hands out a batch."""

_SINCE = "edp.since"
_SESSION = {"TimeZone": "UTC", "DateStyle": "ISO", "IntervalStyle": "iso_8601", "extra_float_digits": "1"}
_STATE = re.compile(r"SQLSTATE: ([0-9A-Z]{5})")


class PostgresOptions(Model):
    """How a PostgreSQL database is reached."""

    host: str
    port: int = Field(default=5432, ge=1, le=65535)
    database: str
    user: str
    password: SecretRef | None = Field(default=None, description="Written as {secret: <workstream>/<name>}.")
    default_schema: str = Field(default="public", alias="schema", description="Schema of objects written without one.")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str | None = Field(default=None, description="File of the certificates that sslmode verify-* trusts.")
    connect_timeout: int = Field(default=10, ge=2, description="Seconds to wait for the connection.")


@dataclass(frozen=True)
class _Table:
    schema: str
    name: str
    columns: tuple[Column, ...]


class PostgresSource(Source):
    """Tables and views of one PostgreSQL database."""

    Options = PostgresOptions
    ObjectOptions = TypedOptions
    kind = "postgresql"

    def __init__(self, options: PostgresOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns with the types in which they are read."""
        with self._transaction(request) as (_, cursor):
            return _schema(_chosen(self._table(cursor, request), request))

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows as of one moment (repeatable read, read only)."""
        where = _where(request)
        with ExitStack() as opening:
            connection, cursor = opening.enter_context(self._transaction(request))
            found = self._table(cursor, request)
            columns = _chosen(found, request)
            statement = _statement(cursor, found, columns, request)
            with _errors(where):
                cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
                cursor.execute(statement)
                reader = cursor.fetch_record_batch()
            schema = _schema(columns)
            stream = Stream(
                shaped(_rows(reader, columns, where), schema=schema, batch_rows=request.batch_rows),
                resources=opening.pop_all(),
                where=where,
                interrupt=connection.adbc_cancel,
            )
        return self._streams.reader(schema, stream)

    def close(self) -> None:
        """Close the connections of unfinished reads."""
        self._streams.close()

    @contextmanager
    def _transaction(self, request: ReadRequest) -> Iterator[tuple[DriverConnection, DriverCursor]]:
        dbapi = _driver()
        options: PostgresOptions = self.options
        where = _where(request)
        password = self.secret(options.password.secret).reveal().decode() if options.password else None
        try:
            connection = dbapi.connect(_connection_text(options, password))
        except dbapi.Error as error:
            told = str(error).partition("Failed to connect:")[2].split("\n")[0].strip() or type(error).__name__
            if password:
                told = told.replace(password, "***")
            raise SourceError(
                f"{where}: cannot connect to database '{options.database}' at {options.host}:{options.port} "
                f"as '{options.user}'\n  the server or driver says: {told}\n"
                "  check host, port, database, user, password and sslmode of the connection"
            ) from None
        # The cursor is closed before its connection: the other way round the driver refuses.
        with closing(connection), closing(connection.cursor()) as cursor:
            with _errors(where):
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                for name, value in _SESSION.items():
                    _fetch(cursor, "SELECT set_config($1, $2, true)", name, value)
            yield connection, cursor

    def _table(self, cursor: DriverCursor, request: ReadRequest) -> _Table:
        where = _where(request)
        given, name = split_object(request.object, where="postgres")
        schema = given or self.options.default_schema
        with _errors(where):
            rows = _fetch(cursor, _COLUMNS, schema, name)
        if not rows:
            with _errors(where):
                tables = [f"{found_schema}.{found}" for found_schema, found in _fetch(cursor, _TABLES)]
            raise SourceError(
                f"{where}: database '{self.options.database}' has no table or view '{schema}.{name}' "
                f"that '{self.options.user}' can see\n{known('tables', f'{schema}.{name}', tables)}"
            )
        options = request.options if isinstance(request.options, TypedOptions) else TypedOptions()
        names = [str(row[0]) for row in rows]
        wanted = names if request.columns is None else request.columns
        check_columns([*wanted, *options.columns, *filter(None, [request.cursor])], names, where=where)
        needed = {*wanted, *filter(None, [request.cursor])}
        columns = tuple(
            column_of(
                column_name,
                type_,
                modifier=int(modifier),
                category=category,
                declared=parse_type(options.columns[column_name]) if column_name in options.columns else None,
                where=where,
            )
            for column_name, type_, modifier, category in rows
            if column_name in needed
        )
        return _Table(schema, name, columns)


def _driver() -> ModuleType:
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise PluginError(
            f"source 'postgres' needs the package adbc-driver-postgresql, which cannot be imported ({error.name})\n"
            "  install it: pip install 'edp-platform-core[postgres]'"
        ) from None
    module: ModuleType = dbapi
    return module


def _connection_text(options: PostgresOptions, password: str | None) -> str:
    """libpq's keyword form; it exists in memory only."""
    given = {
        "host": options.host,
        "port": str(options.port),
        "dbname": options.database,
        "user": options.user,
        "password": password,
        "sslmode": options.sslmode,
        "sslrootcert": options.sslrootcert,
        "connect_timeout": str(options.connect_timeout),
        "application_name": "edp",
    }
    return " ".join(
        "{}='{}'".format(name, value.replace("\\", "\\\\").replace("'", "\\'"))
        for name, value in given.items()
        if value is not None
    )


_COLUMNS = """
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
SELECT a.attname::text, t.typname::text, b.modifier, t.typcategory::text
FROM base b
JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype <> 'd'
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


def _where(request: ReadRequest) -> str:
    return f"postgres table '{request.object}'"


def _fetch(cursor: DriverCursor, statement: str, *parameters: str) -> list[tuple[Any, ...]]:
    cursor.execute(statement, parameters or None)
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _chosen(found: _Table, request: ReadRequest) -> tuple[Column, ...]:
    if request.columns is None:
        return found.columns
    by_name = {column.name: column for column in found.columns}
    return tuple(by_name[name] for name in request.columns)


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def _statement(cursor: DriverCursor, found: _Table, columns: tuple[Column, ...], request: ReadRequest) -> str:
    """The SELECT.

    COPY takes no parameters, and without COPY the driver holds the whole result in memory. So `since` goes to the
    server as the parameter of a setting that lives for this transaction, and the SELECT reads it from there.
    """
    query = select(*(exp.alias_(column.expression, column.name, quoted=True) for column in columns))
    query = query.from_(table(found.schema, found.name))
    if request.since is not None:
        if request.cursor is None:
            raise ValueError("since needs cursor")
        where = _where(request)
        cursor_column = next(column for column in found.columns if column.name == request.cursor)
        since = since_scalar(request, cursor_column.type, where=where)
        type_text = sql_type(cursor_column)
        if type_text is None or since is None:
            raise SourceError(
                f"{where}: column '{request.cursor}' of type {type_name(cursor_column.type)} cannot be a cursor\n"
                "  a cursor is a number, a text, a date or a time"
            )
        value = since.as_py()
        with _errors(where):
            text = value.isoformat() if hasattr(value, "isoformat") else str(value)
            _fetch(cursor, "SELECT set_config($1, $2, true)", _SINCE, text)
        setting = exp.Anonymous(this="current_setting", expressions=[exp.Literal.string(_SINCE)])
        bound = exp.cast(setting, type_text, dialect="postgres")
        query = query.where(exp.GTE(this=cursor_column.ordered, expression=bound))
    return str(query.sql(dialect="postgres"))


def _rows(reader: pa.RecordBatchReader, columns: tuple[Column, ...], where: str) -> Batches:
    schema = _schema(columns)
    read = 0
    while True:
        with _errors(where):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        arrays = []
        for index, column in enumerate(columns):
            try:
                arrays.append(column.arrow(batch.column(index)))
            except UnfitError as error:
                rows = (read + 1, read + batch.num_rows)
                raise unfit(where, column=column.name, type_=column.type, count=error.count, rows=rows) from None
        yield pa.record_batch(arrays, schema=schema)
        read += batch.num_rows


@contextmanager
def _errors(where: str) -> Iterator[None]:
    """The driver's errors by class and SQLSTATE only: their texts hold the statement, and may hold row values."""
    import adbc_driver_manager

    try:
        yield
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        found = getattr(error, "sqlstate", None) or "".join(_STATE.findall(str(error))[:1])
        meaning = _MEANINGS.get(found) or _MEANINGS.get(found[:2]) or _streaming_fault(str(error))
        raise SourceError(
            f"{where}: the read failed: {meaning} ({type(error).__name__}{', SQLSTATE ' + found if found else ''})\n"
            "  the server's log has the full message"
        ) from None


def _streaming_fault(text: str) -> str:
    """What went wrong while rows came in: then the driver passes on the server's words without SQLSTATE.

    Of those words only ones pass that are the same for every row.
    """
    if "ERROR:" not in text:
        return "the connection broke, or the server went away"
    told = next((words for words in _HARMLESS if words in text), None)
    return f"the server says: {told}" if told else "the server met a row that it cannot give"


_HARMLESS = (
    "canceling statement due to conflict with recovery",
    "canceling statement due to statement timeout",
    "canceling statement due to user request",
    "cannot convert NaN",
    "cannot convert infinity",
    "division by zero",
    "invalid input syntax",
    "out of range",
    "permission denied",
    "read-only transaction",
    "terminating connection",
)
_MEANINGS = {
    "42501": "the user has no SELECT privilege on it; grant it",
    "57014": "the query was cancelled",
    "57P01": "the server was shut down or the connection ended by an administrator",
    "08": "the connection broke",
    "0A": "a value (such as NaN) cannot be a number of that type",
    "22": "a value does not fit its type, or a view could not compute it",
    "40": "the server ended the transaction; try again",
    "42": "the table has changed while it was read, or the view is broken",
    "53": "the server lacks memory, disk or connections",
    "57": "the server stopped the query",
    "58": "the server has a disk or system error",
    "XX": "the server has an internal error",
}
