"""Streams tables and views of a SQLite file, typed by the declared column types.

SQLite lets any value into any column. The ADBC driver therefore guesses each type from the first rows and fails
when a later one differs, and it knows no dates or decimals; so this source reads by the standard library and
holds every value to the column's declaration.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator
from sqlglot import exp, select

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret, Source
from platform_core.sources.naming import check_columns, column, known, split_object, table
from platform_core.sources.streaming import Batches, Stream, Streams, from_cursor, shaped, since_scalar
from platform_core.sources.types import (
    KNOWN_TYPES,
    UNBOUNDED_DECIMAL,
    TypedOptions,
    UnfitError,
    convert,
    parse_type,
    unfit,
)
from platform_core.specs.base import Model

_BUSY_SECONDS = 30
_DECLARED = re.compile(r"([^()]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?\s*([^()]*)")
_NAMED = {
    **dict.fromkeys(("BOOL", "BOOLEAN"), pa.bool_()),
    "DATE": pa.date32(),
    **dict.fromkeys(("DATETIME", "TIMESTAMP", "TIMESTAMP WITHOUT TIME ZONE"), pa.timestamp("us")),
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "DATETIMEOFFSET"), pa.timestamp("us", tz="UTC")),
    **dict.fromkeys(("TIME", "STRING", "JSON", "UUID", "XML"), pa.string()),
}
_DECIMALS = ("NUMERIC", "DECIMAL", "DEC", "NUMBER")
_AFFINITIES = (
    (("INT",), pa.int64()),
    (("CHAR", "CLOB", "TEXT"), pa.string()),
    (("BLOB",), pa.binary()),
    (("REAL", "FLOA", "DOUB"), pa.float64()),
)


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


class SqliteSource(Source):
    """Tables and views of one SQLite file."""

    Options = SqliteOptions
    ObjectOptions = TypedOptions
    kind = "sqlite"

    def __init__(self, options: SqliteOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns with their declared types."""
        with closing(self._connect(request)) as connection:
            return _schema(_selected(self._columns(connection, request), request))

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows as of one moment; values that do not fit their declared type stop the read."""
        where = _where(request)
        with ExitStack() as opening:
            connection = opening.enter_context(closing(self._connect(request)))
            columns = self._columns(connection, request)
            selected = _selected(columns, request)
            since = _since(columns, request)
            read = [*selected, *(c for c in columns if since and c.name == request.cursor and c not in selected)]
            batches: Iterator[pa.RecordBatch] = _rows(connection, request, columns=read, since=since)
            if since is not None and request.cursor is not None:
                batches = from_cursor(batches, cursor=request.cursor, since=since)
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
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
                opening.pop_all()
        return connection

    def _columns(self, connection: sqlite3.Connection, request: ReadRequest) -> list[_Column]:
        where = _where(request)
        schema, name = split_object(request.object, where="sqlite")
        with _errors(where, Path(self.options.path)):
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
        return [
            _Column(name, declared[name], parse_type(declared[name]))
            if name in declared
            else _Column(name, type_text, _declared_type(name, type_text, where))
            for name, type_text in found
            if name in needed
        ]


def _where(request: ReadRequest) -> str:
    return f"sqlite table '{request.object}'"


def _options(request: ReadRequest) -> TypedOptions:
    return request.options if isinstance(request.options, TypedOptions) else TypedOptions()


def _selected(columns: list[_Column], request: ReadRequest) -> list[_Column]:
    if request.columns is None:
        return columns
    by_name = {column.name: column for column in columns}
    return [by_name[name] for name in request.columns]


def _schema(columns: list[_Column]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def _declared_type(name: str, declared: str, where: str) -> pa.DataType:
    match = _DECLARED.fullmatch(" ".join(declared.upper().split()))
    if match:
        base = f"{match[1]} {match[4]}".strip()
        if base in _NAMED:
            return _NAMED[base]
        if base in _DECIMALS:
            if match[2] is None:
                return UNBOUNDED_DECIMAL
            precision, scale = int(match[2]), int(match[3] or 0)
            if 1 <= precision <= 38 and scale <= precision:
                return pa.decimal128(precision, scale)
        for parts, type_ in _AFFINITIES:
            if any(part in base for part in parts):
                return type_
    given = f"declared type '{declared}', which stands for no type of the lake" if declared else "no declared type"
    raise SourceError(
        f"{where}: column '{name}' has {given}\n"
        f"  name its type under the table's options: columns: {{{name}: text}}\n"
        f"  known types: {KNOWN_TYPES}"
    )


def _since(columns: list[_Column], request: ReadRequest) -> pa.Scalar | None:
    if request.since is None:
        return None
    if request.cursor is None:
        raise ValueError("since needs cursor")
    type_ = next(column.type for column in columns if column.name == request.cursor)
    return since_scalar(request, type_, where=_where(request))


def _query(request: ReadRequest, columns: list[_Column], since: pa.Scalar | None) -> tuple[str, tuple[Any, ...]]:
    """The statement and its parameters; it may give rows before ``since``, but never leaves one out."""
    schema, name = split_object(request.object, where="sqlite")
    query = select(*(column(c.name) for c in columns)).from_(table(schema, name))
    if since is None or pa.types.is_decimal(since.type) or request.cursor is None:
        return query.sql(dialect="sqlite"), ()
    cursor = column(request.cursor)
    value = since.as_py()
    bound = exp.GTE(this=cursor, expression=exp.Placeholder())
    if pa.types.is_string(since.type):
        # The table's own collation may order otherwise than the lake, which goes by code points.
        bound.set("this", exp.Collate(this=cursor.copy(), expression=exp.Var(this="BINARY")))
    if isinstance(value, dt.date):
        # Times are text here, with 'T' or blank and with or without an offset: only their date parts compare alike,
        # and an offset shifts a date by one day at most. Numbers are below every text: let them through to be refused.
        day = value.date() if isinstance(value, dt.datetime) else value
        if day > dt.date.min:
            day -= dt.timedelta(days=1)
        condition: exp.Expression = exp.or_(bound, exp.LT(this=cursor.copy(), expression=exp.Literal.string("")))
        return query.where(condition).sql(dialect="sqlite"), (day.isoformat(),)
    return query.where(bound).sql(dialect="sqlite"), (value,)


def _rows(
    connection: sqlite3.Connection, request: ReadRequest, *, columns: list[_Column], since: pa.Scalar | None
) -> Batches:
    where = _where(request)
    schema = _schema(columns)
    statement, parameters = _query(request, columns, since)
    with _errors(where, None):
        cursor = connection.execute(statement, parameters)
    read = 0
    while True:
        with _errors(where, None):
            rows = cursor.fetchmany(request.batch_rows)
        if not rows:
            return
        arrays = []
        for definition, values in zip(columns, zip(*rows, strict=True), strict=True):
            try:
                arrays.append(_array(values, definition.type))
            except UnfitError as error:
                between = (read + 1, read + len(rows))
                raise unfit(
                    where, column=definition.name, type_=definition.type, count=error.count, rows=between
                ) from None
        yield pa.record_batch(arrays, schema=schema)
        read += len(rows)


def _array(values: tuple[object, ...], type_: pa.DataType) -> pa.Array:
    """One column of one batch; every value fits exactly, or UnfitError counts those that do not."""
    try:
        return _exact(values, type_)
    except (pa.ArrowException, InvalidOperation, OverflowError, UnfitError):
        raise UnfitError(sum(not _fits(value, type_) for value in values)) from None


def _fits(value: object, type_: pa.DataType) -> bool:
    try:
        _exact((value,), type_)
    except (pa.ArrowException, InvalidOperation, OverflowError, UnfitError):
        return False
    return True


def _exact(values: tuple[object, ...], type_: pa.DataType) -> pa.Array:
    kinds = {*map(type, values)} - {type(None)}
    if not kinds <= _fitting(type_) or (pa.types.is_boolean(type_) and not {*values} <= {0, 1, None}):
        raise UnfitError(len(values))
    if pa.types.is_boolean(type_):
        return pa.array(values, pa.int8()).cast(pa.bool_())
    if pa.types.is_decimal(type_):
        return _decimals(values, kinds, type_)
    if pa.types.is_temporal(type_):
        return convert(pa.array(values, pa.string()), type_)
    if pa.types.is_string(type_) and kinds - {str}:
        return pa.array([None if value is None else str(value) for value in values], type_)
    return pa.array(values, type_)


def _fitting(type_: pa.DataType) -> set[type]:
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return {int}
    if pa.types.is_floating(type_):
        return {int, float}
    if pa.types.is_decimal(type_) or pa.types.is_string(type_):
        return {int, float, str}
    if pa.types.is_binary(type_):
        return {bytes}
    return {str}


def _decimals(values: tuple[object, ...], kinds: set[type], type_: pa.DataType) -> pa.Array:
    # SQLite keeps decimals as doubles: their shortest text is what was written, up to 15 digits.
    if kinds == {float}:
        return convert(pa.array(values, pa.float64()).cast(pa.string()), type_)
    return pa.array([None if value is None else Decimal(str(value)) for value in values], type_)


@contextmanager
def _errors(where: str, path: Path | None) -> Iterator[None]:
    """SQLite's errors by name only: their texts may hold values."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
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
