"""Statements for sources: what is built, and what no control file can make them do."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest
from platform_core.sources.naming import table
from platform_core.sources.statement import (
    Range,
    Statement,
    StatementError,
    check_filter,
    check_query,
    ranges_between,
    select_statement,
    split_ranges,
    written,
)

DIALECTS = ("postgres", "mysql", "tsql", "oracle", "sqlite", "duckdb")
# Text that leaves a name, a literal or an expression if it is pasted into SQL.
ESCAPES = ["'", '"', "`", "]", "\\", "'; ", '"; ', "`; ", "]; ", "') ", "/*", "*/", "--", "#", ";", "\n", "$$", "\\'"]
WORDS = ["drop table canary", "or 1=1", "union select * from canary", "delete from canary", "x", "=", "(", ")", "1"]
PAYLOADS = st.lists(st.sampled_from([*ESCAPES, *WORDS]), min_size=1, max_size=8).map(" ".join)


def built(
    request: ReadRequest, *, dialect: str = "sqlite", columns: tuple[str, ...] = ("id",), **more: Any
) -> Statement:
    more.setdefault("table", None if request.query else table(None, "t"))
    return select_statement(request, dialect=dialect, columns=columns, placeholder=lambda _: exp.Placeholder(), **more)


def test_a_table_is_read_with_quoted_names() -> None:
    statement = built(ReadRequest(object="t"), columns=("id", 'odd "name'))
    assert statement == Statement('SELECT "id", "odd ""name" FROM "t"', ())


def test_bounds_are_inclusive_parameters() -> None:
    statement = built(ReadRequest(object="t", cursor="n", since=3, until=9, filter="a = 1 OR b = 2"))
    assert statement.sql == 'SELECT "id" FROM "t" WHERE (a = 1 OR b = 2) AND "n" >= ? AND "n" <= ?'
    assert statement.parameters == (3, 9)


def test_placeholders_are_numbered_in_the_order_of_the_parameters() -> None:
    statement = select_statement(
        ReadRequest(object="t", cursor="n", since=3, until=9, split_by="id"),
        dialect="postgres",
        table=table("s", "t"),
        columns=("id",),
        placeholder=lambda number: exp.Parameter(this=exp.Literal.number(number)),
        part=Range(10, 20),
    )
    assert statement.sql.endswith('"n" >= $1 AND "n" <= $2 AND "id" >= $3 AND "id" < $4')
    assert statement.parameters == (3, 9, 10, 20)


@pytest.mark.parametrize(
    ("part", "condition", "parameters"),
    [
        (Range(), "", ()),
        (Range(None, 5), ' WHERE "id" < ?', (5,)),
        (Range(5, None), ' WHERE "id" >= ?', (5,)),
        (Range(nulls=True), ' WHERE "id" IS NULL', ()),
    ],
)
def test_a_part_is_a_half_open_range(part: Range, condition: str, parameters: tuple[object, ...]) -> None:
    statement = built(ReadRequest(object="t", split_by="id"), part=part)
    assert statement == Statement(f'SELECT "id" FROM "t"{condition}', parameters)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_query_stands_in_place_of_a_table_in_every_dialect(dialect: str) -> None:
    query = "WITH n AS (SELECT id, name FROM a UNION ALL SELECT id, name FROM b) SELECT id, name FROM n ORDER BY id"
    statement = built(ReadRequest(object="t", query=query, cursor="id", since=3), dialect=dialect)
    again = sqlglot.parse_one(statement.sql, dialect=dialect)
    assert isinstance(again, exp.Select)
    assert [found.name for found in again.find_all(exp.Table)].count("a") == 1
    assert statement.parameters == (3,)


def test_sql_server_gets_no_order_and_no_with_within_brackets() -> None:
    query = "WITH n AS (SELECT id FROM a) SELECT id FROM n ORDER BY id"
    statement = built(ReadRequest(object="t", query=query), dialect="tsql")
    assert statement.sql == "WITH n AS (SELECT id AS id FROM a) SELECT [id] FROM (SELECT id FROM n) AS [edp_rows]"


@pytest.mark.parametrize(
    ("dialect", "filter_"),
    [
        ("postgres", "status <> 'draft' AND at >= now() - interval '90 days'"),
        ("postgres", "(a, b) IN ((1, 2)) OR c IS NOT DISTINCT FROM d"),
        ("postgres", "payload ->> 'kind' = 'order' AND lower(name) LIKE 'x!%' ESCAPE '!'"),
        ("postgres", "at::date BETWEEN '2024-01-01' AND current_date"),
        ("postgres", "active"),
        ("mysql", "d >= date_sub(curdate(), interval 30 day) AND ifnull(`order`, 0) = 1"),
        ("tsql", "d >= dateadd(day, -30, getdate()) AND [order] = N'x' AND len(a) > 1"),
        ("oracle", "d >= sysdate - 30 AND nvl(a, 0) = 1 AND trunc(d) = date '2024-01-01'"),
        ("sqlite", "date(d) >= date('now', '-30 day') AND strftime('%Y', d) = '2024'"),
        ("duckdb", "d >= current_date - interval 30 day AND date_diff('day', d, today()) < 3"),
    ],
)
def test_filters_of_every_day_pass_and_stay_what_they_are(dialect: str, filter_: str) -> None:
    once = written(check_filter(filter_, dialect=dialect), dialect=dialect)
    assert written(check_filter(once, dialect=dialect), dialect=dialect) == once


REFUSED_FILTERS = [
    "",
    "   ",
    ";",
    "a = 1; DROP TABLE canary",
    "a = 1) OR (1 = 1",
    "1 = 1 UNION SELECT * FROM canary",
    "EXISTS (SELECT 1 FROM canary)",
    "id IN (SELECT id FROM canary)",
    "(SELECT count(*) FROM canary) > 0",
    "SELECT 1",
    "DELETE FROM canary",
    "pg_read_file('/etc/passwd') = ''",
    "pg_sleep(10) IS NULL",
    "sleep(10) = 0",
    "load_extension('x')",
    "read_text('/etc/passwd') = ''",
    "other.id = 1",
    "id = ?",
    "id = :x",
    "a + 1",
    "'text'",
    "1",
    "NULL",
    "id = 1 ORDER BY id",
    "id = 1 LIMIT 1",
    "row_number() OVER (ORDER BY id) = 1",
    "count(*) > 1",
    "'x'::regclass IS NULL",
    "id = 1\0",
    "(" * 4000 + "a = 1" + ")" * 4000,
    "a = 1" + " AND a = 1" * 2000,
    "'" + "x = 1",
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("filter_", REFUSED_FILTERS, ids=range(len(REFUSED_FILTERS)))
def test_e3_a_filter_is_one_condition_of_known_parts(dialect: str, filter_: str) -> None:
    with pytest.raises(ValueError, match="the filter"):
        check_filter(filter_, dialect=dialect)


REFUSED_QUERIES = [
    ("postgres", "SELECT 1; DROP TABLE canary"),
    ("postgres", ""),
    ("postgres", "DELETE FROM canary"),
    ("postgres", "WITH gone AS (DELETE FROM canary RETURNING *) SELECT * FROM gone"),
    ("postgres", "SELECT * INTO copy FROM canary"),
    ("postgres", "SELECT * FROM canary FOR UPDATE"),
    ("postgres", "SELECT * FROM (SELECT * FROM canary FOR SHARE) x"),
    ("postgres", "COPY canary TO PROGRAM 'sh'"),
    ("postgres", "SELECT pg_read_file('/etc/passwd')"),
    ("postgres", "SELECT pg_catalog.pg_read_file('/etc/passwd')"),
    ("postgres", "SELECT \"pg_read_file\"('/etc/passwd')"),
    ("postgres", "SELECT * FROM dblink('host=x', 'DROP TABLE canary') AS t(a int)"),
    ("postgres", "SELECT query_to_xml('DELETE FROM canary', true, true, '')"),
    ("postgres", "SELECT lo_import('/etc/passwd')"),
    ("postgres", "SELECT nextval('s')"),
    ("postgres", "SELECT set_config('a.b', '', false)"),
    ("postgres", "SELECT $1"),
    ("postgres", "VALUES (1)"),
    ("postgres", "EXPLAIN SELECT 1"),
    ("mysql", "SELECT * FROM canary INTO OUTFILE '/tmp/x'"),
    ("mysql", "SELECT load_file('/etc/passwd')"),
    ("mysql", "SELECT @a := 1"),
    ("mysql", "SELECT 1 /*!50000 UNION SELECT * FROM canary */"),
    ("mysql", "SELECT 1 /*M! UNION SELECT * FROM canary */"),
    ("mysql", "SELECT sleep(100)"),
    ("tsql", "SELECT * FROM OPENROWSET('a', 'b', 'c')"),
    ("tsql", "SELECT * FROM OPENQUERY(a, 'DROP TABLE canary')"),
    ("tsql", "SELECT * FROM canary WITH (UPDLOCK)"),
    ("tsql", "EXEC xp_cmdshell 'dir'"),
    ("tsql", "SELECT 1 EXEC xp_cmdshell 'dir'"),
    ("oracle", "SELECT utl_http.request('http://x') FROM dual"),
    ("oracle", "SELECT sys.utl_http.request('http://x') FROM dual"),
    ("oracle", "SELECT dbms_session.unique_session_id FROM dual"),
    ("oracle", "SELECT * FROM canary@elsewhere"),
    ("oracle", "BEGIN DELETE FROM canary; END;"),
    ("sqlite", "SELECT load_extension('x')"),
    ("sqlite", "PRAGMA writable_schema = 1"),
    ("sqlite", "ATTACH 'x' AS y"),
    ("duckdb", "SELECT * FROM read_csv('/etc/passwd')"),
    ("duckdb", "COPY canary TO '/tmp/x'"),
    ("duckdb", "INSTALL httpfs"),
    ("duckdb", "SELECT * FROM sqlite_scan('x', 'y')"),
]


@pytest.mark.parametrize(("dialect", "query"), REFUSED_QUERIES)
def test_e3_a_query_only_reads_its_own_database(dialect: str, query: str) -> None:
    with pytest.raises(ValueError, match="the query"):
        check_query(query, dialect=dialect)


def test_what_is_wrong_is_said_in_words() -> None:
    with pytest.raises(SourceError, match=r"calls function 'pg_sleep', which is not one.*\n  it may use: abs, "):
        check_filter("pg_sleep(1) IS NULL", dialect="postgres")
    with pytest.raises(StatementError, match=r"cannot be read as SQL \(line 2, near 'WHERE'\); expected is one SELECT"):
        check_query("SELECT *\nFROM orders WHERE WHERE x", dialect="postgres")
    with pytest.raises(StatementError, match="holds 2 statements; write one SELECT"):
        check_query("SELECT 1; SELECT 2", dialect="postgres")
    with pytest.raises(StatementError, match="the filter is no condition but an ADD"):
        check_filter("a + 1", dialect="postgres")


def test_a_comment_does_not_reach_the_server() -> None:
    statement = built(ReadRequest(object="t", query="SELECT id /* here */ FROM a -- there"))
    assert "here" not in statement.sql


def test_a_function_keeps_the_letters_of_its_name() -> None:
    query = 'SELECT "myFunction"(id) AS id FROM a'
    assert '"myFunction"' in built(ReadRequest(object="t", query=query), dialect="postgres").sql


@given(payload=PAYLOADS, dialect=st.sampled_from(DIALECTS))
def test_e3_a_name_stays_one_name(payload: str, dialect: str) -> None:
    payload = f"n{payload}"  # '#' first would name a temporary table in T-SQL
    statement = select_statement(
        ReadRequest(object="t", cursor=payload, since=1, split_by=payload),
        dialect=dialect,
        table=table(payload, payload),
        columns=(payload,),
        placeholder=lambda _: exp.Placeholder(),
        part=Range(1, None),
    )
    parsed = sqlglot.parse(statement.sql, dialect=dialect)
    assert len(parsed) == 1
    names = {identifier.name for identifier in parsed[0].find_all(exp.Identifier)}
    assert names == {payload}


@given(payload=PAYLOADS)
def test_e3_no_filter_or_query_touches_the_canary_table(payload: str) -> None:
    with closing(canary_database()) as connection:
        for text in (payload, f"id = '{payload}'", f"id = {payload}", f'"{payload}" = 1', f"id = 1 {payload}"):
            run(connection, ReadRequest(object="t", filter=text))
            run(connection, ReadRequest(object="t", query=f"SELECT id FROM t WHERE id = {text}"))
        assert connection.execute("SELECT * FROM canary").fetchall() == [("alive",)]
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchall() == [(2,)]
        assert connection.execute("SELECT * FROM t").fetchall() == [(1,)]


def canary_database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript("CREATE TABLE t (id); INSERT INTO t VALUES (1); CREATE TABLE canary (v)")
    connection.execute("INSERT INTO canary VALUES ('alive')")
    return connection


def run(connection: sqlite3.Connection, request: ReadRequest) -> None:
    """Run what passed; filters never see the canary's row, for they read one table."""
    try:
        statement = built(request)
        rows = connection.execute(statement.sql, statement.parameters).fetchall()
    except (StatementError, sqlite3.OperationalError):
        return
    if request.query is None:
        assert ("alive",) not in rows


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_a_text_in_a_filter_arrives_as_it_was_written(text: str) -> None:
    filter_ = "v = '" + text.replace("'", "''") + "'"
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (v)")
        connection.execute("INSERT INTO t VALUES (?)", (text,))
        statement = built(ReadRequest(object="t", filter=filter_), columns=("v",))
        assert connection.execute(statement.sql).fetchall() == [(text,)]


@pytest.mark.parametrize(
    ("low", "high", "parts", "bounds"),
    [
        (1, 100, 4, [26, 51, 76]),
        (5, 6, 4, [6]),
        (-3, -3, 4, []),
        (None, None, 4, []),
        (1, 100, 1, []),
        (-(2**63), 2**63 - 1, 2, [0]),
        (Decimal("0.5"), Decimal("1.5"), 2, [Decimal("1.0")]),
        (dt.date(2024, 1, 1), dt.date(2024, 1, 4), 2, [dt.date(2024, 1, 3)]),
        (dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 0, 0, 0, 1), 3, [dt.datetime(2024, 1, 1, 0, 0, 0, 1)]),
    ],
)
def test_ranges_of_equal_width(low: Any, high: Any, parts: int, bounds: list[Any]) -> None:
    assert split_ranges(low, high, parts) == [
        Range(start, end) for start, end in zip([None, *bounds], [*bounds, None], strict=True)
    ]


def test_nulls_are_a_part_of_their_own() -> None:
    assert split_ranges(1, 10, 2, nullable=True) == [Range(None, 6), Range(6, None), Range(nulls=True)]
    assert split_ranges(1, 1, 2, nullable=True) == [Range()]


def test_equal_bounds_of_a_histogram_make_no_empty_part() -> None:
    assert ranges_between([1, 1, 5, 5, 9], above=1) == [Range(None, 5), Range(5, 9), Range(9, None)]


def test_values_that_cannot_be_split_are_refused() -> None:
    for low, high in (("a", "b"), (1.0, 2.0), (False, True), (1, dt.date.max)):
        with pytest.raises(ValueError, match="cannot be split"):
            split_ranges(low, high, 2)


@given(data=st.data(), parts=st.integers(1, 9))
def test_every_value_lies_in_exactly_one_range(data: st.DataObject, parts: int) -> None:
    kinds: list[st.SearchStrategy[Any]] = [
        st.integers(-(2**63), 2**63 - 1),
        st.decimals(allow_nan=False, allow_infinity=False),
        st.dates(),
        st.datetimes(),
    ]
    kind = data.draw(st.sampled_from(kinds))
    low, high = sorted((data.draw(kind), data.draw(kind)))
    ranges = split_ranges(low, high, parts, nullable=True)
    for value in (low, high, data.draw(kind), None):
        assert sum(map_holds(ranges, value)) == 1


def map_holds(ranges: list[Range], value: Any) -> Iterator[bool]:
    for part in ranges:
        if part == Range():
            yield True
        elif value is None or part.nulls:
            yield value is None and part.nulls
        else:
            yield (part.low is None or value >= part.low) and (part.high is None or value < part.high)
