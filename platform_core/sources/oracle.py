"""Streams Oracle tables, views and queries as Arrow, by the data frames of Oracle's driver in its thin mode.

A read is one read-only transaction, which sees one moment. Its sessions cannot share that, so one reader reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from types import ModuleType
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field
from sqlglot import exp

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.cursor_range import CursorRange
from platform_core.sources.cursor_rows import Column, LargeValueOptions, announced, batch_rows, schema_of
from platform_core.sources.naming import check_columns, known, split_object, table
from platform_core.sources.oracle_types import Announced, bound_node, bound_value, column_of
from platform_core.sources.sql_source import SqlSource
from platform_core.sources.statement import Statement, check_filter, placed, select_statement
from platform_core.sources.streaming import Batches, Stream, Streams, shaped
from platform_core.sources.types import parse_type
from platform_core.specs.base import Model, SecretRef

_DIALECT = "oracle"


class OracleOptions(Model):
    """How an Oracle database is reached."""

    host: str
    port: int = Field(default=1521, ge=1, le=65535)
    service_name: str
    user: str
    password: SecretRef = Field(description="Written as {secret: <workstream>/<name>}.")
    default_schema: str | None = Field(
        default=None, alias="schema", description="Schema of objects written without one; default: the user's."
    )
    protocol: Literal["tcp", "tcps"] = Field(default="tcp", description="tcps: TLS, with the server's name checked.")
    wallet_location: str | None = Field(
        default=None, description="Folder with ewallet.pem, for tcps with a certificate that the system does not trust."
    )
    wallet_password: SecretRef | None = None
    connect_timeout: int = Field(default=20, ge=1, description="Seconds to wait for the connection.")
    call_timeout: int = Field(default=3600, ge=1, description="Seconds that one exchange with the server may take.")


class OracleSource(SqlSource):
    """Tables, views and queries of one Oracle database."""

    Options = OracleOptions
    ObjectOptions = LargeValueOptions
    kind = "oracle"
    dialect = _DIALECT

    def __init__(self, options: OracleOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns with the types in which they are read; the statement is parsed and not run to know them."""
        where = _where(request)
        with placed(where), self._connected(where) as connection:
            columns = self._columns(connection, request)
        return schema_of(_chosen(columns, request))

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows as of one moment (a read-only transaction)."""
        where = _where(request)
        with placed(where), ExitStack() as opening:
            connection = opening.enter_context(self._connected(where))
            with self._errors(where):
                _run(connection, "SET TRANSACTION READ ONLY")
            columns = self._columns(connection, request)
            wanted = CursorRange.of(request, {name: column.type for name, column in columns.items()}, where=where)
            statement = self._statement(columns, wanted, request)
            options = request.options if isinstance(request.options, LargeValueOptions) else LargeValueOptions()
            rows = batch_rows(columns.values(), options, most=request.batch_rows)
            fetched = self._fetched(connection, statement, rows, where)
            batches = announced(fetched, [*columns.values()], where=where)
            schema = schema_of(_chosen(columns, request))
            stream = Stream(
                shaped(wanted.only(batches), schema=schema, batch_rows=request.batch_rows),
                resources=opening.pop_all(),
                where=where,
                interrupt=lambda: _cancel(connection),
            )
        return self._streams.reader(schema, stream)

    def close(self) -> None:
        """Close the connections of unfinished reads."""
        self._streams.close()

    @contextmanager
    def _connected(self, where: str) -> Iterator[Any]:
        driver = _driver()
        options: OracleOptions = self.options
        wallet = options.wallet_password
        try:
            connection = driver.connect(
                host=options.host,
                port=options.port,
                service_name=options.service_name,
                user=options.user,
                password=self.secret(options.password.secret).reveal().decode(),
                protocol=options.protocol,
                ssl_server_dn_match=True,
                wallet_location=options.wallet_location,
                wallet_password=self.secret(wallet.secret).reveal().decode() if wallet else None,
                tcp_connect_timeout=float(options.connect_timeout),
                program="edp",
            )
        except (driver.Error, OSError) as error:
            raise SourceError(
                f"{where}: cannot connect to service '{options.service_name}' at {options.host}:{options.port} "
                f"as '{options.user}': {_told(error)}\n"
                "  check host, port, service_name, user, password and protocol of the connection"
            ) from None
        try:
            connection.call_timeout = options.call_timeout * 1000
            with self._errors(where):
                for statement in _SESSION:
                    _run(connection, statement)
            yield connection
        finally:
            # The transaction wrote nothing; a broken connection cannot even be closed.
            with suppress(driver.Error):
                connection.close()

    def _errors(self, where: str) -> AbstractContextManager[None]:
        return _errors(where, call_timeout=self.options.call_timeout)

    def _columns(self, connection: Any, request: ReadRequest) -> dict[str, Column]:
        """The columns of the request, in the order of the table or query, and the cursor."""
        where = _where(request)
        if request.filter is not None:
            check_filter(request.filter, dialect=_DIALECT)
        found = self._described(connection, request)
        options = request.options if isinstance(request.options, LargeValueOptions) else LargeValueOptions()
        names = [column.name for column in found]
        wanted = names if request.columns is None else request.columns
        besides = [*filter(None, [request.cursor, request.split_by])]
        check_columns([*wanted, *options.columns, *besides], names, where=where)
        needed = {*wanted, *filter(None, [request.cursor])}
        return {
            column.name: column_of(
                column,
                declared=parse_type(options.columns[column.name]) if column.name in options.columns else None,
                where=where,
            )
            for column in found
            if column.name in needed
        }

    def _described(self, connection: Any, request: ReadRequest) -> list[Announced]:
        """What the driver says of the table or query, which is not run."""
        driver = _driver()
        everything = select_statement(
            dataclasses.replace(request, filter=None, since=None, until=None),
            dialect=_DIALECT,
            table=self._table(request),
            columns=[exp.Star()],
            placeholder=_placeholder,
        )
        with self._errors(_where(request)), closing(connection.cursor()) as cursor:
            try:
                cursor.parse(everything.sql)
            except driver.DatabaseError as error:
                if _code(error) != "ORA-00942" or request.query is not None:
                    raise
                raise self._missing(connection, request) from None
            return [
                Announced(info.name, info.type_code.name, info.precision or 0, info.scale or 0)
                for info in cursor.description
            ]

    def _missing(self, connection: Any, request: ReadRequest) -> SourceError:
        schema, name = split_object(request.object, where="oracle")
        full = f"{schema or self._schema()}.{name}"
        tables = [f"{owner}.{found}" for owner, found in _fetch(connection, _TABLES)]
        return SourceError(
            f"{_where(request)}: there is no table or view '{full}' that '{self.options.user}' may read\n"
            f"  names are taken as written, and Oracle keeps them in capitals unless they were created in quotes\n"
            f"{known('tables', full, tables)}"
        )

    def _schema(self) -> str:
        return self.options.default_schema or str(self.options.user).upper()

    def _table(self, request: ReadRequest) -> exp.Table | None:
        if request.query is not None:
            return None
        schema, name = split_object(request.object, where="oracle")
        return table(schema or self._schema(), name)

    def _statement(self, columns: dict[str, Column], wanted: CursorRange, request: ReadRequest) -> Statement:
        cursor = columns[request.cursor] if request.cursor is not None else None
        asked: dict[str, Any] = {"since": None, "until": None}
        if cursor is not None and cursor.bound is not None:
            for name, bound in (("since", wanted.since), ("until", wanted.until)):
                if bound is not None:
                    asked[name] = bound_value(cursor, bound.as_py(), last=name == "until")
        return select_statement(
            dataclasses.replace(request, **asked),
            dialect=_DIALECT,
            table=self._table(request),
            columns=[exp.alias_(column.expression, column.name, quoted=True) for column in columns.values()],
            # The only values are those of the cursor.
            placeholder=lambda number: bound_node(cursor, _placeholder(number)) if cursor else _placeholder(number),
        )

    def _fetched(self, connection: Any, statement: Statement, rows: int, where: str) -> Batches:
        values = {_bind_name(number): value for number, value in enumerate(statement.parameters, start=1)}
        frames = connection.fetch_df_batches(statement.sql, values, size=rows, fetch_decimals=True)
        while True:
            with self._errors(where):
                frame = next(frames, None)
            if frame is None:
                return
            yield from pa.table(frame).to_batches()


def _driver() -> ModuleType:
    try:
        import oracledb
    except ImportError as error:
        raise PluginError(
            f"source 'oracle' needs the package oracledb, which cannot be imported ({error.name or error})\n"
            "  install it: pip install 'edp-platform-core[oracle]'"
        ) from None
    module: ModuleType = oracledb
    return module


_SESSION = (
    "ALTER SESSION SET TIME_ZONE = '+00:00'",
    "ALTER SESSION SET NLS_NUMERIC_CHARACTERS = '.,' NLS_CALENDAR = 'GREGORIAN' NLS_COMP = BINARY NLS_SORT = BINARY",
)
"""What a SELECT gives is not to depend on the server's or the machine's settings."""

_TABLES = """
SELECT owner, table_name FROM (
    SELECT owner, table_name FROM all_tables UNION ALL SELECT owner, view_name FROM all_views
) WHERE owner NOT IN ('SYS', 'SYSTEM', 'MDSYS', 'CTXSYS', 'XDB', 'WMSYS', 'ORDSYS', 'OLAPSYS')
ORDER BY owner, table_name FETCH FIRST 5000 ROWS ONLY
"""


def _where(request: ReadRequest) -> str:
    return f"oracle {'query for' if request.query is not None else 'table'} '{request.object}'"


def _chosen(columns: dict[str, Column], request: ReadRequest) -> list[Column]:
    """The columns that readers see."""
    return [*columns.values()] if request.columns is None else [columns[name] for name in request.columns]


def _bind_name(number: int) -> str:
    return f"edp{number}"


def _placeholder(number: int) -> exp.Expression:
    return exp.Placeholder(this=_bind_name(number))


def _run(connection: Any, statement: str) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)


def _fetch(connection: Any, statement: str) -> list[tuple[Any, ...]]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        return [tuple(row) for row in cursor.fetchall()]


def _cancel(connection: Any) -> None:
    with suppress(_driver().Error):
        connection.cancel()


@contextmanager
def _errors(where: str, *, call_timeout: int) -> Iterator[None]:
    """The driver's errors by class and code only: their texts may hold row values."""
    driver = _driver()
    try:
        yield
    except (driver.Error, pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{where}: the read failed: {_told(error)}\n"
            f"  an exchange with the server that takes longer than {call_timeout} s (call_timeout) is ended; the text "
            "of the error is withheld, for it may hold row values"
        ) from None


def _code(error: BaseException) -> str:
    """``ORA-00942`` and the like; empty: there is none."""
    return str(getattr(error.args[0], "full_code", "") or "") if error.args else ""


def _told(error: BaseException) -> str:
    code = _code(error)
    label = f"{type(error).__name__}{', ' + code if code else ''}"
    return f"{_MEANINGS[code]} ({label})" if code in _MEANINGS else f"the server or driver refused ({label})"


_MEANINGS = {
    "DPY-3001": "the server demands native network encryption, which the driver's thin mode does not have; use tcps",
    "DPY-4011": "the connection broke, or the server went away",
    "DPY-4024": "the server did not answer in time",
    "DPY-6000": "the listener refused the connection",
    "DPY-6001": "the listener knows no such service",
    "DPY-6005": "the server cannot be reached",
    "ORA-00028": "an administrator ended the session",
    "ORA-00904": "a column is unknown",
    "ORA-00918": "two columns of the query have one name; give each its own",
    "ORA-00942": "a table or view does not exist, or may not be read",
    "ORA-01013": "the query was cancelled",
    "ORA-01017": "the server refuses user or password",
    "ORA-01031": "a privilege is missing; grant SELECT",
    "ORA-01406": "a value is longer than its type says",
    "ORA-01456": "something that writes was refused: the read is read-only",
    "ORA-01466": "the table was altered since the read began; try again",
    "ORA-01555": "the read took longer than the server keeps old rows; raise UNDO_RETENTION, or read less at a time",
    "ORA-01722": "a text of a view or query is no number",
    "ORA-03113": "the connection broke, or the server went away",
    "ORA-03114": "the connection broke, or the server went away",
    "ORA-12514": "the listener knows no such service",
    "ORA-12541": "there is no listener at host and port",
    "ORA-28000": "the account is locked",
    "ORA-28001": "the password has expired",
}
