"""The source sqlserver, on a stand-in behind its driver's DB-API: no SQL Server runs here."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import mssql_python
import pyarrow as pa
import pytest
from pydantic import ValidationError
from sqlglot import exp

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite
from platform_core.sources.sqlserver import SqlServerSource
from platform_core.sources.sqlserver_types import announced, bound_node, bound_value, column_of
from tests.sources.stand_in_sqlserver import SqlServer

LOGIN = {"host": "db.example.com", "database": "sales", "user": "reader", "password": {"secret": "crm/reader"}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlServer]:
    started = SqlServer()
    monkeypatch.setattr(mssql_python, "connect", started.connect)
    yield started
    assert started.open == 0, "every connection is closed"


def connected(*, secret: str = "pass", **options: Any) -> SqlServerSource:
    given = SqlServerSource.Options(**{**LOGIN, **options})
    return SqlServerSource(given, secret=lambda name: Secret(name, secret.encode()))


def read(source: SqlServerSource, **request: Any) -> pa.Table:
    with closing(source):
        return source.read(ReadRequest(**{"object": "rows", **request})).read_all()


class TestSqlServer(SourceSuite):
    @pytest.fixture
    def place(self, server: SqlServer) -> Place:
        def put(rows: pa.Table) -> Placed:
            server.behind.put("rows", rows)
            return connected(), ReadRequest(object="rows")

        return put

    @pytest.fixture
    def place_broken(self, server: SqlServer) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            server.behind.put("kept", pa.table({"id": range(50_001), "v": [*map(str, range(50_000)), text]}))
            server.behind.run('CREATE VIEW dbo."rows" AS SELECT id, v::BIGINT AS v FROM dbo.kept')
            return connected(), ReadRequest(object="rows", batch_rows=100)

        return put


def sent(server: SqlServer) -> list[str]:
    return [statement for statement, _ in server.behind.sent]


@pytest.mark.parametrize(
    ("system_type", "precision", "scale", "type_", "asked"),
    [
        ("bit", 1, 0, pa.bool_(), "[v]"),
        ("tinyint", 3, 0, pa.int16(), "[v]"),
        ("bigint", 19, 0, pa.int64(), "[v]"),
        ("decimal(38,10)", 38, 10, pa.decimal128(38, 10), "[v]"),
        ("numeric(5,0)", 5, 0, pa.decimal128(5, 0), "[v]"),
        ("money", 19, 4, pa.decimal128(19, 4), "CONVERT(DECIMAL(19, 4), [v])"),
        ("real", 24, 0, pa.float32(), "[v]"),
        ("float", 53, 0, pa.float64(), "[v]"),
        ("nvarchar(20)", 0, 0, pa.string(), "[v]"),
        ("xml", 0, 0, pa.string(), "CONVERT(NVARCHAR(MAX), [v])"),
        ("ntext", 0, 0, pa.string(), "CONVERT(NVARCHAR(MAX), [v])"),
        ("image", 0, 0, pa.binary(), "CONVERT(VARBINARY(MAX), [v])"),
        ("uniqueidentifier", 0, 0, pa.string(), "LOWER(CONVERT(CHAR(36), [v]))"),
        ("timestamp", 0, 0, pa.int64(), "CONVERT(BIGINT, [v])"),
        ("time(7)", 16, 7, pa.string(), "CONVERT(VARCHAR(16), [v])"),
        ("date", 10, 0, pa.date32(), "[v]"),
        ("smalldatetime", 16, 0, pa.timestamp("us"), "CONVERT(DATETIME2(0), [v])"),
        ("datetime", 23, 3, pa.timestamp("us"), "CONVERT(DATETIME2(3), [v])"),
        ("datetime2(6)", 26, 6, pa.timestamp("us"), "[v]"),
        (
            "datetime2(7)",
            27,
            7,
            pa.timestamp("us"),
            "CONVERT(DATETIME2(6), DATEADD(NANOSECOND, -(DATEPART(NANOSECOND, [v]) % 1000), [v]))",
        ),
        (
            "datetimeoffset(3)",
            30,
            3,
            pa.timestamp("us", tz="UTC"),
            "CONVERT(DATETIME2(3), SWITCHOFFSET([v], '+00:00'))",
        ),
    ],
)
def test_b16_each_type_is_asked_for_so_that_it_arrives_exactly(
    system_type: str, precision: int, scale: int, type_: pa.DataType, asked: str
) -> None:
    column = column_of(announced("v", system_type, None, precision, scale, 8), declared=None, where="t")
    assert (column.type, column.expression.sql(dialect="tsql", normalize_functions=False)) == (type_, asked)


@pytest.mark.parametrize("type_", ["hierarchyid", "geography", "geometry", "sql_variant", "our_own_clr_type"])
def test_a_type_that_the_lake_does_not_have_is_refused(type_: str) -> None:
    with pytest.raises(SourceError, match=f"column 'v' is of type {type_}, which the lake does not have"):
        column_of(announced("v", None, type_, 0, 0, -1), declared=None, where="t")


@pytest.mark.parametrize(
    ("system_type", "value", "asked", "since", "until"),
    [
        ("bigint", 5, "?", 5, 5),
        ("decimal(9,2)", Decimal("1.10"), "?", Decimal("1.10"), Decimal("1.10")),
        ("date", dt.date(2024, 2, 29), "CONVERT(DATE, ?)", "2024-02-29", "2024-02-29"),
        (
            "datetime",
            dt.datetime(2024, 1, 1, 10, 0, 0, 127000),
            "CONVERT(DATETIME, ?)",
            "2024-01-01T10:00:00.127",
            "2024-01-01T10:00:00.127",
        ),
        (
            "datetime2(7)",
            dt.datetime(2024, 1, 1, 10, 0, 0, 1),
            "CONVERT(DATETIME2(7), ?)",
            "2024-01-01T10:00:00.0000010",
            "2024-01-01T10:00:00.0000019",
        ),
        (
            "datetimeoffset(7)",
            dt.datetime(2024, 1, 1, 12, 0, 0, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            "CONVERT(DATETIMEOFFSET(7), ?)",
            "2024-01-01T10:00:00.0000010+00:00",
            "2024-01-01T10:00:00.0000019+00:00",
        ),
        ("timestamp", 7, "CONVERT(BINARY(8), CONVERT(BIGINT, ?))", 7, 7),
    ],
)
def test_b9_a_cursor_value_is_compared_in_the_columns_own_type(
    system_type: str, value: Any, asked: str, since: object, until: object
) -> None:
    column = column_of(announced("v", system_type, None, 9, 2, 8), declared=None, where="t")
    assert bound_node(column, exp.Placeholder()).sql(dialect="tsql", normalize_functions=False) == asked
    assert (bound_value(column, value, last=False), bound_value(column, value, last=True)) == (since, until)


def test_rows_are_read_in_a_snapshot_that_begins_after_the_columns_are_known(server: SqlServer) -> None:
    server.behind.put("rows", pa.table({"id": [1, 2]}))
    read(connected(), cursor="id", since=2, filter="id < 10")
    assert sent(server) == [
        "SET TRANSACTION ISOLATION LEVEL SNAPSHOT",
        "SELECT [id] AS [id] FROM [dbo].[rows] WHERE (id < 10) AND [id] >= ?",
    ]


def test_a_database_without_snapshots_is_refused_until_that_is_accepted(server: SqlServer) -> None:
    server.snapshot = False
    server.behind.put("rows", pa.table({"id": [1, 2]}))
    with pytest.raises(SourceError, match=r"ALTER DATABASE \[sales\] SET ALLOW_SNAPSHOT_ISOLATION ON"):
        read(connected())
    assert read(connected(isolation="read_committed")).num_rows == 2
    assert sent(server)[0] == "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"


def test_b10_row_versions_of_open_transactions_are_left_for_the_next_load(server: SqlServer) -> None:
    server.open_from = 103
    versions = pa.array([101, 102, 103, 104], pa.uint64())
    server.behind.put("rows", pa.table({"id": [1, 2, 3, 4], "rv": versions}))
    found = read(connected(), columns=("id",), cursor="rv", since=102)
    assert found.column("id").to_pylist() == [2]
    asked, isolation, rows = sent(server)
    assert "MIN_ACTIVE_ROWVERSION" in asked, "before the snapshot: what ends between the two is then in it"
    assert "SNAPSHOT" in isolation
    assert "[rv] < CONVERT(BINARY(8), CONVERT(BIGINT, 103))" in rows
    assert read(connected()).num_rows == 4, "a read without cursor sees every row"


def test_b10_a_replica_cannot_tell_open_row_versions(server: SqlServer) -> None:
    server.behind.put("rows", pa.table({"rv": pa.array([1], pa.uint64())}))
    with pytest.raises(SourceError, match="read from the primary"):
        read(connected(read_only_replica=True), cursor="rv")
    assert server.connected[-1]["applicationintent"] == "ReadOnly"


def test_a_column_of_any_length_comes_in_smaller_batches(server: SqlServer) -> None:
    server.behind.put("rows", pa.table({"id": range(100), "note": ["x"] * 100}))
    options = SqlServerSource.ObjectOptions(large_value_rows=10)
    with closing(connected()) as source:
        sizes = [batch.num_rows for batch in source.read(ReadRequest(object="rows", options=options, batch_rows=10))]
    assert sizes == [10] * 10


def test_a_declared_type_is_held_to(server: SqlServer) -> None:
    server.behind.put("rows", pa.table({"v": ["1", "x"]}))
    options = SqlServerSource.ObjectOptions(columns={"v": "integer"})
    with pytest.raises(SourceError, match="1 hold a value in column 'v' that does not fit its type integer"):
        read(connected(), options=options)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({}, {"uid": "reader", "pwd": "pass", "encrypt": "mandatory", "trustservercertificate": "no"}),
        ({"login": "service_principal"}, {"authentication": "ActiveDirectoryServicePrincipal", "uid": "reader"}),
        (
            {"login": "managed_identity", "user": None, "password": None},
            {"authentication": "ActiveDirectoryMSI", "encrypt": "mandatory"},
        ),
        ({"encrypt": "strict", "host_in_certificate": "x"}, {"encrypt": "strict", "hostnameincertificate": "x"}),
    ],
)
def test_the_connection_is_encrypted_and_logs_in_as_declared(
    server: SqlServer, options: dict[str, Any], values: dict[str, str]
) -> None:
    server.behind.put("rows", pa.table({"id": [1]}))
    read(connected(**options))
    (given,) = server.connected
    assert given.items() >= {"server": "tcp:db.example.com,1433", "database": "sales", **values}.items()


@pytest.mark.parametrize("missing", ["user", "password"])
def test_a_login_without_user_or_password_is_refused(missing: str) -> None:
    with pytest.raises(ValidationError, match="login sql needs 'user' and 'password'"):
        SqlServerSource.Options(**{name: value for name, value in LOGIN.items() if name != missing})


def test_a_refused_login_is_said_without_the_password(server: SqlServer) -> None:
    with pytest.raises(SourceError, match=r"cannot connect to database 'sales' at db.example.com:1433") as caught:
        read(connected(secret=f"wrong-{CANARY}"))
    assert "Invalid authorization specification (OperationalError)" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_driver_takes_the_values_of_a_connection() -> None:
    """What is passed is known to the real driver: none of it is ignored or refused."""
    from mssql_python.connection_string_parser import _ConnectionStringParser

    source = connected(host_in_certificate="x", server_certificate="y", login="service_principal")
    from platform_core.sources.sqlserver import _connection_values

    values = _connection_values(source.options, source.secret)
    assert len(_ConnectionStringParser._normalize_params(values)) == len(values)


def test_a_driver_without_its_libraries_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise mssql_python.OperationalError("Connection operation failed", "Failed to load the driver. Please read …")

    monkeypatch.setattr(mssql_python, "connect", refuse)
    with pytest.raises(PluginError, match="apt-get install libltdl7"):
        connected().schema(ReadRequest(object="t"))


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mssql_python", None)
    with pytest.raises(PluginError, match=r"edp-platform-core\[sqlserver\]"):
        connected().schema(ReadRequest(object="t"))
