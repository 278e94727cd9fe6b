"""Streams tables, views and queries of a SQLite file, typed by the declared column types.

SQLite lets any value into any column. The ADBC driver therefore guesses each type from the first rows and fails
when a later one differs, and it knows no dates or decimals; so this source reads by the standard library and
holds every value to the column's declaration.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import Field, field_validator
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.naming import check_columns, column, known, split_object, table
from platform_core.sources.sql_source import SqlSource
from platform_core.sources.sqlite_values import array_of, declared_type
from platform_core.sources.statement import Statement, check_filter, check_query, placed, select_statement, written
from platform_core.sources.streaming import (
    Batches,
    Stream,
    Streams,
    from_cursor,
    shaped,
    since_scalar,
    until_scalar,
)
from platform_core.sources.types import TypedOptions, UnfitError, parse_type, unfit
from platform_core.specs.base import Model

_BUSY_SECONDS = 30
_DIALECT = "sqlite"
_QUERY = "edp_query"
_AFTER_EVERY_DATE = ":"


class SqliteOptions(Model):
    """Where the database file lies."""

    path: str = Field(description="Absolute path of the database file; it is opened read-only.")

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if not Path(value).is_absolute():
            raise ValueError("must be an absolute path, such as ${env.state}/sources/rides.db")
        return value


@dataclass(frozen=True)
class _Column:
    name: str
    declared: str
    type: pa.DataType


class SqliteSource(SqlSource):
    """Tables, views and queries of one SQLite file, read by one reader: SQLite gains nothing from several."""

    Options = SqliteOptions
    ObjectOptions = TypedOptions
    kind = "sqlite"
    dialect = "sqlite"

    def __init__(self, options: SqliteOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns with their declared types."""
        with placed(_where(request)), closing(self._connect(request)) as connection:
            return _schema(_selected(self._columns(connection, request), request))

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows as of one moment; values that do not fit their declared type stop the read."""
        where = _where(request)
        with placed(where), ExitStack() as opening:
            connection = opening.enter_context(closing(self._connect(request)))
            columns = self._columns(connection, request)
            selected = _selected(columns, request)
            between = _between(columns, request)
            bounded = request.cursor is not None and any(bound is not None for bound in between)
            read = [*selected, *(c for c in columns if bounded and c.name == request.cursor and c not in selected)]
            batches: Iterator[pa.RecordBatch] = _rows(connection, request, columns=read, between=between)
            if bounded and request.cursor is not None:
                batches = from_cursor(batches, cursor=request.cursor, since=between[0], until=between[1])
            schema = _schema(selected)
            stream = Stream(
                shaped(batches, schema=schema, batch_rows=request.batch_rows),
                resources=opening.pop_all(),
                where=where,
                interrupt=connection.interrupt,
            )
        return self._streams.reader(schema, stream)

    def close(self) -> None:
        """Close the connections of unfinished reads."""
        self._streams.close()

    def _connect(self, request: ReadRequest) -> sqlite3.Connection:
        path = Path(self.options.path)
        where = _where(request)
        if not path.is_file():
            found = "it is not a file" if path.exists() else "there is no such file"
            raise SourceError(f"{where}: cannot open {path}: {found}\n  correct the connection's 'path'")
        with _errors(where, path):
            # A reader may be drained by another thread than the one that made it; Stream lets in one at a time.
            connection = sqlite3.connect(
                f"{path.as_uri()}?mode=ro",
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            with ExitStack() as opening:
                opening.enter_context(closing(connection))
                # Rows that are sorted would lie on a disk before they are masked.
                connection.execute("PRAGMA temp_store = MEMORY")
                if request.query is not None:
                    # A view of this session alone, in memory: SQLite tells the declared types of views, not of queries.
                    query = check_query(request.query, dialect=_DIALECT)
                    view = exp.Create(this=table("temp", _QUERY), kind="VIEW", expression=query)
                    connection.execute(written(view, dialect=_DIALECT))
                connection.execute("PRAGMA query_only = ON")
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
                opening.pop_all()
        return connection

    def _columns(self, connection: sqlite3.Connection, request: ReadRequest) -> list[_Column]:
        where = _where(request)
        schema, name = _table_name(request)
        with _errors(where, Path(self.options.path), understanding=request.query is not None):
            found = connection.execute(
                "SELECT name, type FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1 ORDER BY cid",
                (name, schema or "main"),
            ).fetchall()
            if not found:
                tables = connection.execute(
                    "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
                ).fetchall()
                raise SourceError(
                    f"{where}: there is no such table or view in {self.options.path}\n"
                    f"{known('tables', name, [table_name for (table_name,) in tables])}"
                )
        names = [column_name for column_name, _ in found]
        declared: dict[str, str] = _options(request).columns
        wanted = names if request.columns is None else request.columns
        check_columns([*wanted, *declared, *filter(None, [request.cursor])], names, where=where)
        needed = {*wanted, *filter(None, [request.cursor])}
        if request.filter is not None:
            _check_filter_names(request.filter, names, where=where)
        return [
            _Column(name, declared[name], parse_type(declared[name]))
            if name in declared
            else _Column(name, type_text, declared_type(name, type_text, where=where))
            for name, type_text in found
            if name in needed
        ]


def _where(request: ReadRequest) -> str:
    return f"sqlite {'query' if request.query else 'table'} '{request.object}'"


def _table_name(request: ReadRequest) -> tuple[str | None, str]:
    return ("temp", _QUERY) if request.query is not None else split_object(request.object, where="sqlite")


def _check_filter_names(filter_: str, names: list[str], *, where: str) -> None:
    """SQLite takes an unknown name in double quotes for a text, and the filter would be false without a word."""
    folded = {name.casefold() for name in names} | {"rowid"}
    for found in check_filter(filter_, dialect=_DIALECT).find_all(exp.Column):
        if found.name.casefold() not in folded:
            check_columns([found.name], names, where=f"{where}: the filter:")


def _options(request: ReadRequest) -> TypedOptions:
    return request.options if isinstance(request.options, TypedOptions) else TypedOptions()


def _selected(columns: list[_Column], request: ReadRequest) -> list[_Column]:
    if request.columns is None:
        return columns
    by_name = {column.name: column for column in columns}
    return [by_name[name] for name in request.columns]


def _schema(columns: list[_Column]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def _between(columns: list[_Column], request: ReadRequest) -> tuple[pa.Scalar | None, pa.Scalar | None]:
    if request.since is None and request.until is None:
        return None, None
    if request.cursor is None:
        raise ValueError("since and until need cursor")
    type_, where = next(column.type for column in columns if column.name == request.cursor), _where(request)
    return since_scalar(request, type_, where=where), until_scalar(request, type_, where=where)


def _statement(
    request: ReadRequest, columns: list[_Column], between: tuple[pa.Scalar | None, pa.Scalar | None]
) -> Statement:
    """It may give rows beyond since and until, but never leaves one out."""
    conditions = []
    parameters: list[object] = []
    if request.cursor is not None:
        for bound, lower in zip(between, (True, False), strict=True):
            if bound is None or pa.types.is_decimal(bound.type):
                continue
            condition, value = _bound(column(request.cursor), bound, lower=lower)
            conditions.append(condition)
            parameters.append(value)
    schema, name = _table_name(request)
    built = select_statement(
        dataclasses.replace(request, since=None, until=None),
        dialect=_DIALECT,
        table=table(schema, name),
        columns=[c.name for c in columns],
        placeholder=lambda _: exp.Placeholder(),
        where=exp.and_(*conditions) if conditions else None,
    )
    return Statement(built.sql, tuple(parameters))


def _bound(cursor: exp.Expression, bound: pa.Scalar, *, lower: bool) -> tuple[exp.Expression, object]:
    """A condition that every row within the bound fulfils, and every value of another kind, which is then refused.

    SQLite sorts numbers before texts, and texts before blobs.
    """
    value = bound.as_py()
    numbers, texts = exp.LT(this=cursor, expression=exp.Literal.string("")), exp.Literal.string("")
    blobs = exp.GTE(this=cursor, expression=exp.HexString(this=""))
    compared = cursor.copy()
    others: exp.Expression | None = numbers if lower else blobs
    if pa.types.is_string(bound.type):
        # The table's own collation may order otherwise than the lake, which goes by code points.
        compared = exp.Collate(this=compared, expression=exp.Var(this="BINARY"))
    elif isinstance(value, dt.date):
        # Times are text here, with 'T' or blank and with or without an offset: only their date parts compare alike,
        # and an offset shifts a date by one day at most; below the day after comes every time of a day.
        day = value.date() if isinstance(value, dt.datetime) else value
        if lower:
            value = (day - dt.timedelta(days=1) if day > dt.date.min else day).isoformat()
        else:
            last = dt.date.max - dt.timedelta(days=2)
            value = (day + dt.timedelta(days=2)).isoformat() if day <= last else _AFTER_EVERY_DATE
    else:
        others = None if lower else exp.GTE(this=cursor, expression=texts)
    within = (exp.GTE if lower else exp.LTE)(this=compared, expression=exp.Placeholder())
    return exp.or_(within, others) if others is not None else within, value


def _rows(
    connection: sqlite3.Connection,
    request: ReadRequest,
    *,
    columns: list[_Column],
    between: tuple[pa.Scalar | None, pa.Scalar | None],
) -> Batches:
    where = _where(request)
    schema = _schema(columns)
    statement = _statement(request, columns, between)
    with _errors(where, None, understanding=True):
        connection.execute(f"EXPLAIN {statement.sql}", statement.parameters).close()
    with _errors(where, None):
        cursor = connection.execute(statement.sql, statement.parameters)
    read = 0
    while True:
        with _errors(where, None):
            rows = cursor.fetchmany(request.batch_rows)
        if not rows:
            return
        arrays = []
        for definition, values in zip(columns, zip(*rows, strict=True), strict=True):
            try:
                arrays.append(array_of(values, definition.type))
            except UnfitError as error:
                between = (read + 1, read + len(rows))
                raise unfit(
                    where, column=definition.name, type_=definition.type, count=error.count, rows=between
                ) from None
        yield pa.record_batch(arrays, schema=schema)
        read += len(rows)


@contextmanager
def _errors(where: str, path: Path | None, *, understanding: bool = False) -> Iterator[None]:
    """SQLite's errors by name only, for their texts may hold values; those of a statement that is not run may pass."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if understanding and name == "SQLITE_ERROR":
            raise SourceError(
                f"{where}: SQLite refuses the filter or query: {error}\n  correct it, or the view that is read"
            ) from None
        file = f" {path}" if path else ""
        raise SourceError(f"{where}: cannot read{file}: {_MEANINGS.get(name, 'SQLite refused')} ({name})") from None


_MEANINGS = {
    "SQLITE_NOTADB": "the file is not a SQLite database; correct the connection's 'path'",
    "SQLITE_CORRUPT": "the database file is damaged",
    "SQLITE_BUSY": f"another program has kept it locked for {_BUSY_SECONDS} s; try again",
    "SQLITE_CANTOPEN": "the file, or the folder it lies in, may not be opened by this user",
    "SQLITE_INTERRUPT": "the read was interrupted",
    "SQLITE_IOERR": "the disk failed",
    "OperationalError": "a text is not valid UTF-8",
}
