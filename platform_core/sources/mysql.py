"""Streams MySQL and MariaDB tables, views and queries as Arrow, each read in one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field
from sqlglot import exp, select

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.mysql_plan import DIALECT, MysqlPlan
from platform_core.sources.mysql_rows import TextRows
from platform_core.sources.mysql_session import (
    MysqlOptions,
    errors,
    fetch,
    in_one_snapshot,
    interrupt,
    number,
    session,
)
from platform_core.sources.mysql_types import Column, column_of
from platform_core.sources.naming import check_columns, identifier, known, split_object, table
from platform_core.sources.side_by_side import side_by_side
from platform_core.sources.sql_source import SqlSource
from platform_core.sources.statement import Range, check_filter, check_query, placed, split_ranges, written
from platform_core.sources.streaming import Batches, Stream, Streams, shaped
from platform_core.sources.types import TypedOptions, UnfitError, parse_type, unfit

_NO_SUCH_TABLE = 1146


class MysqlObjectOptions(TypedOptions):
    """How one table or query is read."""

    zero_dates: Literal["refuse", "null"] = Field(
        default="refuse",
        description="What becomes of dates without a day, month or year, such as 0000-00-00: refuse stops the read.",
    )


class MysqlSource(SqlSource):
    """Tables, views and queries of one MySQL or MariaDB server."""

    Options = MysqlOptions
    ObjectOptions = MysqlObjectOptions
    kind = "mysql"
    dialect = DIALECT

    def __init__(self, options: MysqlOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns with the types in which they are read, as the server announces them for a read of no rows."""
        with placed(_where(request)), ExitStack() as opening:
            (connection,) = self._connected(request, opening, count=1)
            return _schema(_chosen(self._columns(connection, request), request))

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows as of one moment, with as many readers as the server lets see that moment."""
        where = _where(request)
        with placed(where), ExitStack() as opening:
            count = request.parallel if request.split_by else 1
            connections = self._connected(request, opening, count=count)
            columns = self._columns(connections[0], request)
            chosen = _chosen(columns, request)
            plan = MysqlPlan(request, self._table(request), columns, where=where)
            readers = [
                plan.within(self._rows(connection, [plan.statement(connection, part) for part in parts], plan, request))
                for connection, parts in self._shares(connections, plan, request)
            ]

            def stop() -> None:
                for connection in connections:
                    interrupt(connection)

            batches = readers[0] if len(readers) == 1 else side_by_side(readers, interrupt=stop)
            schema = _schema(chosen)
            stream = Stream(
                shaped(batches, schema=schema, batch_rows=request.batch_rows),
                resources=opening.pop_all(),
                where=where,
                interrupt=stop,
            )
        return self._streams.reader(schema, stream)

    def close(self) -> None:
        """Close the connections of unfinished reads."""
        self._streams.close()

    def _connected(self, request: ReadRequest, opening: ExitStack, *, count: int) -> Sequence[Any]:
        """Connections within one snapshot: as many as asked for, or one."""
        where = _where(request)
        connections = [
            opening.enter_context(session(self.options, secret=self.secret, where=where)) for _ in range(count)
        ]
        with self._errors(where):
            return in_one_snapshot(connections)

    def _errors(self, where: str) -> AbstractContextManager[None]:
        return errors(where, read_timeout=self.options.read_timeout)

    def _table(self, request: ReadRequest) -> exp.Table | None:
        if request.query is not None:
            return None
        database, name = split_object(request.object, where="mysql")
        return table(database or self.options.database, name)

    def _columns(self, connection: Any, request: ReadRequest) -> dict[str, Column]:
        """The columns of the request, in the order of the table or query, and those it splits or compares by."""
        from pymysql.err import ProgrammingError

        where = _where(request)
        if request.filter is not None:
            check_filter(request.filter, dialect=DIALECT)
        source: exp.Expression | None = self._table(request)
        if source is None:
            source = check_query(request.query or "", dialect=DIALECT).subquery(identifier("edp_rows"))
        nothing = written(select("*").from_(source).limit(0), dialect=DIALECT)
        with self._errors(where):
            try:
                announced = TextRows(connection, nothing)
                announced.read(1)
            except ProgrammingError as error:
                if number(error) != _NO_SUCH_TABLE or request.query is not None:
                    raise
                raise self._missing(connection, request) from None
        options = request.options if isinstance(request.options, MysqlObjectOptions) else MysqlObjectOptions()
        names = [field.name for field in announced.fields]
        wanted = names if request.columns is None else request.columns
        besides = [*filter(None, [request.cursor, request.split_by])]
        check_columns([*wanted, *options.columns, *besides], names, where=where)
        needed = {*wanted, *besides}
        return {
            field.name: column_of(
                field,
                declared=parse_type(options.columns[field.name]) if field.name in options.columns else None,
                zero_dates=options.zero_dates,
                where=where,
            )
            for field in announced.fields
            if field.name in needed
        }

    def _missing(self, connection: Any, request: ReadRequest) -> SourceError:
        database, name = split_object(request.object, where="mysql")
        database = database or self.options.database
        found = fetch(connection, _TABLES, (database,))
        return SourceError(
            f"{_where(request)}: database '{database}' has no table or view '{name}' that '{self.options.user}' can "
            f"see\n{known('tables', name, [str(row[0]) for row in found])}"
        )

    def _shares(
        self, connections: Sequence[Any], plan: MysqlPlan, request: ReadRequest
    ) -> list[tuple[Any, list[Range | None]]]:
        """Which connection reads which ranges of the column to split by."""
        if len(connections) == 1:
            return [(connections[0], [None])]
        with self._errors(_where(request)):
            ((low, high),) = fetch(connections[0], plan.bounds(connections[0]))
        try:
            ranges = split_ranges(low, high, len(connections), nullable=plan.split_is_nullable)
        except ValueError:
            # Values of another type than numbers and times have no ranges of equal width: one reader takes them all.
            ranges = [Range()]
        shares: list[list[Range | None]] = [
            list(ranges[index :: len(connections)]) for index in range(len(connections))
        ]
        return [(connection, share) for connection, share in zip(connections, shares, strict=True) if share]

    def _rows(self, connection: Any, statements: Sequence[str], plan: MysqlPlan, request: ReadRequest) -> Batches:
        where, columns = _where(request), [*plan.columns.values()]
        for statement in statements:
            with self._errors(where):
                rows = TextRows(connection, statement)
            read = 0
            while True:
                with self._errors(where):
                    texts = rows.read(request.batch_rows)
                if texts is None:
                    break
                yield _batch(texts, columns, read=read, where=where)
                read += len(texts[0])


def _where(request: ReadRequest) -> str:
    return f"mysql {'query for' if request.query is not None else 'table'} '{request.object}'"


def _chosen(columns: Mapping[str, Column], request: ReadRequest) -> list[Column]:
    """The columns that readers see."""
    if request.columns is not None:
        return [columns[name] for name in request.columns]
    return [*columns.values()]


def _schema(columns: Iterable[Column]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def _batch(texts: list[pa.Array], columns: Sequence[Column], *, read: int, where: str) -> pa.RecordBatch:
    arrays = []
    for column, values in zip(columns, texts, strict=True):
        try:
            arrays.append(column.arrow(values))
        except UnfitError as error:
            rows = (read + 1, read + len(values))
            fault = unfit(where, column=column.name, type_=column.type, count=error.count, rows=rows)
            hint = "\n  dates such as 0000-00-00 become null with the table's option zero_dates: null"
            raise SourceError(f"{fault}{hint}" if column.dated else str(fault)) from None
    return pa.record_batch(arrays, schema=_schema(columns))


_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s ORDER BY 1 LIMIT 5000"
