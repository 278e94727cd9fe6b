"""The source duckdb, on real database files."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite, no_secrets
from platform_core.sources.duckdb import DuckdbSource
from tests.examples import examples

DECLARED = {
    pa.int64(): "BIGINT",
    pa.string(): "VARCHAR",
    pa.decimal128(18, 2): "DECIMAL(18, 2)",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    pa.binary(): "BLOB",
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "sales of a % & #.duckdb"


@pytest.fixture
def source(database: Path) -> DuckdbSource:
    return DuckdbSource(DuckdbSource.Options(path=str(database)), secret=no_secrets)


def run(database: Path, *statements: str) -> None:
    with closing(duckdb.connect(str(database))) as connection:
        for statement in statements:
            connection.execute(statement)


def read(source: DuckdbSource, object_: str, *, types: dict[str, str] | None = None, **request: Any) -> pa.Table:
    options = DuckdbSource.ObjectOptions(columns=types or {})
    with closing(source):
        return source.read(ReadRequest(object=object_, options=options, **request)).read_all()


class TestDuckdb(SourceSuite):
    @pytest.fixture
    def place(self, database: Path, source: DuckdbSource) -> Place:
        def put(rows: pa.Table) -> Placed:
            columns = ", ".join(f'"{field.name}" {DECLARED[field.type]}' for field in rows.schema)
            with closing(duckdb.connect(str(database))) as connection:
                connection.execute(f"CREATE TABLE rows ({columns})")
                connection.register("given", rows)
                connection.execute("INSERT INTO rows SELECT * FROM given")
            return source, ReadRequest(object="rows")

        return put

    @pytest.fixture
    def place_broken(self, database: Path, source: DuckdbSource) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            run(
                database,
                "CREATE TABLE kept AS SELECT n AS id, n::varchar AS v FROM range(1, 50000) r(n)",
                f"INSERT INTO kept VALUES (50001, '{text}')",
                "CREATE VIEW rows AS SELECT id, v::bigint AS v FROM kept",
            )
            return source, ReadRequest(object="rows", batch_rows=100)

        return put


@pytest.mark.parametrize(
    ("declared", "value", "type_", "expected"),
    [
        ("HUGEINT", "-99999999999999999999999999999999999999", pa.decimal128(38, 0), Decimal("-" + "9" * 38)),
        ("UBIGINT", "18446744073709551615", pa.uint64(), 2**64 - 1),
        ("DECIMAL(38,4)", "1234567890123456789012345678901234.5678", pa.decimal128(38, 4), None),
        ("UUID", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", pa.string(), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("ENUM('good', 'bad')", "good", pa.string(), "good"),
        ("TIMESTAMPTZ", "0001-01-01 00:00:00+00", pa.timestamp("us", "UTC"), dt.datetime(1, 1, 1, tzinfo=dt.UTC)),
        ("TIMESTAMPTZ", "2024-07-01 12:00:00.000001+02", pa.timestamp("us", "UTC"), None),
        ("TIMESTAMP", "9999-12-31 23:59:59.999999", pa.timestamp("us"), dt.datetime.max),
        ("TIMESTAMP_NS", "2024-01-01 00:00:00.000001", pa.timestamp("us"), dt.datetime(2024, 1, 1, 0, 0, 0, 1)),
        ("TIMESTAMP_S", "2024-01-01 00:00:01", pa.timestamp("us"), dt.datetime(2024, 1, 1, 0, 0, 1)),
        ("INTEGER[]", "[1, NULL]", pa.list_(pa.int32()), [1, None]),
        ("INTEGER[2]", "[1, NULL]", pa.list_(pa.int32()), [1, None]),
        ("UUID[]", "[A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11]", pa.list_(pa.string()), None),
        (
            'STRUCT(a HUGEINT, "b c" VARCHAR)',
            "{'a': 1, 'b c': x}",
            pa.struct([("a", pa.decimal128(38, 0)), ("b c", pa.string())]),
            {"a": Decimal(1), "b c": "x"},
        ),
        ("MAP(VARCHAR, INTEGER)", "{a=1}", pa.map_(pa.string(), pa.int32()), [("a", 1)]),
        ("TIME", "12:00:00.000001", pa.string(), "12:00:00.000001"),
        ("INTERVAL", "1 day 2 hours", pa.string(), "1 day 02:00:00"),
        ("BIT", "0101", pa.string(), "0101"),
        ("VARCHAR", "", pa.string(), ""),
    ],
)
def test_each_type_arrives_exactly(
    database: Path, source: DuckdbSource, declared: str, value: str, type_: pa.DataType, expected: object
) -> None:
    if declared == "UUID[]":
        expected = ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]
    if declared == "TIMESTAMPTZ" and expected is None:
        expected = dt.datetime(2024, 7, 1, 10, 0, 0, 1, tzinfo=dt.UTC)
    run(database, f"CREATE TABLE t (v {declared})")
    with closing(duckdb.connect(str(database))) as connection:
        connection.execute("INSERT INTO t VALUES (NULL), (?)", [value])
    table = read(source, "t")
    assert table.schema.field("v").type == type_
    assert table.column("v").to_pylist() == [None, Decimal(value) if expected is None else expected]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("HUGEINT", "170141183460469231731687303715884105727"),
        ("DATE", "infinity"),
        ("TIMESTAMP", "-infinity"),
        ("TIMESTAMPTZ", "infinity"),
        ("TIMESTAMP_NS", "2024-01-01 00:00:00.000000001"),
        ("DATE[]", "[infinity]"),
    ],
)
def test_a_value_that_the_lake_cannot_hold_is_refused(
    database: Path, source: DuckdbSource, declared: str, value: str
) -> None:
    run(database, f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES ('{value}')")
    with pytest.raises(SourceError, match="does not fit") as caught:
        read(source, "t")
    assert value not in str(caught.value)


def test_a_declared_type_makes_json_of_what_is_nested(database: Path, source: DuckdbSource) -> None:
    run(database, "CREATE TABLE t AS SELECT {'a': [1, NULL]} AS v, 1.50::DECIMAL(4, 2) AS d")
    table = read(source, "t", types={"v": "text", "d": "text"})
    assert table.to_pylist() == [{"v": '{"a":[1,null]}', "d": "1.50"}]


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
            st.none() | st.decimals(-(10**16) + 1, 10**16 - 1, allow_nan=False, places=2),
            st.none() | st.datetimes(timezones=st.just(dt.UTC)),
            st.none() | st.dates(),
            st.none() | st.binary(max_size=20),
        ),
        max_size=20,
    )
)
@settings(max_examples=examples(8), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_b16_what_was_written_is_read(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    database = tmp_path / "exact.duckdb"
    database.unlink(missing_ok=True)
    columns = "a BIGINT, b DOUBLE, c VARCHAR, d DECIMAL(18, 2), e TIMESTAMPTZ, f DATE, g BLOB"
    with closing(duckdb.connect(str(database))) as connection:
        connection.execute(f"CREATE TABLE t ({columns})")
        if rows:
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    source = DuckdbSource(DuckdbSource.Options(path=str(database)), secret=no_secrets)
    found = [tuple(row.values()) for row in read(source, "t").to_pylist()]
    assert sorted(map(repr, map(plain, found))) == sorted(map(repr, map(plain, rows)))


def plain(row: tuple[object, ...]) -> list[object]:
    """Values as text in which -0.0 and time zones of one offset look alike or not as they should."""
    return [value.isoformat() if isinstance(value, dt.date) else value for value in row]


def test_special_floats_keep_their_bits(database: Path, source: DuckdbSource) -> None:
    run(database, "CREATE TABLE t (v DOUBLE)", "INSERT INTO t VALUES ('-0.0'), ('inf'), ('-inf'), ('nan'), (NULL)")
    assert [str(value) for value in read(source, "t").column("v").to_pylist()] == ["-0.0", "inf", "-inf", "nan", "None"]


def test_a_file_that_another_process_writes_says_which_process(database: Path, source: DuckdbSource) -> None:
    run(database, "CREATE TABLE t (v INTEGER)")
    held = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", held, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(SourceError, match=rf"process {writer.pid} has it open for writing\n  wait for it to end"):
            read(source, "t")
        writer.stdin.close()
    assert read(source, "t").num_rows == 0


def test_nothing_is_read_or_written_beyond_the_file(database: Path, source: DuckdbSource, tmp_path: Path) -> None:
    run(database, "CREATE TABLE t (v INTEGER)", "INSERT INTO t VALUES (1)")
    secret = tmp_path / "secret.csv"
    secret.write_text(CANARY)
    before = database.read_bytes()
    for query in (
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM read_text('{secret}')",
        f"SELECT content FROM \"read_text\"('{secret}')",
        f"SELECT * FROM glob('{tmp_path}/*')",
        f"COPY t TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'other.db'}'",
        "SET threads = 1",
        "SELECT * FROM duckdb_secrets(redact = false)",
    ):
        try:
            rows = read(source, "t", query=query).to_pylist()
        except SourceError as error:
            assert CANARY not in str(error)
        else:
            assert rows == []
    assert database.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([database.name, secret.name])


def test_no_row_is_put_on_a_disk_that_is_not_masked(database: Path, tmp_path: Path) -> None:
    run(database, "CREATE TABLE t AS SELECT n, repeat(n::varchar, 100) AS v FROM range(400000) r(n)")
    options = DuckdbSource.Options(path=str(database), memory_limit="60MB")
    source = DuckdbSource(options, secret=no_secrets)
    with pytest.raises(SourceError, match="raise memory_limit"):
        read(source, "t", query="SELECT * FROM t ORDER BY v DESC")
    assert [path.name for path in tmp_path.iterdir()] == [database.name]


def test_a_text_cursor_goes_by_code_point_whatever_the_collation(database: Path, source: DuckdbSource) -> None:
    run(database, "CREATE TABLE t (v VARCHAR COLLATE NOCASE)", "INSERT INTO t VALUES ('B'), ('a'), ('Z'), ('é')")
    assert sorted(read(source, "t", cursor="v", since="Z").column("v").to_pylist()) == ["Z", "a", "é"]


def test_a_missing_file_is_not_created(database: Path, source: DuckdbSource) -> None:
    with pytest.raises(SourceError, match="there is no such file"):
        read(source, "t")
    assert not database.exists()


def test_a_file_that_is_no_database_is_named(database: Path, source: DuckdbSource) -> None:
    database.write_text(f"{CANARY}\n" * 1000)
    with pytest.raises(SourceError, match="not a valid DuckDB database") as caught:
        read(source, "t")
    assert CANARY not in str(caught.value)


def test_a_wrong_table_name_gets_a_suggestion(database: Path, source: DuckdbSource) -> None:
    run(database, "CREATE SCHEMA sales", "CREATE TABLE sales.rides (v INTEGER)")
    with pytest.raises(SourceError, match=r"known tables: sales.rides\n  did you mean 'sales.rides'\?"):
        read(source, "sales.ridse")
    assert read(source, "sales.rides").num_rows == 0


def test_odd_names_are_quoted(database: Path, source: DuckdbSource) -> None:
    run(
        database,
        'CREATE TABLE "a ""t""" ("select" INTEGER, "x"";--" VARCHAR)',
        'INSERT INTO "a ""t""" VALUES (1, NULL)',
    )
    assert read(source, '"a ""t"""', cursor="select", since=0).to_pylist() == [{"select": 1, 'x";--': None}]


def test_memory_does_not_grow_with_the_table(database: Path, source: DuckdbSource) -> None:
    run(database, "CREATE TABLE t AS SELECT n AS v, repeat('x', 200) AS filler FROM range(300000) r(n)")
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    peak = 0
    with closing(source):
        for batch in source.read(ReadRequest(object="t", batch_rows=5000)):
            peak = max(peak, pa.total_allocated_bytes() - before + batch.nbytes)
    assert peak < 20_000_000  # the table is 61 MB


def test_what_a_writer_left_in_its_log_is_read_too(database: Path, source: DuckdbSource) -> None:
    run(database, "CREATE TABLE t (v INTEGER)")
    left = "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('INSERT INTO t VALUES (7)'); os._exit(1)"
    subprocess.run([sys.executable, "-c", left, str(database)], check=False)
    assert Path(f"{database}.wal").exists()
    assert read(source, "t").to_pylist() == [{"v": 7}]


def test_a_relative_path_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValidationError, match="absolute"):
        DuckdbSource.Options(path="sales.duckdb")


def test_a_path_that_duckdb_would_cut_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValidationError, match="rename the file"):
        DuckdbSource.Options(path="/data/sales?.duckdb")
