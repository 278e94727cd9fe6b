"""Streams tables of another lake as of one version, or what changed in them since the last load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pyarrow as pa
from sqlglot import exp
from sqlglot.optimizer.scope import traverse_scope

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Observation, ReadRequest, Secret
from platform_core.sources.cursor_range import CursorRange
from platform_core.sources.delta_changes import (
    Position,
    added,
    added_only,
    change_schema,
    changed,
    check_feed,
    whole,
)
from platform_core.sources.delta_engine import Engine
from platform_core.sources.delta_options import DeltaObjectOptions, DeltaOptions
from platform_core.sources.delta_tables import DeltaRoot, OpenTable, Scanned, check_path
from platform_core.sources.naming import check_columns
from platform_core.sources.sql_source import SqlSource
from platform_core.sources.statement import Statement, check_filter, check_query, select_statement, written
from platform_core.sources.streaming import Batches, Stream, Streams, shaped
from platform_core.specs.ingestion import LoadMode
from platform_core.specs.step_kinds import Compare

_DIALECT = "duckdb"
_ROWS = "edp_table"


class DeltaSource(SqlSource):
    """Delta tables below one root, in a local folder or an object store."""

    Options = DeltaOptions
    ObjectOptions = DeltaObjectOptions
    kind = "deltalake"
    dialect = _DIALECT
    keeps_state = True
    compares = frozenset({Compare.STAMP})

    def __init__(self, options: DeltaOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._root = DeltaRoot(options.root, options.storage_options, secret=secret)
        self._streams = Streams()
        self._state: bytes | None = None

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns of the table or query; those that the change data feed adds come last."""
        self.check_text(request)
        with ExitStack() as opened:
            if request.query is None:
                return _selected(self._columns(self._open(request), request), request)
            schema = self._result(request, opened)[1]
        check_columns(_named(request), schema.names, where=_where(request))
        return _selected(schema, request)

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows of one version.

        Modes ``incremental`` and ``append`` without a cursor leave out what was read before: with the change data feed
        they read the last change of each key, and without it the files that were added, as long as none was removed.
        """
        self.check_text(request)
        self._state = None
        with ExitStack() as resources:
            if request.query is not None:
                return self._query(request, resources)
            if _options(request).change_data_feed:
                return self._changes(request, resources)
            return self._table(request, resources)

    def state(self) -> bytes | None:
        """Up to which version of which table was read."""
        return self._state

    @classmethod
    def check_object(cls, object_: str) -> None:
        """Refuse what is no path below a root."""
        check_path(object_, where=f"delta '{object_}'")

    def observe(self, request: ReadRequest, *, by: Compare) -> Observation:
        """The newest commit that changed rows: what only tidies a table up makes no new version of it."""
        table = self._open(request)
        version, changed_at = table.newest_change()
        return Observation(version=f"{table.id}:{version}", changed_at=changed_at, figures={"version": version})

    def close(self) -> None:
        """End unfinished reads."""
        self._streams.close()

    def _open(self, request: ReadRequest) -> OpenTable:
        return self._root.open(request.object, where=_where(request))

    def _columns(self, table: OpenTable, request: ReadRequest) -> pa.Schema:
        schema = change_schema(table) if _options(request).change_data_feed else table.schema
        check_columns(_named(request), schema.names, where=_where(request))
        return schema

    def _table(self, request: ReadRequest, resources: ExitStack) -> pa.RecordBatchReader:
        table, where = self._open(request), _where(request)
        columns = self._columns(table, request)
        schema = _selected(columns, request)
        within = CursorRange.of(request, _types(columns), where=where)
        names = [*dict.fromkeys([*schema.names, *within.columns])]
        found = pa.schema([columns.field(name) for name in names])
        position = Position(table.id, table.version)
        if request.filter is None:
            rows = table.plain(self._part(table, request, names, within)(), found)
            return self._reader(self._remembering(rows, position), schema, request, resources, within=within)
        condition = check_filter(request.filter, dialect=_DIALECT)
        folded = {name.lower(): name for name in columns.names}
        tested = [folded.get(found.name.lower(), found.name) for found in condition.find_all(exp.Column)]
        check_columns(tested, columns.names, where=where)
        engine = resources.enter_context(closing(self._engine(where)))
        engine.add(_ROWS, Scanned(self._part(table, request, [*dict.fromkeys([*names, *tested])], within)))
        statement = select_statement(
            request, dialect=_DIALECT, table=exp.to_table(_ROWS), columns=names, placeholder=lambda _: exp.Placeholder()
        )
        rows = engine.rows(statement, found, batch_rows=request.batch_rows)
        remembering = self._remembering(rows, position)
        return self._reader(remembering, schema, request, resources, within=within, interrupt=engine.interrupt)

    def _part(
        self, table: OpenTable, request: ReadRequest, names: list[str], within: CursorRange
    ) -> Callable[[], pa.RecordBatchReader]:
        """What begins a stream of the whole table, or of the rows that were added since the last load."""
        if request.state is None or not _leaves_out(request):
            return lambda: table.scan(names, within)
        since = Position.unpacked(request.state, where=table.where)
        if added_only(table, since=since):
            return lambda: added(table, names, since=since)
        if request.mode is LoadMode.INCREMENTAL:
            return lambda: table.scan(names, within)
        raise SourceError(
            f"{table.where}: since version {since.version} it was changed by more than added rows, so that what is new "
            "cannot be told\n"
            "  set 'change_data_feed: true', or declare 'cursor', a column that grows from row to row"
        )

    def _query(self, request: ReadRequest, resources: ExitStack) -> pa.RecordBatchReader:
        where = _where(request)
        if request.mode is LoadMode.APPEND and _leaves_out(request) and request.state is not None:
            raise SourceError(
                f"{where}: it has been appended already, and every row would be there twice\n"
                "  declare 'cursor', a column that grows from row to row"
            )
        engine, schema, query = self._result(request, resources)
        check_columns(_named(request), schema.names, where=where)
        within = CursorRange.of(request, _types(schema), where=where)
        wanted = _selected(schema, request)
        names = [*dict.fromkeys([*wanted.names, *within.columns])]
        statement = select_statement(
            query, dialect=_DIALECT, table=None, columns=names, placeholder=lambda _: exp.Placeholder()
        )
        found = pa.schema([schema.field(name) for name in names])
        rows = engine.rows(statement, found, batch_rows=request.batch_rows)
        remembering = self._remembering(rows, Position("query", 0))
        return self._reader(remembering, wanted, request, resources, within=within, interrupt=engine.interrupt)

    def _result(self, request: ReadRequest, resources: ExitStack) -> tuple[Engine, pa.Schema, ReadRequest]:
        """An engine that sees the query's tables, the query's columns, and the query in the engine's names."""
        where = _where(request)
        if _options(request).change_data_feed:
            raise SourceError(f"{where}: a query cannot read a change data feed; name the table as 'object'")
        query = check_query(request.query or "", dialect=_DIALECT)
        engine = resources.enter_context(closing(self._engine(where)))
        for number, (path, found) in enumerate(_tables_of(query).items()):
            table = self._root.open(path, where=where)
            name = f"{_ROWS}_{number}"
            engine.add(name, Scanned(_scan_of(table)))
            for node in found:
                alias = node.args.get("alias") or exp.TableAlias(this=node.this.copy())
                node.replace(exp.Table(this=exp.to_identifier(name), alias=alias))
        shape = exp.select("*").from_(query.subquery("edp_rows")).limit(0)
        schema = engine.schema(Statement(written(shape, dialect=_DIALECT), ()))
        return engine, schema, dataclasses.replace(request, query=written(query, dialect=_DIALECT), filter=None)

    def _changes(self, request: ReadRequest, resources: ExitStack) -> pa.RecordBatchReader:
        where, key = _where(request), _options(request).key
        if request.filter is not None:
            raise SourceError(
                f"{where}: a filter does not go with the change data feed: a row that no longer meets it would stay\n"
                "  leave out 'filter' or 'change_data_feed'"
            )
        table = self._open(request)
        columns = self._columns(table, request)
        check_columns(key, table.schema.names, where=where)
        schema = _selected(columns, request)
        within = CursorRange.of(request, _types(columns), where=where)
        names = [*dict.fromkeys([*schema.names, *within.columns])]
        position = Position(table.id, table.version)
        interrupt = None
        if request.state is None or not _leaves_out(request):
            rows = whole(table, names)
        else:
            since = Position.unpacked(request.state, where=where)
            check_feed(self._root, request.object, table, since=since)
            engine = resources.enter_context(closing(self._engine(where)))
            interrupt = engine.interrupt
            rows = changed(table, names, since=since, key=key, engine=engine, batch_rows=request.batch_rows)
        return self._reader(
            self._remembering(rows, position), schema, request, resources, within=within, interrupt=interrupt
        )

    def _remembering(self, rows: Iterator[pa.RecordBatch], position: Position) -> Iterator[pa.RecordBatch]:
        """The rows; once all are read, the position is what the next load is to know."""
        yield from rows
        self._state = position.packed()

    def _engine(self, where: str) -> Engine:
        return Engine(memory_mb=self.options.memory_mb, where=where)

    def _reader(
        self,
        rows: Iterator[pa.RecordBatch],
        schema: pa.Schema,
        request: ReadRequest,
        resources: ExitStack,
        *,
        within: CursorRange,
        interrupt: Callable[[], None] | None = None,
    ) -> pa.RecordBatchReader:
        batches: Batches = shaped(within.only(rows), schema=schema, batch_rows=request.batch_rows)
        stream = Stream(batches, resources=resources.pop_all(), where=_where(request), interrupt=interrupt)
        return self._streams.reader(schema, stream)


def _leaves_out(request: ReadRequest) -> bool:
    """Whether what was read before is left out."""
    return request.mode in (LoadMode.INCREMENTAL, LoadMode.APPEND) and request.cursor is None


def _named(request: ReadRequest) -> list[str]:
    return [*(request.columns or ()), *filter(None, [request.cursor])]


def _where(request: ReadRequest) -> str:
    return f"delta {'query for' if request.query is not None else 'table'} '{request.object}'"


def _options(request: ReadRequest) -> DeltaObjectOptions:
    return request.options if isinstance(request.options, DeltaObjectOptions) else DeltaObjectOptions()


def _selected(schema: pa.Schema, request: ReadRequest) -> pa.Schema:
    names = schema.names if request.columns is None else request.columns
    return pa.schema([schema.field(name) for name in names])


def _types(schema: pa.Schema) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in schema}


def _scan_of(table: OpenTable) -> Callable[[], pa.RecordBatchReader]:
    return lambda: table.scan(table.schema.names, CursorRange())


def _tables_of(query: exp.Query) -> dict[str, list[exp.Table]]:
    """The tables that a query reads, by path below the root: ``sales.orders`` and ``"sales/orders"`` are one."""
    found: dict[str, list[exp.Table]] = {}
    for scope in traverse_scope(query):
        for source in scope.sources.values():
            if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                found.setdefault("/".join(part.name for part in source.parts), []).append(source)
    return found
