"""The source postgres with queries, filters and several readers: what is read, and that nothing else can happen."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY
from platform_core.sources.postgres import PostgresSource
from tests.examples import examples
from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.services
Run = Callable[..., None]
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@pytest.fixture
def source(postgres_server: PostgresServer, postgres_database: str) -> PostgresSource:
    return connected(postgres_server, postgres_database)


@pytest.fixture
def run(postgres_server: PostgresServer, postgres_database: str) -> Run:
    return lambda *statements: postgres_server.execute(*statements, database=postgres_database)


def connected(server: PostgresServer, database: str, **more: Any) -> PostgresSource:
    given = {"host": server.host, "port": server.port, "database": database, "user": server.user}
    options = PostgresSource.Options(**given, password={"secret": "crm/reader"}, **more)
    return PostgresSource(options, secret=lambda name: Secret(name, server.password.encode()))


def read(
    source: PostgresSource, object_: str = "t", *, types: dict[str, str] | None = None, **request: Any
) -> pa.Table:
    options = PostgresSource.ObjectOptions(columns=types or {})
    with closing(source):
        return source.read(ReadRequest(object=object_, options=options, **request)).read_all()


def test_a_query_has_the_types_of_its_columns(run: Run, source: PostgresSource) -> None:
    run(
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE DOMAIN price AS numeric(8,3)",
        "CREATE TABLE t (id bigint, p price, m mood, ms mood[], a numeric(10,2), n numeric, u uuid, at timestamptz)",
        "INSERT INTO t VALUES (1, 1.5, 'good', '{good,NULL}', 0.10, 7, gen_random_uuid(), '2024-01-01 00:00:00+00')",
    )
    query = "WITH x AS (SELECT * FROM t) SELECT id, p, m, ms, a, n, at, u, NULL AS nothing, now() AS read_at FROM x"
    table = read(source, "orders", query=query)
    types = dict(zip(table.schema.names, table.schema.types, strict=True))
    assert types == {
        "id": pa.int64(),
        "p": pa.decimal128(8, 3),
        "m": pa.string(),
        "ms": pa.list_(pa.string()),
        "a": pa.decimal128(10, 2),
        "n": pa.decimal128(38, 10),
        "at": pa.timestamp("us", "UTC"),
        "u": pa.string(),
        "nothing": pa.string(),
        "read_at": pa.timestamp("us", "UTC"),
    }
    (row,) = table.drop_columns(["u", "read_at"]).to_pylist()
    assert row == {
        "id": 1,
        "p": Decimal("1.500"),
        "m": "good",
        "ms": ["good", None],
        "a": Decimal("0.10"),
        "n": Decimal(7),
        "at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        "nothing": None,
    }


def test_a_query_finds_its_tables_in_the_connections_schema(
    run: Run, postgres_server: PostgresServer, postgres_database: str
) -> None:
    run('CREATE SCHEMA "Sales"', 'CREATE TABLE "Sales".t (v int)', 'INSERT INTO "Sales".t VALUES (1)')
    source = connected(postgres_server, postgres_database, schema="Sales")
    assert read(source, query="SELECT v FROM t").to_pylist() == [{"v": 1}]


def test_columns_of_one_name_are_refused(run: Run, source: PostgresSource) -> None:
    with pytest.raises(SourceError, match=r"several columns named a\n  give each a name of its own"):
        read(source, query="SELECT 1 AS a, 2 AS a, 3 AS b")


def test_what_the_server_says_of_a_filter_or_query_is_passed_on(run: Run, source: PostgresSource) -> None:
    run("CREATE TABLE t (status text, n int)")
    with pytest.raises(SourceError, match=r"postgres table 't': .*column \"statsu\" does not exist.*SQLSTATE 42703"):
        read(source, filter="statsu = 'x'")
    with pytest.raises(SourceError, match=r'postgres query \'orders\': .*relation "nowhere" does not exist'):
        read(source, "orders", query="SELECT * FROM nowhere")
    with pytest.raises(SourceError, match="argument of WHERE must be type boolean"):
        read(source, filter="n")


def test_a_query_that_writes_all_the_same_is_stopped_by_the_transaction(run: Run, source: PostgresSource) -> None:
    run(
        "CREATE TABLE t (v int)",
        "CREATE FUNCTION sneaky() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING v'",
    )
    with pytest.raises(SourceError, match="read-only"):
        read(source, query="SELECT sneaky() AS v")
    assert read(source).num_rows == 0


WORDS = [
    "'",
    '"',
    ";",
    "--",
    "/*",
    "*/",
    "\\",
    "$$",
    ")",
    "(",
    "\n",
    "or true",
    "drop table canary",
    "delete from canary",
]


@given(
    payload=st.lists(st.sampled_from([*WORDS, "union select v from canary", "1", "=", "id"]), min_size=1).map(" ".join)
)
@example(payload="1) OR true; DROP TABLE canary; --")
@example(payload="\\'; DROP TABLE canary; --")
@settings(max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_e3_no_metadata_reaches_the_canary_table(
    run: Run, source: PostgresSource, postgres_server: PostgresServer, postgres_database: str, payload: str
) -> None:
    run(
        "CREATE TABLE IF NOT EXISTS t (id bigint, v text)",
        "CREATE TABLE IF NOT EXISTS canary (v text)",
        "TRUNCATE canary, t",
        f"INSERT INTO canary VALUES ('{CANARY}')",
        "INSERT INTO t VALUES (1, 'x')",
    )
    attempts: list[dict[str, Any]] = [
        {"filter": payload},
        {"filter": f"v = '{payload}'"},
        {"object_": payload},
        {"object_": f'"{payload}"'},
        {"columns": (payload,)},
        {"cursor": payload, "since": 1},
        {"cursor": "v", "since": payload, "until": payload},
        {"split_by": payload, "parallel": 2},
        {"query": f"SELECT id, v FROM t WHERE v = '{payload}'"},
        {"query": f"SELECT id, v FROM t {payload.replace('canary', 'nowhere')}"},
    ]
    for attempt in attempts:
        try:
            found = read(source, **attempt)
        except SourceError as error:
            assert CANARY not in str(error)
        else:
            assert CANARY not in str(found.to_pylist())
    with postgres_server.connect(postgres_database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT v FROM canary UNION ALL SELECT v FROM t")
        assert cursor.fetchall() == [(CANARY,), ("x",)]


@pytest.fixture
def big(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    """A table of many pages, and readers that share pages of it by the dozen."""
    monkeypatch.setattr("platform_core.sources.postgres._LEAST_PAGES", 20)
    run(
        "CREATE TABLE t AS SELECT n::bigint AS id, repeat('x', 100) AS v FROM generate_series(1, 40000) n",
        "DELETE FROM t WHERE id BETWEEN 5000 AND 30000",
    )
    return 40_000 - 25_001


def ids(table: pa.Table) -> list[int]:
    return sorted(table.column("id").to_pylist())


def sessions_seen(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The snapshots under which sessions are opened from now on; None: their own."""
    from platform_core.sources import postgres

    seen: list[str | None] = []
    opened = postgres.session

    def noted(*arguments: Any, **more: Any) -> Any:
        seen.append(more.get("snapshot"))
        return opened(*arguments, **more)

    monkeypatch.setattr(postgres, "session", noted)
    return seen


def test_a_table_is_shared_by_its_pages_without_any_column(
    big: int, source: PostgresSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = sessions_seen(monkeypatch)
    found = ids(read(source, parallel=3))
    assert found == [*range(1, 5000), *range(30_001, 40_001)]
    assert (len(found), len(seen), seen.count(None), len({*seen} - {None})) == (big, 3, 1, 1)


def test_a_small_table_is_read_by_one_reader(run: Run, source: PostgresSource, monkeypatch: pytest.MonkeyPatch) -> None:
    run("CREATE TABLE t AS SELECT 1::bigint AS id")
    seen = sessions_seen(monkeypatch)
    assert ids(read(source, parallel=8, split_by="id")) == [1]
    assert seen == [None]


def test_all_readers_see_one_moment(big: int, run: Run, source: PostgresSource) -> None:
    with closing(source):
        reader = source.read(ReadRequest(object="t", parallel=3, batch_rows=500))
        first = reader.read_next_batch()
        run("DELETE FROM t", "INSERT INTO t SELECT -n, 'y' FROM generate_series(1, 1000) n", "VACUUM t")
        found = ids(pa.concat_tables([pa.Table.from_batches([first]), reader.read_all()]))
    assert found == [*range(1, 5000), *range(30_001, 40_001)]


def test_partitions_and_heirs_are_shared_by_their_pages(
    run: Run, source: PostgresSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform_core.sources.postgres._LEAST_PAGES", 5)
    run(
        "CREATE TABLE p (id bigint, v text) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (100000) PARTITION BY RANGE (id)",
        "CREATE TABLE p21 PARTITION OF p2 DEFAULT",
        "INSERT INTO p SELECT n, repeat('x', 100) FROM generate_series(1, 9000) n",
        "CREATE TABLE parent (id bigint)",
        "CREATE TABLE child (more text) INHERITS (parent)",
        "INSERT INTO parent VALUES (0)",
        "INSERT INTO child SELECT n, repeat('x', 100) FROM generate_series(1, 9000) n",
    )
    seen = sessions_seen(monkeypatch)
    assert ids(read(source, "p", parallel=2)) == [*range(1, 9001)]
    assert ids(read(source, "parent", parallel=2)) == [*range(9001)]
    assert seen.count(None) == len(seen) - 2 == 2


@pytest.mark.parametrize("split_by", ["id", "half", "price", "day", "at", "seen", "sometimes"])
def test_a_view_or_query_is_shared_by_ranges_of_a_column(
    run: Run, source: PostgresSource, split_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(
        "CREATE VIEW w AS SELECT n::bigint AS id, n / 2 AS half, (n / 3.0)::numeric(12, 3) AS price, "
        "date '2024-01-01' + n AS day, timestamp '2024-01-01' + n * interval '1 s' AS at, "
        "timestamptz '2024-01-01' + n * interval '1 s' AS seen, CASE WHEN n % 3 = 0 THEN n END AS sometimes "
        "FROM generate_series(1, 900) n"
    )
    seen = sessions_seen(monkeypatch)
    assert ids(read(source, "w", parallel=3, split_by=split_by)) == [*range(1, 901)]
    bounded = read(source, "x", query="SELECT * FROM w", parallel=3, split_by=split_by, cursor="id", since=5, until=800)
    assert ids(bounded) == [*range(5, 801)]
    assert len(seen) == 6


def test_values_without_ranges_are_read_by_one_reader(
    run: Run, source: PostgresSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(
        "CREATE VIEW w AS SELECT n::bigint AS id, n::text AS v, 'infinity'::date AS day, 'NaN'::numeric AS d "
        "FROM generate_series(1, 9) n"
    )
    seen = sessions_seen(monkeypatch)
    for split_by in ("v", "day", "d", None):
        assert ids(read(source, "w", columns=("id",), parallel=3, split_by=split_by)) == [*range(1, 10)]
    assert seen == [None] * 4


def test_memory_does_not_grow_with_the_number_of_rows_that_readers_have_ready(
    run: Run, source: PostgresSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("CREATE TABLE t AS SELECT n AS id, repeat('x', 200) AS filler FROM generate_series(1, 400000) n")
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    peak = 0
    with closing(source):
        for _ in source.read(ReadRequest(object="t", parallel=2)):
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 60_000_000  # the table is 90 MB


def test_b10_a_row_that_was_committed_late_is_within_the_lookback(
    run: Run, source: PostgresSource, postgres_server: PostgresServer, postgres_database: str
) -> None:
    noon = dt.datetime(2024, 1, 1, 12)
    run("CREATE TABLE t (id int, at timestamp)", f"INSERT INTO t VALUES (1, '{noon}'), (2, '{noon}')")
    with postgres_server.connect(postgres_database) as connection, closing(connection.cursor()) as late:
        connection.autocommit = False
        late.execute(f"INSERT INTO t VALUES (3, '{noon - dt.timedelta(minutes=5)}')")
        assert ids(read(source, cursor="at", until=noon)) == [1, 2]
        connection.commit()
    run(f"INSERT INTO t VALUES (4, '{noon + dt.timedelta(minutes=1)}'), (5, NULL), (6, '{noon}')")
    assert ids(read(source, cursor="at", since=noon)) == [1, 2, 4, 6]
    assert ids(read(source, cursor="at", since=noon - dt.timedelta(minutes=10))) == [1, 2, 3, 4, 6]
    assert ids(read(source, cursor="at", since=noon - dt.timedelta(minutes=10), until=noon)) == [1, 2, 3, 6]


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(),
            st.none() | TEXTS,
            st.none() | st.decimals(-(10**16) + 1, 10**16 - 1, allow_nan=False, places=2),
            st.none() | st.decimals(-(10**27), 10**27, allow_nan=False, places=10),
            st.none() | st.decimals(-(10**14) + 1, 10**14 - 1, allow_nan=False, places=24),
            st.none() | st.datetimes(),
            st.none() | st.datetimes(timezones=st.just(dt.UTC)),
            st.none() | st.dates(),
            st.none() | st.binary(max_size=20),
            st.none() | st.booleans(),
            st.none() | st.lists(st.none() | TEXTS, max_size=4),
            st.none() | st.lists(st.none() | st.decimals(-999, 999, allow_nan=False, places=2), max_size=4),
        ),
        min_size=1,
        max_size=25,
    )
)
@settings(max_examples=examples(6), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_b16_what_was_written_is_read(run: Run, source: PostgresSource, rows: list[tuple[Any, ...]]) -> None:
    run(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (a bigint, b double precision, c text, d numeric(18,2), e numeric, f numeric(38,24), "
        "g timestamp, h timestamptz, i date, j bytea, k boolean, l text[], m numeric(5,2)[])",
        "INSERT INTO t VALUES " + ", ".join("(" + ", ".join(map(literal, row)) + "::numeric[])" for row in rows),
    )
    found = [tuple(row.values()) for row in read(source).to_pylist()]
    assert sorted(map(exact, found)) == sorted(map(exact, rows))


def literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'"
    if isinstance(value, list):
        return "ARRAY[" + ", ".join(map(literal, value)) + "]::text[]"
    if isinstance(value, dt.datetime):
        return f"'{value.isoformat()}'"
    return "'" + str(value).replace("'", "''") + "'"


def exact(row: tuple[Any, ...]) -> str:
    """A row as text in which only what is the same looks the same: -0.0 and 0.0 do not, 1.50 and 1.5 do."""
    return repr([_exact(value) for value in row])


def _exact(value: Any) -> object:
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if isinstance(value, Decimal):
        return f"{value.normalize():f}" if value else "0"
    if isinstance(value, dt.date):
        return value.isoformat()
    return "nan" if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize("declared", ["timestamptz", "timestamp", "date"])
def test_years_that_nothing_else_knows_are_refused_by_column(run: Run, source: PostgresSource, declared: str) -> None:
    for value in ("infinity", "-infinity", "10000-01-01", "0001-12-31 BC"):
        run("DROP TABLE IF EXISTS t", f"CREATE TABLE t (moment {declared})", f"INSERT INTO t VALUES ('{value}')")
        with pytest.raises(SourceError, match="column 'moment' that does not fit"):
            read(source)
    run("DROP TABLE t", f"CREATE TABLE t (moment {declared})", "INSERT INTO t VALUES ('0001-01-01'), ('9999-12-31')")
    assert [value.year for value in read(source).column("moment").to_pylist()] == [1, 9999]


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
@pytest.mark.parametrize("declared", ["numeric(5,2)", "numeric", "numeric(30,2)"])
def test_a_decimal_that_is_no_number_is_refused_by_column(
    run: Run, source: PostgresSource, declared: str, value: str
) -> None:
    if (declared, value) != ("numeric", "Infinity") and value == "Infinity":
        # No decimal of a declared precision can be infinite.
        return
    run(f"CREATE TABLE t (price {declared})", f"INSERT INTO t VALUES ('{value}')")
    with pytest.raises(SourceError, match="price"):
        read(source)
    assert read(source, types={"price": "text"}).to_pylist() == [{"price": value}]


def test_an_array_of_several_dimensions_is_refused_and_can_be_read_as_json(run: Run, source: PostgresSource) -> None:
    run("CREATE TABLE t (v int[])", "INSERT INTO t VALUES ('{1}'), ('{{1,2},{3,4}}')")
    with pytest.raises(
        SourceError, match=r"column 'v' holds an array of several dimensions[\s\S]*columns: \{v: text\}"
    ):
        read(source)
    assert read(source, types={"v": "text"}).column("v").to_pylist() == ["[1]", "[[1,2],[3,4]]"]


def test_every_kind_of_relation_is_read(run: Run, source: PostgresSource) -> None:
    run(
        'CREATE TABLE "Odd.T" ("Id" bigint, "select" int GENERATED ALWAYS AS ("Id"::int * 2) STORED)',
        'INSERT INTO "Odd.T" VALUES (1), (2)',
        'CREATE VIEW "My View" AS SELECT * FROM "Odd.T"',
        'CREATE MATERIALIZED VIEW kept AS SELECT * FROM "Odd.T"',
    )
    rows = [{"Id": 1, "select": 2}, {"Id": 2, "select": 4}]
    for object_ in ('"Odd.T"', "My View", "kept"):
        found = read(source, object_, filter='"Id" > 0', cursor="Id", since=1, parallel=2, split_by="Id")
        assert sorted(found.to_pylist(), key=str) == rows


def test_empty_text_and_null_are_not_the_same(run: Run, source: PostgresSource) -> None:
    run(
        "CREATE TABLE t (id int, v text, b bytea, l text[])",
        "INSERT INTO t VALUES (1, '', '', '{}'), (2, NULL, NULL, NULL)",
    )
    assert read(source).to_pylist() == [
        {"id": 1, "v": "", "b": b"", "l": []},
        {"id": 2, "v": None, "b": None, "l": None},
    ]


FAILING = {
    "cast": "SELECT id, v::bigint AS v FROM kept",
    "division": "SELECT id, 1 / (length(v) - {length}) AS v FROM kept",
    "date": "SELECT id, to_date(v, 'YYYY') AS v FROM kept",
    "json": "SELECT id, v::json ->> 'a' AS v FROM kept",
    "raise": "SELECT id, shout(v) AS v FROM kept",
    "subquery": "SELECT id, (SELECT a.v FROM kept a WHERE a.id > kept.id - 2) AS v FROM kept",
    "regex": "SELECT id, v ~ ('(' || v) AS v FROM kept",
    "dynamic": "SELECT id, unknown_table(v) AS v FROM kept",
}


@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("parallel", [1, 2])
def test_f2_no_error_of_the_server_shows_a_value(run: Run, source: PostgresSource, kind: str, parallel: int) -> None:
    run(
        "CREATE TABLE kept (id bigint, v text)",
        f"INSERT INTO kept SELECT n, '{CANARY}' FROM generate_series(1, 50) n",
        "CREATE FUNCTION shout(v text) RETURNS text LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'loud %', v USING DETAIL = v, HINT = v, ERRCODE = '42704'; END$$",
        "CREATE FUNCTION unknown_table(v text) RETURNS text LANGUAGE plpgsql AS "
        "$$BEGIN EXECUTE format('SELECT 1 FROM %I', v); RETURN v; END$$",
    )
    query = FAILING[kind].format(length=len(CANARY))
    for attempt in ({"query": query}, {"query": f"SELECT * FROM ({query}) q", "filter": "v IS NULL"}):
        with pytest.raises(SourceError) as caught:
            read(source, **attempt, parallel=parallel, split_by="id")
        error: BaseException | None = caught.value
        while error is not None:
            assert CANARY not in str(error) + repr(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
