"""The source oracle, on a stand-in behind its driver's DB-API: no Oracle database runs here."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import oracledb
import pyarrow as pa
import pytest
from sqlglot import exp

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite
from platform_core.sources.cursor_rows import Column, exactly
from platform_core.sources.oracle import OracleSource
from platform_core.sources.oracle_types import Announced, bound_node, bound_value, column_of
from platform_core.sources.types import UnfitError
from tests.sources.stand_in_oracle import Oracle

LOGIN = {"host": "db.example.com", "service_name": "SALES", "user": "reader", "password": {"secret": "crm/reader"}}
TIME = 'SYYYY-MM-DD"T"HH24:MI:SS.FF9'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Oracle]:
    started = Oracle()
    monkeypatch.setattr(oracledb, "connect", started.connect)
    yield started
    assert started.open == 0, "every connection is closed"


def connected(*, secret: str = "pass", **options: Any) -> OracleSource:
    given = OracleSource.Options(**{**LOGIN, **options})
    return OracleSource(given, secret=lambda name: Secret(name, secret.encode()))


def read(source: OracleSource, **request: Any) -> pa.Table:
    with closing(source):
        return source.read(ReadRequest(**{"object": "ROWS", **request})).read_all()


class TestOracle(SourceSuite):
    """``DATE`` has a time of day at Oracle, so that a day is one by declaration."""

    @pytest.fixture
    def place(self, server: Oracle) -> Place:
        def put(rows: pa.Table) -> Placed:
            server.behind.put("ROWS", rows)
            days = {field.name: "date" for field in rows.schema if field.type == pa.date32()}
            return connected(), ReadRequest(object="ROWS", options=OracleSource.ObjectOptions(columns=days))

        return put

    @pytest.fixture
    def place_broken(self, server: Oracle) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            server.behind.put("KEPT", pa.table({"id": range(50_001), "v": [*map(str, range(50_000)), text]}))
            server.behind.run('CREATE VIEW "READER"."ROWS" AS SELECT id, v::BIGINT AS v FROM "READER"."KEPT"')
            return connected(), ReadRequest(object="ROWS", batch_rows=100)

        return put


@pytest.mark.parametrize(
    ("kind", "precision", "scale", "type_", "asked"),
    [
        ("NUMBER", 18, 0, pa.int64(), '"v"'),
        ("NUMBER", 19, 0, pa.decimal128(19, 0), '"v"'),
        ("NUMBER", 38, 10, pa.decimal128(38, 10), '"v"'),
        ("NUMBER", 0, -127, pa.decimal128(38, 10), "TO_CHAR(\"v\", 'TM9')"),
        ("NUMBER", 126, -127, pa.decimal128(38, 10), "TO_CHAR(\"v\", 'TM9')"),
        ("NUMBER", 3, -2, pa.decimal128(5, 0), "TO_CHAR(\"v\", 'TM9')"),
        ("NUMBER", 2, 4, pa.decimal128(4, 4), "TO_CHAR(\"v\", 'TM9')"),
        ("BINARY_FLOAT", 0, 0, pa.float32(), '"v"'),
        ("BINARY_DOUBLE", 0, 0, pa.float64(), '"v"'),
        ("VARCHAR", 0, 0, pa.string(), '"v"'),
        ("NCLOB", 0, 0, pa.string(), '"v"'),
        ("RAW", 0, 0, pa.binary(), '"v"'),
        ("ROWID", 0, 0, pa.string(), 'ROWIDTOCHAR("v")'),
        ("INTERVAL_DS", 0, 0, pa.string(), 'TO_CHAR("v")'),
        ("DATE", 0, 0, pa.timestamp("us"), 'TO_CHAR("v", \'SYYYY-MM-DD"T"HH24:MI:SS\')'),
        ("TIMESTAMP", 0, 9, pa.timestamp("us"), f"TO_CHAR(\"v\", '{TIME}')"),
        (
            "TIMESTAMP_TZ",
            0,
            6,
            pa.timestamp("us", tz="UTC"),
            f"TO_CHAR(SYS_EXTRACT_UTC(\"v\"), '{TIME}')",
        ),
        (
            "TIMESTAMP_LTZ",
            0,
            6,
            pa.timestamp("us", tz="UTC"),
            f"TO_CHAR(SYS_EXTRACT_UTC(\"v\"), '{TIME}')",
        ),
    ],
)
def test_b16_each_type_is_asked_for_so_that_it_arrives_exactly(
    kind: str, precision: int, scale: int, type_: pa.DataType, asked: str
) -> None:
    column = column_of(Announced("v", f"DB_TYPE_{kind}", precision, scale), declared=None, where="t")
    assert (column.type, column.expression.sql(dialect="oracle")) == (type_, asked)


def test_a_number_beyond_38_digits_asks_for_a_type() -> None:
    wide = Announced("v", "DB_TYPE_NUMBER", 38, -20)
    with pytest.raises(SourceError, match=r"columns: \{v: text\}"):
        column_of(wide, declared=None, where="t")
    assert column_of(wide, declared=pa.string(), where="t").type == pa.string()


@pytest.mark.parametrize("kind", ["JSON", "XMLTYPE", "OBJECT", "VECTOR", "BFILE", "CURSOR"])
def test_a_type_that_the_lake_does_not_have_is_refused(kind: str) -> None:
    with pytest.raises(SourceError, match=f"column 'v' is of type {kind}, which the lake does not have"):
        column_of(Announced("v", f"DB_TYPE_{kind}", 0, 0), declared=None, where="t")


@pytest.mark.parametrize(
    ("kind", "value", "asked", "since", "until"),
    [
        ("NUMBER", Decimal("1.10"), ":v", Decimal("1.10"), Decimal("1.10")),
        (
            "DATE",
            dt.datetime(2024, 1, 1, 10, 0, 0, 5),
            "TO_DATE(:v, 'SYYYY-MM-DD\"T\"HH24:MI:SS')",
            "2024-01-01T10:00:00",
            "2024-01-01T10:00:00",
        ),
        (
            "DATE",
            dt.date(2024, 2, 29),
            "TO_DATE(:v, 'SYYYY-MM-DD\"T\"HH24:MI:SS')",
            "2024-02-29T00:00:00",
            "2024-02-29T23:59:59",
        ),
        (
            "TIMESTAMP",
            dt.datetime(2024, 1, 1, 10, 0, 0, 1),
            f"TO_TIMESTAMP(:v, '{TIME}')",
            "2024-01-01T10:00:00.000001000",
            "2024-01-01T10:00:00.000001999",
        ),
        (
            "TIMESTAMP_LTZ",
            dt.datetime(2024, 1, 1, 12, 0, 0, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            f"TO_TIMESTAMP_TZ(:v, '{TIME}TZH:TZM')",
            "2024-01-01T10:00:00.000001000+00:00",
            "2024-01-01T10:00:00.000001999+00:00",
        ),
    ],
)
def test_b9_a_cursor_value_is_compared_in_the_columns_own_type(
    kind: str, value: Any, asked: str, since: object, until: object
) -> None:
    column = column_of(Announced("v", f"DB_TYPE_{kind}", 9, 2), declared=None, where="t")
    assert bound_node(column, exp.Placeholder(this="v")).sql(dialect="oracle", normalize_functions=False) == asked
    assert (bound_value(column, value, last=False), bound_value(column, value, last=True)) == (since, until)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("NUMBER", ".5", Decimal("0.5")),
        ("NUMBER", "-1234567890123456789012345678.0123456789", None),
        ("NUMBER", "1E+3", Decimal(1000)),
        ("DATE", " 2024-02-29T23:59:59", dt.datetime(2024, 2, 29, 23, 59, 59)),
        ("TIMESTAMP", " 9999-12-31T23:59:59.999999999", dt.datetime(9999, 12, 31, 23, 59, 59, 999999)),
        ("TIMESTAMP_TZ", " 2024-01-01T10:00:00.000001999", dt.datetime(2024, 1, 1, 10, 0, 0, 1, tzinfo=dt.UTC)),
    ],
)
def test_b16_the_servers_texts_become_their_values(kind: str, text: str, expected: object) -> None:
    column = column_of(Announced("v", f"DB_TYPE_{kind}", 0, 0), declared=None, where="t")
    assert exactly(pa.array([text, None]), column).to_pylist() == [
        Decimal(text) if expected is None else expected,
        None,
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("NUMBER", ".00000000001"),
        ("NUMBER", "1E+40"),
        ("NUMBER", 0.5),
        ("DATE", "-0044-03-15T12:00:00"),
        ("TIMESTAMP", "-4712-01-01T00:00:00.000000000"),
    ],
)
def test_b16_what_the_lake_cannot_hold_is_refused(kind: str, value: object) -> None:
    column = column_of(Announced("v", f"DB_TYPE_{kind}", 0, 0), declared=None, where="t")
    with pytest.raises(UnfitError):
        exactly(pa.array([value]), column)


def test_b16_a_time_of_day_is_not_cut_off_to_make_a_day() -> None:
    column = column_of(Announced("v", "DB_TYPE_DATE", 0, 0), declared=pa.date32(), where="t")
    assert exactly(pa.array([" 2024-02-29T00:00:00", None]), column).to_pylist() == [dt.date(2024, 2, 29), None]
    with pytest.raises(UnfitError, match="1 values"):
        exactly(pa.array([" 2024-02-29T00:00:00", " 2024-02-29T00:00:01"]), column)


def test_b16_a_number_is_a_truth_only_if_it_is_0_or_1() -> None:
    column: Column = column_of(Announced("v", "DB_TYPE_NUMBER", 1, 0), declared=pa.bool_(), where="t")
    assert exactly(pa.array([0, 1, None], pa.int64()), column).to_pylist() == [False, True, None]
    with pytest.raises(UnfitError, match="1 values"):
        exactly(pa.array([0, 2], pa.int64()), column)


def test_rows_are_read_in_one_read_only_transaction(server: Oracle) -> None:
    server.behind.put("ROWS", pa.table({"ID": [1, 2]}))
    assert read(connected(), cursor="ID", since=2, filter="ID < 10").num_rows == 1
    session, numbers, transaction, (rows, values) = [
        *(text for text, _ in server.behind.sent[:3]),
        *server.behind.sent[3:],
    ]
    assert session == "ALTER SESSION SET TIME_ZONE = '+00:00'"
    assert "NLS_NUMERIC_CHARACTERS = '.,'" in numbers
    assert transaction == "SET TRANSACTION READ ONLY"
    assert (rows, values) == (
        'SELECT "ID" AS "ID" FROM "READER"."ROWS" WHERE (ID < 10) AND "ID" >= :edp1',
        {"edp1": 2},
    )


def test_a_name_in_small_letters_is_not_folded_but_explained(server: Oracle) -> None:
    server.behind.put("ORDERS", pa.table({"ID": [1]}))
    with pytest.raises(SourceError, match=r"in capitals unless(.|\n)*did you mean 'READER.ORDERS'\?"):
        read(connected(), object="orders_x")


def test_columns_of_any_length_come_in_smaller_batches(server: Oracle) -> None:
    server.behind.put("ROWS", pa.table({"ID": range(100), "NOTE": pa.array([b"x"] * 100)}))
    options = OracleSource.ObjectOptions(large_value_rows=10)
    sizes: list[int] = []
    behind = server.behind
    plain = behind.rows

    def noted(statement: str, parameters: Any, *, batch_rows: int) -> pa.RecordBatchReader:
        sizes.append(batch_rows)
        return plain(statement, parameters, batch_rows=batch_rows)

    behind.rows = noted  # type: ignore[method-assign]
    assert read(connected(), options=options).num_rows == 100
    assert read(connected(), options=options, columns=("ID",)).num_rows == 100
    assert sizes == [10, 65_536]


def test_a_refused_login_is_said_without_the_password(server: Oracle) -> None:
    with pytest.raises(SourceError, match=r"cannot connect to service 'SALES' at db\.example\.com:1521") as caught:
        read(connected(secret=f"wrong-{CANARY}"))
    assert "the server refuses user or password (DatabaseError, ORA-01017)" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_driver_takes_the_values_of_a_connection(server: Oracle) -> None:
    """What is passed is known to the real driver, which refuses what it does not know."""
    server.behind.put("ROWS", pa.table({"ID": [1]}))
    read(connected(protocol="tcps", wallet_location="/wallet", wallet_password={"secret": "crm/wallet"}))
    (given,) = server.connected
    given.pop("password"), given.pop("wallet_password")
    assert oracledb.ConnectParams(**given).get_connect_string().startswith("(DESCRIPTION=")
    assert given["ssl_server_dn_match"] is True


def test_an_unreachable_server_is_named_by_the_real_driver() -> None:
    with pytest.raises(SourceError, match=r"at 127.0.0.1:1 as 'reader': .*DPY-6005"):
        read(connected(host="127.0.0.1", port=1))


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "oracledb", None)
    with pytest.raises(PluginError, match=r"edp-platform-core\[oracle\]"):
        connected().schema(ReadRequest(object="T"))
