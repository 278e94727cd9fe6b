"""Streams PostgreSQL tables, views and queries as Arrow, by ADBC's binary COPY, each read in one snapshot."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import Changes, ReadRequest, Secret
from platform_core.sources.naming import check_columns, identifier, split_object, table
from platform_core.sources.naming import column as column_node
from platform_core.sources.postgres_catalog import (
    DIALECT,
    Announced,
    largest_part,
    limits,
    prepared_schema,
    query_columns,
    table_columns,
    unknown_table,
)
from platform_core.sources.postgres_changes import Moment, may_have_changed, moment, settle
from platform_core.sources.postgres_session import PostgresOptions, Session, exported, session
from platform_core.sources.postgres_types import Column, column_of, split_value, sql_type
from platform_core.sources.side_by_side import side_by_side
from platform_core.sources.sql_source import SqlSource
from platform_core.sources.statement import Range, check_query, placed, select_statement, split_ranges
from platform_core.sources.streaming import Batches, Stream, Streams, shaped, since_scalar, until_scalar
from platform_core.sources.types import TypedOptions, UnfitError, parse_type, type_name, unfit

BATCH_BYTES = 8 * 1024 * 1024
"""About how many bytes the driver gathers before it hands out a batch."""

_RANGES_A_READER = 4
_LEAST_PAGES = 1_000


class PostgresSource(SqlSource):
    """Tables, views and queries of one PostgreSQL database."""

    Options = PostgresOptions
    ObjectOptions = TypedOptions
    kind = "postgresql"
    dialect = DIALECT
    tells_changes = True

    def __init__(self, options: PostgresOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()
        self._moment: Moment | None = None

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns with the types in which they are read."""
        where = _where(request)
        with placed(where), session(self.options, secret=self.secret, where=where) as first:
            return _schema(self._wanted(first, request).chosen)

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows as of one moment (repeatable read, read only), whatever the number of readers."""
        where = _where(request)
        with ExitStack() as opening:
            first = opening.enter_context(session(self.options, secret=self.secret, where=where))
            with placed(where):
                wanted = self._wanted(first, request)
            self._moment = None
            now = wanted.moment(first) if request.tracked else None
            shares = _shares(first, wanted)
            sessions = [first]
            if len(shares) > 1 and request.parallel > 1:
                snapshot = exported(first)
                sessions += [
                    opening.enter_context(session(self.options, secret=self.secret, where=where, snapshot=snapshot))
                    for _ in range(min(request.parallel, len(shares)) - 1)
                ]
            waiting = _Shares(shares)
            readers = [_rows(reader, wanted, waiting) for reader in sessions]

            def stop() -> None:
                for reader in sessions:
                    reader.interrupt()

            batches = readers[0] if len(readers) == 1 else side_by_side(readers, interrupt=stop)
            if now is not None:
                batches = self._noting(batches, first, now)
            schema = _schema(wanted.chosen)
            stream = Stream(
                shaped(batches, schema=schema, batch_rows=request.batch_rows),
                resources=opening.pop_all(),
                where=where,
                interrupt=stop,
            )
        return self._streams.reader(schema, stream)

    def read_changes(self, request: ReadRequest) -> Changes | None:
        """Rows by the transactions that wrote them, and the keys of all others, of one moment by one reader."""
        where = _where(request)
        since = None if request.state is None else Moment.unpacked(request.state)
        if since is None:
            return None
        with ExitStack() as opening:
            asked = opening.enter_context(session(self.options, secret=self.secret, where=where))
            wanted = self._wanted(asked, request)
            keys = self._wanted(asked, replace(request, columns=request.key))
            now = wanted.moment(asked)
            if not since.tells_from(now):
                return None
            self._moment = since
            changed = may_have_changed(since)

            def stream(batches: Batches, of: _Wanted, resources: ExitStack) -> pa.RecordBatchReader:
                schema = _schema(of.chosen)
                made = Stream(
                    shaped(batches, schema=schema, batch_rows=request.batch_rows),
                    resources=resources,
                    where=where,
                    interrupt=asked.interrupt,
                )
                return self._streams.reader(schema, made)

            rows = _rows(asked, wanted, _Shares([_Share(condition=changed)]))
            others = _rows(asked, keys, _Shares([_Share(condition=exp.not_(exp.paren(changed)))]))
            return Changes(
                changed=stream(self._noting(rows, asked, now, if_any=True), wanted, ExitStack()),
                unchanged=stream(others, keys, opening.pop_all()),
            )

    def _noting(self, batches: Batches, asked: Session, now: Moment, *, if_any: bool = False) -> Batches:
        """The batches; once they end, what the next load counts on is the moment that they were read of.

        Args:
            if_any: not where there was none: then the earlier moment serves as well, and nothing is to be kept anew.
        """
        rows = 0
        for batch in batches:
            rows += batch.num_rows
            yield batch
        if rows or not if_any:
            settle(asked, now)
            self._moment = now

    def state(self) -> bytes | None:
        """The moment that the rows were read of."""
        return None if self._moment is None else self._moment.packed()

    def close(self) -> None:
        """Close the connections of unfinished reads."""
        self._streams.close()

    def _wanted(self, asked: Session, request: ReadRequest) -> _Wanted:
        options = request.options if isinstance(request.options, TypedOptions) else TypedOptions()
        schema = name = None
        if request.query is None:
            given, name = split_object(request.object, where="postgres")
            schema = given or str(self.options.default_schema)
            announced = table_columns(asked, schema, name)
            if not announced:
                raise unknown_table(asked, schema, name, database=self.options.database, user=self.options.user)
        else:
            announced = query_columns(asked, request.query)
        names = [column.name for column in announced]
        chosen = names if request.columns is None else request.columns
        besides = [*filter(None, [request.cursor, request.split_by])]
        check_columns([*chosen, *options.columns, *besides], names, where=asked.where)
        columns = {
            column.name: _column(column, options, asked.where)
            for column in announced
            if column.name in {*chosen, *besides}
        }
        wanted = _Wanted(
            request, schema, name, columns, tuple(columns[column] for column in chosen), _bounds(request, columns)
        )
        if request.filter is not None:
            # Understood before anything is run, so that the server's own words about it may pass.
            prepared_schema(asked, wanted.statement(asked, _Share()))
        return wanted


@dataclass(frozen=True)
class _Share:
    """What one statement of several reads: pages of the table, a range of a column's values, or rows for which a
    condition is true; or everything."""

    pages: tuple[int, int | None] | None = None
    part: Range | None = None
    condition: exp.Expression | None = None


@dataclass(frozen=True)
class _Wanted:
    """What a request asks for, found at the server.

    Args:
        schema: of the table; None for a query.
        name: of the table; None for a query.
        columns: by name: those to be read, the cursor, and the one to split by.
        chosen: the columns to be read, in their order.
        bounds: since and until as text, as far as they are there.
    """

    request: ReadRequest
    schema: str | None
    name: str | None
    columns: dict[str, Column]
    chosen: tuple[Column, ...]
    bounds: tuple[str, ...]

    @property
    def source(self) -> exp.Table | None:
        """The table; None for a query."""
        return None if self.name is None else table(self.schema, self.name)

    def moment(self, asked: Session) -> Moment:
        """The table as the session sees it.

        Raises:
            SourceError: which of its rows changed cannot be told.
        """
        if self.schema is None or self.name is None:
            raise SourceError(f"{asked.where}: which rows changed is known of tables, not of queries")
        return moment(asked, self.schema, self.name)

    def statement(self, asked: Session, share: _Share) -> str:
        """The SELECT of one share.

        COPY takes no parameters, and without COPY the driver holds the whole result in memory. So values go to the
        server as parameters of settings that live for this transaction, and the SELECT reads them from there.
        """
        request = self.request
        cursor = self.columns[request.cursor] if request.cursor else None
        split = self.columns[request.split_by] if request.split_by else None
        types = [sql_type(cursor) if cursor else None] * len(self.bounds)
        types += [split.source_type if split else None] * 2
        flattened = [column.flattened for column in self.chosen if column.flattened is not None]
        statement = select_statement(
            request,
            dialect=DIALECT,
            table=self.source,
            columns=[
                *(exp.alias_(column.expression, column.name, quoted=True) for column in self.chosen),
                *(exp.alias_(check, f"edp_check_{number}", quoted=True) for number, check in enumerate(flattened)),
            ],
            placeholder=lambda number: _setting(number, types[number - 1] or "text"),
            where=share.condition if share.pages is None else _within_pages(*share.pages),
            cursor=cursor.ordered if cursor else None,
            split=None if split is None else column_node(split.name),
            part=share.part,
        )
        texts = [*self.bounds, *(str(value) for value in statement.parameters[len(self.bounds) :])]
        for number, text in enumerate(texts, start=1):
            asked.set(f"edp.value_{number}", text)
        return statement.sql


class _Shares:
    """Shares that wait for a reader; several readers take from it."""

    def __init__(self, shares: Sequence[_Share]) -> None:
        self._waiting = deque(shares)
        self._lock = threading.Lock()

    def take(self) -> _Share | None:
        """The next one; None: there is none left."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None


def _where(request: ReadRequest) -> str:
    return f"postgres {'query' if request.query else 'table'} '{request.object}'"


def _column(announced: Announced, options: TypedOptions, where: str) -> Column:
    declared = options.columns.get(announced.name)
    return column_of(announced, declared=parse_type(declared) if declared else None, where=where)


def _schema(columns: Sequence[Column]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def _bounds(request: ReadRequest, columns: dict[str, Column]) -> tuple[str, ...]:
    """Since and until as text that the server casts to the cursor's type."""
    if request.since is None and request.until is None:
        return ()
    if request.cursor is None:
        raise ValueError("since and until need cursor")
    where, cursor = _where(request), columns[request.cursor]
    if sql_type(cursor) is None:
        raise SourceError(
            f"{where}: column '{request.cursor}' of type {type_name(cursor.type)} cannot be a cursor\n"
            "  a cursor is a number, a text, a date or a time"
        )
    scalars = (bound(request, cursor.type, where=where) for bound in (since_scalar, until_scalar))
    values = [scalar.as_py() for scalar in scalars if scalar is not None]
    return tuple(value.isoformat() if hasattr(value, "isoformat") else str(value) for value in values)


def _setting(number: int, type_: str) -> exp.Expression:
    asked = exp.Anonymous(this="current_setting", expressions=[exp.Literal.string(f"edp.value_{number}")])
    return exp.cast(asked, type_, dialect=DIALECT)


def _within_pages(first: int, end: int | None) -> exp.Expression:
    place = exp.Column(this=identifier("ctid"))
    within: exp.Expression = exp.GTE(this=place.copy(), expression=_place(first))
    return within if end is None else exp.and_(within, exp.LT(this=place.copy(), expression=_place(end)))


def _place(page: int) -> exp.Expression:
    type_ = exp.DataType.build("tid", dialect=DIALECT, udt=True)
    return exp.Cast(this=exp.Literal.string(f"({page},0)"), to=type_)


def _shares(first: Session, wanted: _Wanted) -> list[_Share]:
    """How the rows are shared out; one share for everything where there is one reader, or no way to share.

    A table goes by its pages: that needs no column, reads each page once and in order, and holds whatever the keys
    look like. There are more shares than readers, so that one with many deleted rows does not keep the others waiting.
    """
    request = wanted.request
    if request.parallel == 1:
        return [_Share()]
    if wanted.schema is not None and wanted.name is not None:
        pages = largest_part(first, wanted.schema, wanted.name)
        if pages is not None:
            count = max(1, min(request.parallel * _RANGES_A_READER, pages // _LEAST_PAGES))
            starts = [pages * number // count for number in range(count)]
            ends = [*starts[1:], None]
            return [_Share(pages=place) for place in zip(starts, ends, strict=True)] if count > 1 else [_Share()]
    column = wanted.columns[request.split_by] if request.split_by else None
    if column is None or not column.splits:
        return [_Share()]
    source = wanted.source or check_query(request.query or "", dialect=DIALECT).subquery(identifier("edp_rows"))
    *texts, nullable = limits(first, source, column_node(column.name))
    low, high = (None if text is None else split_value(column, text) for text in texts)
    # No more than readers: without an index the server computes everything for each.
    parts = split_ranges(low, high, request.parallel, nullable=nullable)
    return [_Share(part=part) for part in parts]


def _rows(asked: Session, wanted: _Wanted, shares: _Shares) -> Batches:
    columns = wanted.chosen
    checked = [column for column in columns if column.flattened is not None]
    schema = _schema(columns)
    read = 0
    while (share := shares.take()) is not None:
        statement = wanted.statement(asked, share)
        with asked.asking():
            hint = {"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
            asked.cursor.adbc_statement.set_options(**hint)
            asked.reading = True
            asked.cursor.execute(statement)
            reader = asked.cursor.fetch_record_batch()
        while (batch := _next(asked, reader, columns)) is not None:
            for position, column in enumerate(checked, start=len(columns)):
                if pc.any(batch.column(position)).as_py():
                    raise SourceError(
                        f"{asked.where}: column '{column.name}' holds an array of several dimensions, and the lake has "
                        "lists\n  name its type under the table's options, which gives JSON: "
                        f"columns: {{{column.name}: text}}"
                    )
            arrays = []
            for index, column in enumerate(columns):
                try:
                    arrays.append(column.arrow(batch.column(index)))
                except UnfitError as error:
                    between = (read + 1, read + batch.num_rows)
                    raise unfit(
                        asked.where, column=column.name, type_=column.type, count=error.count, rows=between
                    ) from None
            yield pa.record_batch(arrays, schema=schema)
            read += batch.num_rows
        asked.reading = False


def _next(asked: Session, reader: pa.RecordBatchReader, columns: Sequence[Column]) -> pa.RecordBatch | None:
    try:
        with asked.asking():
            return next(reader, None)
    except SourceError as error:
        scaled = [column.name for column in columns if column.scaled]
        if "cannot convert" not in str(error) or not scaled:
            raise
        raise SourceError(
            f"{error}\n  one of the columns {', '.join(scaled)} holds NaN or infinity, which decimals have not\n"
            "  correct it, or name its type under the table's options: columns: {<column>: text}"
        ) from None
