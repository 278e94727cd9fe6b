"""Streams SQL Server and Azure SQL tables, views and queries as Arrow, by the Arrow fetch of Microsoft's driver.

Its sessions cannot share a snapshot, so one reader reads, whatever number is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from types import ModuleType
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator
from sqlglot import exp

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.cursor_range import CursorRange
from platform_core.sources.cursor_rows import Column, LargeValueOptions, batch_rows, schema_of
from platform_core.sources.cursor_rows import announced as as_announced
from platform_core.sources.naming import check_columns, known, split_object, table
from platform_core.sources.naming import column as column_node
from platform_core.sources.sql_source import SqlSource
from platform_core.sources.sqlserver_types import Announced, announced, bound_node, bound_value, column_of, rowversion
from platform_core.sources.statement import Statement, check_filter, placed, select_statement
from platform_core.sources.streaming import Batches, Stream, Streams, shaped
from platform_core.sources.types import parse_type
from platform_core.specs.base import Model, SecretRef

_DIALECT = "tsql"
_LOGINS = {
    "service_principal": "ActiveDirectoryServicePrincipal",
    "managed_identity": "ActiveDirectoryMSI",
    "default": "ActiveDirectoryDefault",
}


class SqlServerOptions(Model):
    """How a SQL Server or Azure SQL database is reached."""

    host: str
    port: int = Field(default=1433, ge=1, le=65535)
    database: str
    login: Literal["sql", "service_principal", "managed_identity", "default"] = Field(
        default="sql",
        description="sql: user and password; service_principal: client id and client secret as user and password; "
        "managed_identity: of the machine, with a client id as user if there are several; default: what Azure finds.",
    )
    user: str | None = None
    password: SecretRef | None = Field(default=None, description="Written as {secret: <workstream>/<name>}.")
    default_schema: str = Field(default="dbo", alias="schema", description="Schema of objects written without one.")
    encrypt: Literal["mandatory", "strict", "optional"] = Field(
        default="mandatory", description="strict: TLS before the first byte (TDS 8); optional: if the server insists."
    )
    trust_server_certificate: bool = Field(default=False, description="Take any certificate of the server.")
    host_in_certificate: str | None = Field(default=None, description="Name in the certificate; default: the host.")
    server_certificate: str | None = Field(default=None, description="File of the certificate that the server has.")
    read_only_replica: bool = Field(default=False, description="Ask for a readable replica (ApplicationIntent).")
    isolation: Literal["snapshot", "read_committed"] = Field(
        default="snapshot",
        description="snapshot: rows as of one moment, which the database must allow; read_committed: where it does "
        "not: a row that is changed during the read may come twice, or not at all and so count as deleted.",
    )
    connect_timeout: int = Field(default=15, ge=1, description="Seconds to wait for the connection.")
    query_timeout: int = Field(default=3600, ge=1, description="Seconds that a statement may take to answer.")

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if self.login in ("sql", "service_principal") and not (self.user and self.password):
            raise ValueError(f"login {self.login} needs 'user' and 'password'")
        if self.login in ("managed_identity", "default") and self.password:
            raise ValueError(f"login {self.login} has no password; remove 'password'")
        return self


class SqlServerSource(SqlSource):
    """Tables, views and queries of one database."""

    Options = SqlServerOptions
    ObjectOptions = LargeValueOptions
    kind = "sqlserver"
    dialect = _DIALECT

    def __init__(self, options: SqlServerOptions, *, secret: Callable[[str], Secret]) -> None:
        super().__init__(options, secret=secret)
        self._streams = Streams()

    def schema(self, request: ReadRequest) -> pa.Schema:
        """The columns with the types in which they are read; nothing is run to know them."""
        where = _where(request)
        with placed(where), self._connected(where) as connection:
            columns = self._columns(connection, request)
        return schema_of(_chosen(columns, request))

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream the rows as of one moment, if the isolation is ``snapshot``."""
        where = _where(request)
        with placed(where), ExitStack() as opening:
            connection = opening.enter_context(self._connected(where))
            columns = self._columns(connection, request)
            before = self._row_versions_before(connection, columns, request)
            self._begin(connection, where)
            wanted = CursorRange.of(request, {name: column.type for name, column in columns.items()}, where=where)
            statement = self._statement(columns, wanted, before, request)
            options = request.options if isinstance(request.options, LargeValueOptions) else LargeValueOptions()
            rows = batch_rows(columns.values(), options, most=request.batch_rows)
            with _errors(where, self.options):
                cursor = opening.enter_context(closing(connection.cursor()))
                cursor.execute(statement.sql, list(statement.parameters))
                reader = cursor.arrow_reader(rows)
            batches = as_announced(_fetched(reader, where, self.options), [*columns.values()], where=where)
            schema = schema_of(_chosen(columns, request))
            stream = Stream(
                shaped(wanted.only(batches), schema=schema, batch_rows=request.batch_rows),
                resources=opening.pop_all(),
                where=where,
                interrupt=reader.close,
            )
        return self._streams.reader(schema, stream)

    def close(self) -> None:
        """Close the connections of unfinished reads."""
        self._streams.close()

    @contextmanager
    def _connected(self, where: str) -> Iterator[Any]:
        driver = _driver()
        options: SqlServerOptions = self.options
        try:
            connection = driver.connect(
                autocommit=True, timeout=options.connect_timeout, **_connection_values(options, self.secret)
            )
        except (driver.Error, driver.Warning, RuntimeError, ValueError) as error:
            if "Failed to load the driver" in str(error):
                raise PluginError(
                    f"{where}: the driver mssql-python lacks libraries of the system\n"
                    "  install them; Debian: apt-get install libltdl7 libgssapi-krb5-2"
                ) from None
            raise SourceError(
                f"{where}: cannot connect to database '{options.database}' at {options.host}:{options.port} "
                f"(login {options.login}): {_told(error)}\n"
                "  check host, port, database, login, user, password and encrypt of the connection"
            ) from None
        try:
            connection.timeout = options.query_timeout
            yield connection
        finally:
            # Whatever the transaction was, nothing was written; a broken connection cannot even say so.
            with suppress(driver.Error, RuntimeError):
                connection.close()

    def _begin(self, connection: Any, where: str) -> None:
        with _errors(where, self.options):
            level = "SNAPSHOT" if self.options.isolation == "snapshot" else "READ COMMITTED"
            if level == "SNAPSHOT":
                ((state,),) = _fetch(
                    connection, "SELECT snapshot_isolation_state FROM sys.databases WHERE database_id = DB_ID()"
                )
                if state != 1:
                    raise SourceError(
                        f"{where}: database '{self.options.database}' does not allow to read as of one moment\n"
                        f"  allow it: ALTER DATABASE [{self.options.database}] SET ALLOW_SNAPSHOT_ISOLATION ON\n"
                        "  or set isolation: read_committed on the connection; rows that are changed during the read "
                        "may then come twice, or not at all"
                    )
            _run(connection, f"SET TRANSACTION ISOLATION LEVEL {level}")
            connection.setautocommit(False)

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
        """What the server says of the table or query, without running it."""
        where = _where(request)
        everything = select_statement(
            dataclasses.replace(request, filter=None, since=None, until=None),
            dialect=_DIALECT,
            table=self._table(request),
            columns=[exp.Star()],
            placeholder=lambda _: exp.Placeholder(),
        )
        with _errors(where, self.options):
            rows = _fetch(connection, _DESCRIBED, everything.sql)
            fault = next((row for row in rows if row[7] is not None), None)
            if fault is None and rows:
                return [announced(*row[:6]) for row in rows if not row[6]]
            if request.query is None and (fault is None or fault[7] == _NO_SUCH_OBJECT):
                raise self._missing(connection, request)
        number = fault[7] if fault else 0
        raise SourceError(
            f"{where}: the server cannot tell its columns: {_NUMBERS.get(number, 'see the number')} (error {number})\n"
            "  check table, query and the user's SELECT privilege"
        )

    def _missing(self, connection: Any, request: ReadRequest) -> SourceError:
        schema, name = split_object(request.object, where="sqlserver")
        full = f"{schema or self.options.default_schema}.{name}"
        tables = [f"{found_schema}.{found}" for found_schema, found in _fetch(connection, _TABLES)]
        return SourceError(
            f"{_where(request)}: database '{self.options.database}' has no table or view '{full}' that the login can "
            f"see\n{known('tables', full, tables)}"
        )

    def _row_versions_before(self, connection: Any, columns: dict[str, Column], request: ReadRequest) -> int | None:
        """The lowest row version of a transaction that is still open; None: the cursor is no row version.

        Versions are given out when a row is written and not when that is committed, so that a lower one may show up
        after a higher one was read. What lies below this bound is complete. It is asked for before the snapshot.
        """
        if request.cursor is None or columns[request.cursor].bound != "rowversion":
            return None
        if self.options.read_only_replica:
            raise SourceError(
                f"{_where(request)}: cursor '{request.cursor}' is a row version, and a replica does not know which of "
                "them are still open\n  read from the primary: remove read_only_replica, or use another cursor"
            )
        with _errors(_where(request), self.options):
            ((lowest,),) = _fetch(connection, "SELECT CONVERT(BIGINT, MIN_ACTIVE_ROWVERSION())")
        return int(lowest)

    def _table(self, request: ReadRequest) -> exp.Table | None:
        if request.query is not None:
            return None
        schema, name = split_object(request.object, where="sqlserver")
        return table(schema or self.options.default_schema, name)

    def _statement(
        self, columns: dict[str, Column], wanted: CursorRange, before: int | None, request: ReadRequest
    ) -> Statement:
        cursor = columns[request.cursor] if request.cursor is not None else None
        asked: dict[str, Any] = {"since": None, "until": None}
        if cursor is not None and cursor.bound is not None:
            for name, bound in (("since", wanted.since), ("until", wanted.until)):
                if bound is not None:
                    asked[name] = bound_value(cursor, bound.as_py(), last=name == "until")
        complete = None
        if before is not None and cursor is not None:
            limit = rowversion(exp.Literal.number(before))
            complete = exp.LT(this=column_node(cursor.name), expression=limit)
        return select_statement(
            dataclasses.replace(request, **asked),
            dialect=_DIALECT,
            table=self._table(request),
            columns=[exp.alias_(column.expression, column.name, quoted=True) for column in columns.values()],
            # The only values are those of the cursor.
            placeholder=lambda _: bound_node(cursor, exp.Placeholder()) if cursor else exp.Placeholder(),
            where=complete,
        )


def _connection_values(options: SqlServerOptions, secret: Callable[[str], Secret]) -> dict[str, str]:
    """What the driver makes its connection text of; it quotes the values itself."""
    given = {
        "server": f"tcp:{options.host},{options.port}",
        "database": options.database,
        "uid": options.user,
        "pwd": secret(options.password.secret).reveal().decode() if options.password else None,
        "authentication": _LOGINS.get(options.login),
        "encrypt": options.encrypt,
        "trustservercertificate": "yes" if options.trust_server_certificate else "no",
        "hostnameincertificate": options.host_in_certificate,
        "servercertificate": options.server_certificate,
        "applicationintent": "ReadOnly" if options.read_only_replica else "ReadWrite",
        # A read that went on over another connection would not be of one moment.
        "connectretrycount": "0",
    }
    return {name: value for name, value in given.items() if value is not None}


def _driver() -> ModuleType:
    try:
        import mssql_python
    except ImportError as error:
        raise PluginError(
            f"source 'sqlserver' needs the package mssql-python, which cannot be imported ({error.name or error})\n"
            "  install it: pip install 'edp-platform-core[sqlserver]'"
        ) from None
    module: ModuleType = mssql_python
    return module


_DESCRIBED = """
SELECT name, system_type_name, user_type_name, precision, scale, max_length, is_hidden, error_number
FROM sys.dm_exec_describe_first_result_set(?, NULL, 0) ORDER BY column_ordinal
"""
_TABLES = """
SELECT TOP 5000 s.name, o.name FROM sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id
WHERE o.type IN ('U', 'V') ORDER BY s.name, o.name
"""
_NO_SUCH_OBJECT = 208
_NUMBERS = {
    207: "a column is unknown",
    208: "a table or view is unknown",
    229: "the SELECT privilege is missing",
    230: "the SELECT privilege on a column is missing",
    8155: "a column of the query has no name; give it one",
    8156: "two columns of the query have one name; give each its own",
}


def _where(request: ReadRequest) -> str:
    return f"sqlserver {'query for' if request.query is not None else 'table'} '{request.object}'"


def _chosen(columns: dict[str, Column], request: ReadRequest) -> list[Column]:
    """The columns that readers see."""
    return [*columns.values()] if request.columns is None else [columns[name] for name in request.columns]


def _run(connection: Any, statement: str) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)


def _fetch(connection: Any, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement, list(parameters))
        return [tuple(row) for row in cursor.fetchall()]


def _fetched(reader: Any, where: str, options: SqlServerOptions) -> Batches:
    while True:
        with _errors(where, options):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
        yield batch


@contextmanager
def _errors(where: str, options: SqlServerOptions) -> Iterator[None]:
    """The driver's errors by class and its own fixed words only: the server's words may hold row values."""
    driver = _driver()
    try:
        yield
    except (driver.Error, driver.Warning, pa.ArrowException, RuntimeError, OSError) as error:
        raise SourceError(
            f"{where}: the read failed: {_told(error)}\n"
            f"  a statement that takes longer than {options.query_timeout} s (query_timeout) is ended; the server's "
            "log may say more, and its words are withheld, for they may hold row values"
        ) from None


def _told(error: BaseException) -> str:
    """Class and fixed words of an error; the driver keeps what the server said apart from them."""
    words = getattr(error, "driver_error", None)
    return f"{words} ({type(error).__name__})" if words else type(error).__name__
