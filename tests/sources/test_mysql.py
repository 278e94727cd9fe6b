"""The source mysql, on a real MariaDB."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest
from platform_core.plugins.testing import Place, Placed, SourceSuite
from platform_core.sources.mysql import MysqlSource
from tests.services.mariadb import MariaDBServer
from tests.sources.mysql_reading import Run, asked, connected, read, values

pytestmark = pytest.mark.services
DECLARED = {
    pa.int64(): "bigint",
    pa.string(): "text",
    pa.decimal128(18, 2): "decimal(18,2)",
    pa.float64(): "double",
    pa.bool_(): "boolean",
    pa.date32(): "date",
    pa.timestamp("us"): "datetime(6)",
    # TIMESTAMP ends in 2038: what lies beyond stands in a DATETIME that is declared to be UTC.
    pa.timestamp("us", tz="UTC"): "datetime(6)",
    pa.binary(): "blob",
}
UTC = dt.UTC


@pytest.fixture
def source(mariadb_server: MariaDBServer, mariadb_database: str) -> MysqlSource:
    return connected(mariadb_server, mariadb_database)


@pytest.fixture
def run(mariadb_server: MariaDBServer, mariadb_database: str) -> Run:
    return lambda *statements: mariadb_server.execute(*statements, database=mariadb_database)


class TestMysql(SourceSuite):
    @pytest.fixture
    def place(self, mariadb_server: MariaDBServer, mariadb_database: str, source: MysqlSource) -> Place:
        def put(rows: pa.Table) -> Placed:
            columns = ", ".join(f"`{field.name}` {DECLARED[field.type]}" for field in rows.schema)
            statement = f"INSERT INTO `rows` VALUES ({', '.join(['%s'] * rows.num_columns)})"
            with mariadb_server.connect(mariadb_database) as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE TABLE `rows` ({columns})")
                cursor.executemany(statement, [list(row.values()) for row in rows.to_pylist()])
            in_utc = {field.name: "timestamptz" for field in rows.schema if field.type == pa.timestamp("us", tz="UTC")}
            return source, ReadRequest(object="rows", options=MysqlSource.ObjectOptions(columns=in_utc))

        return put

    @pytest.fixture
    def place_broken(self, run: Run, source: MysqlSource) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            run(
                "CREATE TABLE kept (id bigint, v text)",
                "INSERT INTO kept SELECT seq, seq FROM seq_1_to_50000",
                f"INSERT INTO kept VALUES (50001, '{text}')",
                "CREATE FUNCTION checked(v text) RETURNS text DETERMINISTIC BEGIN IF v REGEXP '[a-z]' THEN "
                "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = v; END IF; RETURN v; END",
                "CREATE VIEW `rows` AS SELECT id, checked(v) AS v FROM kept",
            )
            return source, ReadRequest(object="rows", batch_rows=100)

        return put


class TestTextHeldToANumber(TestMysql):
    """The same promises where the row that cannot be read is found here and not at the server."""

    @pytest.fixture
    def place_broken(self, run: Run, source: MysqlSource) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            run("CREATE TABLE t (v text)", f"INSERT INTO t VALUES ('1'), ('{text}')")
            return source, asked(types={"v": "integer"})

        return put


@pytest.mark.parametrize(
    ("declared", "value", "type_", "expected"),
    [
        ("decimal(10,2)", "0.10", pa.decimal128(10, 2), Decimal("0.10")),
        ("decimal(18,0)", "-999999999999999999", pa.decimal128(18, 0), Decimal("-999999999999999999")),
        ("decimal(38,4)", "1234567890123456789012345678901234.5678", pa.decimal128(38, 4), None),
        ("decimal(4,4)", "-0.0099", pa.decimal128(4, 4), Decimal("-0.0099")),
        ("decimal(10,0) unsigned", "9999999999", pa.decimal128(10, 0), Decimal(9999999999)),
        ("decimal(6,2) unsigned zerofill", "1.5", pa.decimal128(6, 2), Decimal("1.50")),
        ("tinyint", "-128", pa.int8(), -128),
        ("tinyint unsigned", "255", pa.int16(), 255),
        ("tinyint(1)", "1", pa.bool_(), True),
        ("tinyint(1) unsigned", "7", pa.int16(), 7),
        ("smallint", "-32768", pa.int16(), -32768),
        ("smallint unsigned", "65535", pa.int32(), 65535),
        ("mediumint unsigned", "16777215", pa.int32(), 16777215),
        ("int", "-2147483648", pa.int32(), -(2**31)),
        ("int unsigned", "4294967295", pa.int64(), 2**32 - 1),
        ("int(6) zerofill", "42", pa.int64(), 42),
        ("bigint", "-9223372036854775808", pa.int64(), -(2**63)),
        ("bigint unsigned", "18446744073709551615", pa.decimal128(20, 0), Decimal(2**64 - 1)),
        ("float", "16777215", pa.float32(), 16777215.0),
        ("double", "-1.7976931348623157e308", pa.float64(), -1.7976931348623157e308),
        ("double(10,2)", "1.25", pa.float64(), 1.25),
        ("bit(1)", "b'1'", pa.bool_(), True),
        ("bit(12)", "b'101000000001'", pa.int64(), 2561),
        ("bit(64)", "0xFFFFFFFFFFFFFFFF", pa.decimal128(20, 0), Decimal(2**64 - 1)),
        ("year", "2155", pa.int16(), 2155),
        ("date", "1000-01-01", pa.date32(), dt.date(1000, 1, 1)),
        ("time", "-838:59:59", pa.string(), "-838:59:59"),
        ("time(6)", "12:00:00.000001", pa.string(), "12:00:00.000001"),
        ("datetime", "9999-12-31 23:59:59", pa.timestamp("us"), dt.datetime(9999, 12, 31, 23, 59, 59)),
        ("datetime(3)", "2024-01-01 10:00:00.120", pa.timestamp("us"), dt.datetime(2024, 1, 1, 10, 0, 0, 120000)),
        ("char(4)", "x", pa.string(), "x"),
        ("varchar(40)", "Zoë 北京 🚲", pa.string(), "Zoë 北京 🚲"),
        ("varchar(10) character set latin1", "Zoë€", pa.string(), "Zoë€"),
        ("longtext", "", pa.string(), ""),
        ("enum('good', 'bad')", "good", pa.string(), "good"),
        ("set('a', 'b', 'c')", "a,c", pa.string(), "a,c"),
        ("json", '{"a": 1}', pa.string(), '{"a": 1}'),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", pa.string(), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("inet6", "2001:db8::1", pa.string(), "2001:db8::1"),
        ("binary(4)", "a", pa.binary(), b"a\0\0\0"),
        ("varbinary(4)", "0x00ff", pa.binary(), b"\x00\xff"),
        ("longblob", "", pa.binary(), b""),
        ("varchar(5) charset binary", "0xff", pa.binary(), b"\xff"),
    ],
)  # fmt: skip
def test_b16_each_type_arrives_exactly(
    run: Run, source: MysqlSource, declared: str, value: str, type_: pa.DataType, expected: object
) -> None:
    quoted = value if value[:2] in ("0x", "b'") else f"'{value}'"
    run(f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES (NULL), ({quoted})")
    table = read(source)
    assert table.schema.field("v").type == type_
    assert repr(table.column("v").to_pylist()) == repr([None, Decimal(value) if expected is None else expected])


def test_b16_a_float_keeps_all_its_digits(run: Run, source: MysqlSource) -> None:
    given = ["0.1", "1.17549435e-38", "3.4028234e38", "16777217", "-0.33333333", "1e-45"]
    run("CREATE TABLE t (id int, v float)", *(f"INSERT INTO t VALUES ({n}, {text})" for n, text in enumerate(given)))
    expected = pa.array([float(text) for text in given]).cast(pa.float32())
    assert read(source).sort_by("id").column("v").combine_chunks().equals(expected)


def test_b11_a_timestamp_is_utc_whatever_zone_the_server_is_in(run: Run, source: MysqlSource) -> None:
    run(
        "SET GLOBAL time_zone = '+05:30'",
        "CREATE TABLE t (v timestamp(6) NULL)",
        "INSERT INTO t VALUES ('2024-07-01 12:00:00.000001'), (NULL)",
    )
    try:
        moment = dt.datetime(2024, 7, 1, 12, 0, 0, 1, tzinfo=UTC)
        assert values(source) == [moment, None]
        assert values(source, cursor="v", since=moment.astimezone(dt.timezone(dt.timedelta(hours=2)))) == [moment]
    finally:
        run("SET GLOBAL time_zone = '+00:00'")


@pytest.mark.parametrize(
    ("declared", "value"),
    [("date", "0000-00-00"), ("date", "2024-00-15"), ("datetime", "2024-02-00"), ("timestamp", "0000-00-00")],
)
def test_a_date_without_a_day_is_refused_or_becomes_null(
    run: Run, mariadb_server: MariaDBServer, mariadb_database: str, source: MysqlSource, declared: str, value: str
) -> None:
    run(
        f"CREATE TABLE t (id int, v {declared} NULL)",
        f"SET STATEMENT sql_mode = '' FOR INSERT INTO t VALUES (1, '{value}'), (2, '2024-02-29'), (3, NULL)",
    )
    with pytest.raises(SourceError, match=r"1 hold a value in column 'v'(.|\n)*zero_dates: null"):
        read(source)
    found = values(source, zero_dates="null")
    assert [None if v is None else (v.year, v.month, v.day) for v in found] == [None, (2024, 2, 29), None]
    assert values(source, types={"v": "text"})[0].startswith(value)


def test_a_tinyint_1_that_holds_numbers_is_refused_until_it_is_declared(run: Run, source: MysqlSource) -> None:
    run("CREATE TABLE t (v tinyint(1))", "INSERT INTO t VALUES (0), (2), (-1)")
    with pytest.raises(SourceError, match="2 hold a value in column 'v' that does not fit its type boolean"):
        read(source)
    assert values(source, types={"v": "integer"}) == [0, 2, -1]


def test_a_decimal_beyond_38_digits_asks_for_a_type(run: Run, source: MysqlSource) -> None:
    run("CREATE TABLE t (v decimal(65,30))", "INSERT INTO t VALUES (1.5)")
    with pytest.raises(SourceError, match=r"columns: \{v: text\}"):
        read(source)
    assert values(source, types={"v": "decimal(38,2)"}) == [Decimal("1.50")]


def test_a_spatial_column_is_refused_and_may_be_left_out(run: Run, source: MysqlSource) -> None:
    run("CREATE TABLE t (id int, v point)", "INSERT INTO t VALUES (1, POINT(1, 2))")
    for types in ({}, {"v": "text"}):
        with pytest.raises(SourceError, match="column 'v' is of a spatial type"):
            read(source, types=types)
    assert read(source, columns=("id",)).to_pylist() == [{"id": 1}]
    assert values(source, query="SELECT ST_AsText(v) AS v FROM t") == ["POINT(1 2)"]


def test_declared_types_are_compared_here_and_not_at_the_server(run: Run, source: MysqlSource) -> None:
    run("CREATE TABLE t (v varchar(20))", "INSERT INTO t VALUES ('9'), ('10'), ('-3'), (NULL), ('100')")
    assert values(source, types={"v": "integer"}, cursor="v", since=10) == [10, 100]
    assert values(source, types={"v": "integer"}, cursor="v", since=9, until=10) == [9, 10]
