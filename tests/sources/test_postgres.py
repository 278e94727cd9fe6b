"""The source postgres, on a real server."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite, no_secrets
from platform_core.sources.postgres import PostgresSource
from platform_core.sources.postgres_catalog import Announced
from platform_core.sources.postgres_types import column_of
from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.services
DECLARED = {
    pa.int64(): "bigint",
    pa.string(): "text",
    pa.decimal128(18, 2): "numeric(18,2)",
    pa.float64(): "double precision",
    pa.bool_(): "boolean",
    pa.date32(): "date",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("us", tz="UTC"): "timestamptz",
    pa.binary(): "bytea",
}


def connected(server: PostgresServer, database: str, **options: Any) -> PostgresSource:
    given = {
        "host": server.host,
        "port": server.port,
        "database": database,
        "user": server.user,
        "password": {"secret": "crm/reader"},
        **options,
    }
    return PostgresSource(PostgresSource.Options(**given), secret=lambda name: Secret(name, server.password.encode()))


@pytest.fixture
def source(postgres_server: PostgresServer, postgres_database: str) -> PostgresSource:
    return connected(postgres_server, postgres_database)


@pytest.fixture
def run(postgres_server: PostgresServer, postgres_database: str) -> Callable[..., None]:
    return lambda *statements: postgres_server.execute(*statements, database=postgres_database)


def read(source: PostgresSource, object_: str, *, types: dict[str, str] | None = None, **request: Any) -> pa.Table:
    options = PostgresSource.ObjectOptions(columns=types or {})
    with closing(source):
        return source.read(ReadRequest(object=object_, options=options, **request)).read_all()


class TestPostgres(SourceSuite):
    @pytest.fixture
    def place_more(self, postgres_server: PostgresServer, postgres_database: str) -> Callable[[pa.Table], None]:
        def put(rows: pa.Table) -> None:
            values = ["(" + ", ".join(literal(value) for value in row.values()) + ")" for row in rows.to_pylist()]
            postgres_server.execute(f"INSERT INTO rows VALUES {', '.join(values)}", database=postgres_database)

        return put

    @pytest.fixture
    def place(self, postgres_server: PostgresServer, postgres_database: str, source: PostgresSource) -> Place:
        def put(rows: pa.Table) -> Placed:
            columns = ", ".join(f'"{field.name}" {DECLARED[field.type]}' for field in rows.schema)
            values = ["(" + ", ".join(literal(value) for value in row.values()) + ")" for row in rows.to_pylist()]
            statements = [f"CREATE TABLE rows ({columns})"]
            if values:
                statements.append(f"INSERT INTO rows VALUES {', '.join(values)}")
            postgres_server.execute(*statements, database=postgres_database)
            return source, ReadRequest(object="rows")

        return put

    @pytest.fixture
    def place_broken(self, run: Callable[..., None], source: PostgresSource) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            run(
                "CREATE TABLE kept (id bigint, v text)",
                "INSERT INTO kept SELECT n, n::text FROM generate_series(1, 50000) n",
                f"INSERT INTO kept VALUES (50001, '{text}')",
                "CREATE VIEW rows AS SELECT id, v::bigint AS v FROM kept",
            )
            return source, ReadRequest(object="rows", batch_rows=100)

        return put


def literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    return "'" + str(value).replace("'", "''") + "'"


@pytest.mark.parametrize(
    ("declared", "value", "type_", "expected"),
    [
        ("numeric(10,2)", "0.10", pa.decimal128(10, 2), Decimal("0.10")),
        ("numeric(18,0)", "-999999999999999999", pa.decimal128(18, 0), Decimal("-999999999999999999")),
        ("numeric(38,4)", "1234567890123456789012345678901234.5678", pa.decimal128(38, 4), None),
        ("numeric(3,-2)", "99900", pa.decimal128(5, 0), Decimal("99900")),
        ("numeric(2,4)", "0.0099", pa.decimal128(4, 4), Decimal("0.0099")),
        ("numeric", "1.50000000000000", pa.decimal128(38, 10), Decimal("1.5")),
        ("money", "12.34", pa.decimal128(38, 10), Decimal("12.34")),
        ("smallint", "-7", pa.int16(), -7),
        ("oid", "4000000000", pa.int64(), 4_000_000_000),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", pa.string(), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("jsonb", '{"a":1}', pa.string(), '{"a": 1}'),
        ("json", '{"a":1}', pa.string(), '{"a":1}'),
        ("int[]", "{1,NULL}", pa.list_(pa.int32()), [1, None]),
        ("text[]", '{"",NULL,"a,b"}', pa.list_(pa.string()), ["", None, "a,b"]),
        ("numeric(10,2)[]", "{0.10,NULL}", pa.list_(pa.decimal128(10, 2)), [Decimal("0.10"), None]),
        ("uuid[]", "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", pa.list_(pa.string()), None),
        ("date[]", "{0001-01-01,9999-12-31}", pa.list_(pa.date32()), [dt.date.min, dt.date.max]),
        ("time", "12:00:00.000001", pa.string(), "12:00:00.000001"),
        ("interval", "1 day 2 hours", pa.string(), "P1DT2H"),
        ("inet", "10.0.0.1/8", pa.string(), "10.0.0.1/8"),
        ("char(4)", "x", pa.string(), "x   "),
        ("timestamptz", "2024-07-01 12:00:00.000001+02", pa.timestamp("us", tz="UTC"), None),
    ],
)
def test_each_type_arrives_exactly(
    run: Callable[..., None], source: PostgresSource, declared: str, value: str, type_: pa.DataType, expected: object
) -> None:
    run(f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES (NULL), ('{value}')")
    if pa.types.is_timestamp(type_):
        expected = dt.datetime(2024, 7, 1, 10, 0, 0, 1, tzinfo=dt.UTC)
    if declared == "uuid[]":
        expected = ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]
    table = read(source, "t")
    assert table.schema.field("v").type == type_
    assert table.column("v").to_pylist() == [None, expected or Decimal(value)]


def test_domains_and_enums_arrive_as_what_they_are_made_of(run: Callable[..., None], source: PostgresSource) -> None:
    run(
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE DOMAIN price AS numeric(8,3)",
        "CREATE DOMAIN list_price AS price CHECK (value > 0)",
        "CREATE TABLE t (m mood, p list_price)",
        "INSERT INTO t VALUES ('good', 1.5)",
    )
    assert read(source, "t").to_pylist() == [{"m": "good", "p": Decimal("1.500")}]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("timestamptz", "infinity"),
        ("timestamp", "-infinity"),
        ("timestamp", "294270-01-01"),
        ("date", "infinity"),
        ("date", "-infinity"),
        ("numeric", "NaN"),
        ("numeric", "0.12345678901"),
        ("numeric(5,2)", "NaN"),
    ],
)
def test_a_value_that_arrow_cannot_hold_is_refused(
    run: Callable[..., None], source: PostgresSource, declared: str, value: str
) -> None:
    run(f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES ('{value}')")
    with pytest.raises(SourceError, match=r"column 'v' that does not fit its type|cannot convert NaN"):
        read(source, "t")


def test_a_numeric_beyond_38_digits_asks_for_a_type(run: Callable[..., None], source: PostgresSource) -> None:
    run("CREATE TABLE t (v numeric(50,2))", "INSERT INTO t VALUES (1.5)")
    with pytest.raises(SourceError, match=r"columns: \{v: text\}"):
        read(source, "t")
    assert read(source, "t", types={"v": "decimal(38,2)"}).to_pylist() == [{"v": Decimal("1.50")}]


def test_a_wrong_name_lists_tables_of_all_schemas(run: Callable[..., None], source: PostgresSource) -> None:
    run("CREATE SCHEMA sales", "CREATE TABLE sales.orders (id int)")
    with pytest.raises(SourceError, match=r"known tables: sales.orders\n  did you mean 'sales.orders'\?"):
        read(source, "sales.ordesr")


def test_names_are_quoted_and_never_folded(run: Callable[..., None], source: PostgresSource) -> None:
    run('CREATE SCHEMA "Odd.S"', 'CREATE TABLE "Odd.S"."a ""t""" ("select" int, "x;--" text)')
    run('INSERT INTO "Odd.S"."a ""t""" VALUES (1, NULL)')
    assert read(source, '"Odd.S"."a ""t"""', cursor="select", since=0).to_pylist() == [{"select": 1, "x;--": None}]


def test_a_watermark_cannot_become_part_of_the_statement(run: Callable[..., None], source: PostgresSource) -> None:
    run("CREATE TABLE t (v text)", "INSERT INTO t VALUES ('a'), ('''); DROP TABLE t; --')")
    assert read(source, "t", cursor="v", since="'); DROP TABLE t; --").num_rows == 2
    assert read(source, "t").num_rows == 2


def test_a_text_cursor_is_compared_by_code_point_in_any_collation() -> None:
    # The server's own binaries know no other collation, so it is the statement that shows it.
    column = column_of(Announced("v", "text", -1, None), declared=None, where="t")
    assert column.ordered.sql(dialect="postgres") == '"v" COLLATE "C"'


def test_a_column_without_an_order_is_refused_as_cursor(run: Callable[..., None], source: PostgresSource) -> None:
    run("CREATE TABLE t (v jsonb)")
    with pytest.raises(SourceError, match="column 'v' of type text cannot be a cursor"):
        read(source, "t", cursor="v", since="{}")


def test_a_read_sees_one_moment(run: Callable[..., None], source: PostgresSource) -> None:
    run(
        "CREATE TABLE t (v int, filler text)",
        "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n",
    )
    with closing(source):
        reader = source.read(ReadRequest(object="t", columns=("v",), batch_rows=100))
        rows = reader.read_next_batch().num_rows
        run("DELETE FROM t WHERE v > 10")
        assert rows + reader.read_all().num_rows == 50_000


def test_nothing_can_be_written_through_the_source(run: Callable[..., None], source: PostgresSource) -> None:
    run(
        "CREATE TABLE t (v int)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING v'",
        "CREATE VIEW w AS SELECT f() AS v",
    )
    with pytest.raises(SourceError, match="the server says: read-only transaction"):
        read(source, "w")


def test_a_server_that_goes_away_while_rows_stream_is_an_error(
    run: Callable[..., None], source: PostgresSource, postgres_database: str
) -> None:
    run("CREATE TABLE t AS SELECT n AS v, repeat('x', 1000) AS filler FROM generate_series(1, 60000) n")
    with closing(source):
        reader = source.read(ReadRequest(object="t", batch_rows=100))
        reader.read_next_batch()
        run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{postgres_database}' AND application_name = 'edp'"
        )
        with pytest.raises(SourceError, match="the connection broke, or the server went away"):
            reader.read_all()


def test_closing_ends_the_session_at_the_server(
    run: Callable[..., None], source: PostgresSource, postgres_server: PostgresServer, postgres_database: str
) -> None:
    run("CREATE TABLE t AS SELECT n AS v, repeat('x', 1000) AS filler FROM generate_series(1, 60000) n")
    source.read(ReadRequest(object="t", batch_rows=100)).read_next_batch()
    source.close()
    with postgres_server.connect(postgres_database) as connection, connection.cursor() as cursor:
        # The server notices a moment after the client has gone: wait for it there, two seconds at most.
        cursor.execute(
            "SELECT count(*) FROM (SELECT pg_sleep(0.5)) s, "
            "LATERAL (SELECT 1 FROM pg_stat_activity WHERE application_name = 'edp' AND datname = current_database()) a"
        )
        assert cursor.fetchall() == [(0,)]


def test_a_wrong_password_is_said_without_showing_it(postgres_server: PostgresServer, postgres_database: str) -> None:
    options = connected(postgres_server, postgres_database).options
    source = PostgresSource(options, secret=lambda name: Secret(name, CANARY.encode()))
    with pytest.raises(SourceError, match="password authentication failed") as caught:
        read(source, "t")
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_password_with_every_odd_character_works(postgres_server: PostgresServer, postgres_database: str) -> None:
    password = r"""a 'b" \c=d%20&?é"""
    quoted = password.replace("'", "''")
    postgres_server.execute(
        "CREATE TABLE t (v int)",
        f"CREATE ROLE odd LOGIN PASSWORD '{quoted}'",
        "GRANT SELECT ON t TO odd",
        database=postgres_database,
    )
    options = connected(postgres_server, postgres_database, user="odd").options
    source = PostgresSource(options, secret=lambda name: Secret(name, password.encode()))
    assert read(source, "t").num_rows == 0
    postgres_server.execute("DROP OWNED BY odd", "DROP ROLE odd", database=postgres_database)


def test_a_missing_privilege_says_what_to_grant(
    run: Callable[..., None], postgres_server: PostgresServer, postgres_database: str
) -> None:
    run("CREATE TABLE t (v int)", "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    options = connected(postgres_server, postgres_database, user="guest").options
    source = PostgresSource(options, secret=lambda name: Secret(name, b"guest"))
    with pytest.raises(SourceError, match="no SELECT privilege on it; grant it"):
        read(source, "t")
    run("DROP ROLE guest")


def test_an_unreachable_server_is_named(postgres_server: PostgresServer) -> None:
    source = connected(postgres_server, "postgres", port=1)
    with pytest.raises(SourceError, match=r"cannot connect to database 'postgres' at 127.0.0.1:1 as 'postgres'"):
        read(source, "t")


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    source = PostgresSource(PostgresSource.Options(host="x", database="x", user="x"), secret=no_secrets)
    with pytest.raises(PluginError, match=r"edp-platform-core\[postgres\]"):
        source.schema(ReadRequest(object="t"))


def test_the_schema_of_an_object_without_one_is_configurable(
    run: Callable[..., None], postgres_server: PostgresServer, postgres_database: str
) -> None:
    run("CREATE SCHEMA sales", "CREATE TABLE sales.t (v int)", "INSERT INTO sales.t VALUES (1)")
    assert read(connected(postgres_server, postgres_database, schema="sales"), "t").to_pylist() == [{"v": 1}]


def test_memory_does_not_grow_with_the_table(run: Callable[..., None], source: PostgresSource) -> None:
    run("CREATE TABLE t AS SELECT n AS v, repeat('x', 200) AS filler FROM generate_series(1, 300000) n")
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    peak = 0
    with closing(source):
        for _ in source.read(ReadRequest(object="t")):
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 40_000_000  # the table is 61 MB
