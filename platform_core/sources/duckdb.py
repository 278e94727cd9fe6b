"""Streams tables, views and queries of a DuckDB file, which is opened read-only and can reach nothing else.

One process may write a DuckDB file, or several may read it: while a writer has it open every read fails, and while it
is read no writer gets in. So a file that is written all day is read from a copy, or from what its writer publishes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import Field, field_validator
from sqlglot import exp, select

from platform_core.errors import SourceError, redacted
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.duckdb_types import DIALECT, Column, arrow_type, column_of, exactly
from platform_core.sources.naming import check_columns, identifier, known, split_object, table
from platform_core.sources.sql_source import SqlSource
from platform_core.sources.statement import Statement, check_filter, check_query, placed, select_statement, written
from platform_core.sources.streaming import Batches, Stream, Streams, shaped, since_scalar, until_scalar
from platform_core.sources.types import TypedOptions, UnfitError, parse_type, unfit
from platform_core.specs.base import Model

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_WALLS = {
    "enable_external_access": "false",
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # Rows that did not fit into memory would lie on a disk before they are masked.
    "temp_directory": "",
    "lock_configuration": "true",
}
_LOCKED = re.compile(r"lock is held .*\(PID (\d+)\)")


class DuckdbOptions(Model):
    """Where the database file lies."""

    path: str = Field(description="Absolute path of the database file; it is opened read-only.")
    memory_limit: str = Field(default="2GB", description="Most memory of a query; a larger sort or join is refused.")
    threads: int = Field(default=2, ge=1, description="Threads of a query.")

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if not Path(value).is_absolute():
            raise ValueError("must be an absolute path, such as ${env.state}/sources/sales.duckdb")
        if "?" in value:
            raise ValueError("holds '?', after which DuckDB expects options; rename the file or its folder")
        return value


class DuckdbSource(SqlSource):
    """Tables, views and queries of one DuckDB file; a query's own threads share its work, so there is one reader."""

    Options = DuckdbOptions
    ObjectOptions = TypedOptions
    kind = "duckdb"
    dialect = DIALECT

    def __init__(self, options: DuckdbOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns with the types in which they are read."""
        with placed(_where(request)), closing(self._connect(request)) as connection:
            return _schema(_chosen(self._columns(connection, request), request))

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows as of one moment: nobody can write the file meanwhile."""
        where = _where(request)
        with placed(where), ExitStack() as opening:
            connection = opening.enter_context(closing(self._connect(request)))
            columns = self._columns(connection, request)
            chosen = _chosen(columns, request)
            schema = _schema(chosen)
            statement = _statement(request, columns, chosen)
            with _errors(where):
                relation = connection.sql(statement.sql, params=[*statement.parameters])
                reader = relation.to_arrow_reader(request.batch_rows)
            stream = Stream(
                shaped(_rows(reader, schema, where), schema=schema, batch_rows=request.batch_rows),
                resources=opening.pop_all(),
                where=where,
                interrupt=connection.interrupt,
            )
        return self._streams.reader(schema, stream)

    def close(self) -> None:
        """Close the connections of unfinished reads."""
        self._streams.close()

    def _connect(self, request: ReadRequest) -> DuckDBPyConnection:
        import duckdb

        options: DuckdbOptions = self.options
        path, where = Path(options.path), _where(request)
        if not path.is_file():
            found = "it is not a file" if path.exists() else "there is no such file"
            raise SourceError(f"{where}: cannot open {path}: {found}\n  correct the connection's 'path'")
        config = {**_WALLS, "memory_limit": options.memory_limit, "threads": str(options.threads)}
        try:
            return duckdb.connect(str(path), read_only=True, config=config)
        except duckdb.Error as error:
            holder = _LOCKED.search(str(error))
            told = f"process {holder[1]} has it open for writing" if holder else redacted(error)
            hint = "wait for it to end, or read a copy" if holder else "see whether this process has it open otherwise"
            raise SourceError(f"{where}: cannot open {path}: {told}\n  {hint}") from None

    def _columns(self, connection: DuckDBPyConnection, request: ReadRequest) -> dict[str, Column]:
        """The columns of the request, in the order of the table or query, and the cursor."""
        where, source = _where(request), _source(request)
        if request.filter is not None:
            check_filter(request.filter, dialect=DIALECT)
        if isinstance(source, exp.Table):
            _require(connection, source, request)
        with _errors(where):
            relation = connection.sql(written(select("*").from_(source), dialect=DIALECT))
            names, types = [str(name) for name in relation.columns], relation.types
        options = request.options if isinstance(request.options, TypedOptions) else TypedOptions()
        chosen = names if request.columns is None else request.columns
        check_columns([*chosen, *options.columns, *filter(None, [request.cursor])], names, where=where)
        needed = {*chosen, *filter(None, [request.cursor])}
        declared = {name: parse_type(text) for name, text in options.columns.items()}
        columns = [
            column_of(name, type_, declared=declared.get(name))
            for name, type_ in zip(names, types, strict=True)
            if name in needed
        ]
        asked = select(*(column.expression.copy() for column in columns)).from_(source).limit(0)
        with _errors(where):
            given = connection.sql(written(asked, dialect=DIALECT)).to_arrow_reader(1).schema
        return {
            column.name: replace(column, type=column.type or arrow_type(field.type))
            for column, field in zip(columns, given, strict=True)
        }


def _where(request: ReadRequest) -> str:
    return f"duckdb {'query' if request.query else 'table'} '{request.object}'"


def _source(request: ReadRequest) -> exp.Table | exp.Subquery:
    if request.query is not None:
        return check_query(request.query, dialect=DIALECT).subquery(identifier("edp_rows"))
    schema, name = split_object(request.object, where="duckdb")
    return table(schema or "main", name)


def _require(connection: DuckDBPyConnection, source: exp.Table, request: ReadRequest) -> None:
    """Without this DuckDB would look for a file or a view of Python's under an unknown name."""
    with _errors(_where(request)):
        found = connection.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall()
    if (source.db, source.name) not in found:
        tables = [f"{schema}.{name}" for schema, name in found]
        raise SourceError(
            f"{_where(request)}: there is no table or view '{source.db}.{source.name}'\n"
            f"{known('tables', f'{source.db}.{source.name}', tables)}"
        )


def _chosen(columns: dict[str, Column], request: ReadRequest) -> list[Column]:
    return [*columns.values()] if request.columns is None else [columns[name] for name in request.columns]


def _schema(columns: list[Column]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def _statement(request: ReadRequest, columns: dict[str, Column], chosen: list[Column]) -> Statement:
    where, source = _where(request), _source(request)
    cursor = None
    if request.since is not None or request.until is not None:
        if request.cursor is None:
            raise ValueError("since and until need cursor")
        cursor = columns[request.cursor]
        type_ = cursor.type
        scalars = since_scalar(request, type_, where=where), until_scalar(request, type_, where=where)
        since, until = (None if scalar is None else scalar.as_py() for scalar in scalars)
        request = replace(request, since=since, until=until)
    return select_statement(
        request,
        dialect=DIALECT,
        table=source if isinstance(source, exp.Table) else None,
        columns=[exp.alias_(column.expression, column.name, quoted=True) for column in chosen],
        placeholder=lambda _: cursor.bound(exp.Placeholder()) if cursor else exp.Placeholder(),
        cursor=cursor.ordered if cursor else None,
    )


def _rows(reader: pa.RecordBatchReader, schema: pa.Schema, where: str) -> Batches:
    read = 0
    while True:
        with _errors(where):
            batch = next(reader, None)
        if batch is None:
            return
        arrays = []
        for field, values in zip(schema, batch.columns, strict=True):
            try:
                arrays.append(exactly(values, field.type))
            except UnfitError as error:
                between = (read + 1, read + batch.num_rows)
                raise unfit(where, column=field.name, type_=field.type, count=error.count, rows=between) from None
        yield pa.record_batch(arrays, schema=schema)
        read += batch.num_rows


@contextmanager
def _errors(where: str) -> Iterator[None]:
    """DuckDB's errors: those about names and syntax as they are, of the others the class, for they quote values."""
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        advice = next((text for kind, text in _ADVICE.items() if kind in str(error)), "")
        raise SourceError(f"{where}: the read failed: {redacted(error)}{advice}") from None


_ADVICE = {
    "Conversion Error": "\n  a value does not fit the type it is read in; name another under the table's options",
    "Out of Memory Error": "\n  raise memory_limit of the connection: what does not fit is not put on a disk unmasked",
    "Permission Error": "\n  a query reads the tables of its file and nothing else",
}
