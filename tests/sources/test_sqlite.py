"""The source sqlite, on real database files."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest
from platform_core.plugins.testing import CANARY, Place, Placed, SourceSuite, no_secrets
from platform_core.sources import sqlite as sqlite_source
from platform_core.sources.sqlite import SqliteSource
from tests.examples import examples

DECLARED = {
    pa.int64(): "INTEGER",
    pa.string(): "TEXT",
    pa.decimal128(18, 2): "DECIMAL(18, 2)",
    pa.float64(): "REAL",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    pa.binary(): "BLOB",
}


def stored(value: object) -> Any:
    """A value as applications put it into SQLite."""
    return value if isinstance(value, (int, float, str, bytes, type(None))) else str(value)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "rides of a ? & #.db"


@pytest.fixture
def source(database: Path) -> SqliteSource:
    return SqliteSource(SqliteSource.Options(path=str(database)), secret=no_secrets)


def run(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def read(source: SqliteSource, object_: str, *, types: dict[str, str] | None = None, **request: Any) -> pa.Table:
    options = SqliteSource.ObjectOptions(columns=types or {})
    with closing(source):
        return source.read(ReadRequest(object=object_, options=options, **request)).read_all()


class TestSqlite(SourceSuite):
    left_out = frozenset({"amount"})  # kept as doubles, which have 15 digits; tested below

    @pytest.fixture
    def place(self, database: Path, source: SqliteSource) -> Place:
        def put(rows: pa.Table) -> Placed:
            columns = ", ".join(f'"{field.name}" {DECLARED[field.type]}' for field in rows.schema)
            marks = ", ".join("?" * rows.num_columns)
            with closing(sqlite3.connect(database)) as connection:
                connection.execute(f"CREATE TABLE rows ({columns})")
                values = [tuple(map(stored, row.values())) for row in rows.to_pylist()]
                connection.executemany(f"INSERT INTO rows VALUES ({marks})", values)
                connection.commit()
            return source, ReadRequest(object="rows")

        return put

    @pytest.fixture
    def place_broken(self, database: Path, source: SqliteSource) -> Callable[[str], Placed]:
        def put(text: str) -> Placed:
            run(database, "CREATE TABLE rows (id INTEGER)", "INSERT INTO rows VALUES (1), (2)")
            run(database, f"INSERT INTO rows VALUES ('{text}')")
            return source, ReadRequest(object="rows", batch_rows=1)

        return put


def test_a_type_that_changes_after_the_first_rows_is_still_the_declared_one(
    database: Path, source: SqliteSource
) -> None:
    run(database, "CREATE TABLE t (v REAL)", "INSERT INTO t VALUES (1), (2.5)")
    assert read(source, "t", batch_rows=1).to_pydict() == {"v": [1.0, 2.5]}


def test_decimals_are_what_was_written(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (v NUMERIC(12,2))", "INSERT INTO t VALUES (0.1), (7), ('19.99'), (-123456789.01)")
    expected = [Decimal("0.10"), Decimal("7.00"), Decimal("19.99"), Decimal("-123456789.01")]
    assert read(source, "t").column("v").to_pylist() == expected


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("INTEGER", "1.5"),
        ("BOOLEAN", "2"),
        ("DECIMAL(5,2)", "1.234"),
        ("DECIMAL(5,2)", "12345"),
        ("DATE", "'2024-13-01'"),
        ("TIMESTAMP", "'2024-01-01 10:00:00Z'"),
        ("TIMESTAMP", "1700000000"),
        ("TIMESTAMPTZ", "'2024-01-01 10:00:00'"),
        ("REAL", "9007199254740993"),
        ("TEXT", "x'ff'"),
    ],
)
def test_a_value_that_does_not_fit_its_declared_type_is_refused_with_column_and_count(
    database: Path, source: SqliteSource, declared: str, value: str
) -> None:
    # A plain column without affinity would keep the value; the view gives it the declaration.
    run(database, f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES (NULL), ({value})")
    if declared == "REAL":
        run(database, "DROP TABLE t", "CREATE TABLE t (v)", f"INSERT INTO t VALUES (NULL), ({value})")
        with pytest.raises(SourceError, match=r"1 hold a value in column 'v'"):
            read(source, "t", types={"v": "float"})
        return
    with pytest.raises(SourceError, match=r"1 hold a value in column 'v'"):
        read(source, "t")


def test_a_declared_option_goes_before_the_declared_column_type(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (v TIMESTAMP)", "INSERT INTO t VALUES ('2024-01-01T12:00:00+02:00')")
    table = read(source, "t", types={"v": "timestamptz"})
    assert table.column("v").to_pylist() == [dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC)]


def test_a_view_column_without_a_type_asks_for_one(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (v INTEGER)", "INSERT INTO t VALUES (1)", "CREATE VIEW w AS SELECT v + 1 AS k FROM t")
    with pytest.raises(SourceError, match=r"column 'k' has no declared type\n.*columns: \{k: text\}"):
        read(source, "w")
    assert read(source, "w", types={"k": "integer"}).to_pydict() == {"k": [2]}


def test_since_finds_times_in_either_notation(database: Path, source: SqliteSource) -> None:
    run(
        database,
        "CREATE TABLE t (id INTEGER, at TIMESTAMPTZ)",
        "INSERT INTO t VALUES (1, '2024-01-02T00:30:00+02:00'), (2, '2024-01-01 22:30:00Z')",
        "INSERT INTO t VALUES (3, '2024-01-01T22:29:59Z')",
    )
    since = dt.datetime(2024, 1, 1, 22, 30, tzinfo=dt.UTC)
    assert read(source, "t", columns=("id",), cursor="at", since=since).to_pydict() == {"id": [1, 2]}


def test_a_number_among_times_is_refused_and_not_filtered_away(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (at TIMESTAMP)", "INSERT INTO t VALUES (1700000000), ('2024-01-02 00:00:00')")
    with pytest.raises(SourceError, match="column 'at'"):
        read(source, "t", cursor="at", since=dt.datetime(2024, 1, 1))


def test_a_missing_file_is_not_created(database: Path, source: SqliteSource) -> None:
    with pytest.raises(SourceError, match="there is no such file"):
        read(source, "t")
    assert not database.exists()


def test_a_file_that_is_no_database_is_named(database: Path, source: SqliteSource) -> None:
    database.write_text(f"{CANARY}\n" * 1000)
    with pytest.raises(SourceError, match="the file is not a SQLite database") as caught:
        read(source, "t")
    assert str(database) in str(caught.value)
    assert CANARY not in str(caught.value)


def test_the_file_cannot_be_written_through_the_source(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (v INTEGER)", "INSERT INTO t VALUES (1)")
    before = database.read_bytes()
    read(source, "t")
    assert database.read_bytes() == before


def test_a_read_sees_one_moment(database: Path, source: SqliteSource) -> None:
    run(database, "PRAGMA journal_mode=WAL", "CREATE TABLE t (v INTEGER)")
    run(database, *(f"INSERT INTO t VALUES ({number})" for number in range(10)))
    with closing(source):
        reader = source.read(ReadRequest(object="t", batch_rows=2))
        first = reader.read_next_batch()
        run(database, "DELETE FROM t WHERE v > 4", "INSERT INTO t VALUES (99)")
        rest = reader.read_all()
    assert [*first.column("v").to_pylist(), *rest.column("v").to_pylist()] == [*range(10)]


def test_text_that_is_not_utf8_is_refused_without_showing_it(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (v TEXT)", f"INSERT INTO t VALUES (CAST(x'{CANARY.encode().hex()}ff' AS TEXT))")
    with pytest.raises(SourceError) as caught:
        read(source, "t")
    assert CANARY not in str(caught.value)


def test_a_wrong_table_name_gets_a_suggestion(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE rides (v INTEGER)")
    with pytest.raises(SourceError, match=r"known tables: rides\n  did you mean 'rides'\?"):
        read(source, "ridse")


def test_odd_names_are_quoted(database: Path, source: SqliteSource) -> None:
    run(
        database,
        'CREATE TABLE "a.b ""c""" ("select" INTEGER, "x"";--" TEXT)',
        'INSERT INTO "a.b ""c""" VALUES (1, NULL)',
    )
    table = read(source, '"a.b ""c"""', cursor="select", since=0)
    assert table.to_pydict() == {"select": [1], 'x";--': [None]}


def test_a_relative_path_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ValidationError, match="absolute"):
        SqliteSource.Options(path="rides.db")


def test_until_is_exact_for_times_in_either_notation(database: Path, source: SqliteSource) -> None:
    run(
        database,
        "CREATE TABLE t (id INTEGER, at TIMESTAMPTZ)",
        "INSERT INTO t VALUES (1, '2024-01-02T00:30:00+02:00'), (2, '2024-01-01 22:30:00Z')",
        "INSERT INTO t VALUES (3, '2024-01-01T22:30:00.000001Z'), (4, NULL), (5, '2024-01-03T12:00:00+14:00')",
    )
    until = dt.datetime(2024, 1, 1, 22, 30, tzinfo=dt.UTC)
    assert read(source, "t", columns=("id",), cursor="at", until=until).to_pydict() == {"id": [1, 2]}
    until = dt.datetime(9999, 12, 31, 23, tzinfo=dt.UTC)
    assert read(source, "t", columns=("id",), cursor="at", until=until).to_pydict() == {"id": [1, 2, 3, 5]}


@pytest.mark.parametrize(
    ("declared", "value", "bound"),
    [
        ("INTEGER", "'seven'", 5),
        ("INTEGER", "x'07'", 5),
        ("REAL", "'seven'", 5.0),
        ("DATE", "x'07'", dt.date(2024, 1, 1)),
        ("DATE", "20240101", dt.date(2024, 1, 1)),
        ("TEXT", "x'07'", "z"),
    ],
)
def test_what_does_not_fit_its_type_is_refused_and_not_filtered_away(
    database: Path, source: SqliteSource, declared: str, value: str, bound: Any
) -> None:
    run(database, f"CREATE TABLE t (v {declared})", f"INSERT INTO t VALUES ({value})")
    for ends in ({"since": bound}, {"until": bound}, {"since": bound, "until": bound}):
        with pytest.raises(SourceError, match="column 'v'"):
            read(source, "t", cursor="v", **ends)


def test_an_index_serves_a_number_that_bounds(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (v INTEGER, w TEXT)", "CREATE INDEX i ON t (v)")
    request = ReadRequest(object="t", cursor="v", since=5)
    with closing(sqlite3.connect(database)) as connection:
        columns = source._columns(connection, request)
        statement = sqlite_source._statement(request, columns, sqlite_source._between(columns, request))
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", statement.parameters).fetchall()
    assert "USING INDEX i" in str(plan)


def test_a_query_has_the_declared_types_of_its_columns(database: Path, source: SqliteSource) -> None:
    run(
        database,
        "CREATE TABLE t (id INTEGER, price DECIMAL(8,2), at TIMESTAMP)",
        "INSERT INTO t VALUES (1, 1.5, '2024-01-01 10:00:00')",
    )
    query = "WITH x AS (SELECT * FROM t) SELECT id, price, at, id + 1 AS next FROM x"
    with pytest.raises(SourceError, match=r"sqlite query 'orders': column 'next' has no declared type"):
        read(source, "orders", query=query)
    table = read(source, "orders", query=query, types={"next": "integer"})
    assert table.schema.types == [pa.int64(), pa.decimal128(8, 2), pa.timestamp("us"), pa.int64()]
    assert table.to_pylist() == [{"id": 1, "price": Decimal("1.50"), "at": dt.datetime(2024, 1, 1, 10), "next": 2}]


def test_a_wrong_name_in_a_filter_is_no_text_in_disguise(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (status TEXT)", "INSERT INTO t VALUES ('statsu')")
    for name in ("statsu", '"statsu"'):
        with pytest.raises(SourceError, match=r"the filter: has no column 'statsu'[\s\S]*did you mean 'status'"):
            read(source, "t", filter=f"{name} = 'statsu'")
    assert read(source, "t", filter="STATUS = 'statsu'").num_rows == 1


def test_what_sqlite_says_of_a_query_is_passed_on(database: Path, source: SqliteSource) -> None:
    run(database, "CREATE TABLE t (status TEXT)")
    with pytest.raises(SourceError, match=r"sqlite query 'orders': SQLite refuses the filter or query: no such table"):
        read(source, "orders", query="SELECT * FROM nowhere")


def test_a_sorted_query_writes_nothing_beside_the_file(database: Path, source: SqliteSource) -> None:
    run(
        database,
        "CREATE TABLE t (v TEXT)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9) "
        "INSERT INTO t SELECT hex(randomblob(1000)) FROM n",
    )
    before = sorted(path.name for path in database.parent.iterdir())
    assert read(source, "t", query="SELECT v FROM t ORDER BY v DESC").num_rows == 9
    assert sorted(path.name for path in database.parent.iterdir()) == before


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
            st.none() | st.decimals(-(10**13) + 1, 10**13 - 1, allow_nan=False, places=2),
            st.none() | st.datetimes(timezones=st.just(dt.UTC)),
            st.none() | st.dates(),
            st.none() | st.binary(max_size=20),
            st.none() | st.booleans(),
        ),
        max_size=25,
    )
)
@settings(max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_b16_what_was_written_is_read(database: Path, source: SqliteSource, rows: list[tuple[Any, ...]]) -> None:
    database.unlink(missing_ok=True)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TABLE t (a INTEGER, b REAL, c TEXT, d DECIMAL(15,2), e TIMESTAMPTZ, f DATE, g BLOB, h BOOLEAN)"
        )
        values = [tuple(map(stored, row)) for row in rows]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        connection.commit()
    assert [tuple(row.values()) for row in read(source, "t").to_pylist()] == rows
