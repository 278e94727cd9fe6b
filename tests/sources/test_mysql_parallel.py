"""Several readers of the source mysql within one snapshot of a real MariaDB."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from platform_core.errors import SourceError
from tests.services.mariadb import MariaDBServer, running_mariadb
from tests.sources.mysql_reading import asked, connected, read, values

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDBServer]:
    """A server with a binary log, where snapshots can be told apart."""
    with running_mariadb(settings={"log-bin": "changes"}) as started:
        yield started


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("bigint NOT NULL PRIMARY KEY", "seq"),
        ("int NULL", "nullif(seq % 1000, 7)"),
        ("decimal(20,2)", "seq / 4"),
        ("date", "'2020-01-01' + INTERVAL seq DAY"),
        ("datetime(6)", "'2020-01-01' + INTERVAL seq SECOND"),
        ("timestamp NULL", "'2020-01-01' + INTERVAL seq SECOND"),
    ],
)
def test_readers_share_the_rows_of_one_moment(server: MariaDBServer, declared: str, value: str) -> None:
    database = server.create_database()
    server.execute(
        f"CREATE TABLE t (id int, part {declared}, KEY (part))",
        f"INSERT INTO t SELECT seq, {value} FROM seq_1_to_20000",
        database=database,
    )
    with closing(connected(server, database)) as source:
        reader = source.read(asked(columns=("id",), split_by="part", parallel=3, batch_rows=500, filter="id > 10"))
        assert sessions(server, database) == 3
        server.execute("DELETE FROM t WHERE id % 2", "UPDATE t SET id = -id", database=database)
        assert sorted(reader.read_all().column("id").to_pylist()) == [*range(11, 20_001)]


def sessions(server: MariaDBServer, database: str) -> int:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM information_schema.processlist WHERE db = %s", (database,))
        return int(cursor.fetchall()[0][0])


def test_readers_never_see_two_moments_while_rows_change(server: MariaDBServer) -> None:
    """Rows that move between ranges are seen once each, wherever between the changes the snapshots fall."""
    database = server.create_database()
    server.execute("CREATE TABLE t (id int PRIMARY KEY, part int)", database=database)
    server.execute("INSERT INTO t SELECT seq, seq FROM seq_1_to_200", database=database)
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            server.execute("UPDATE t SET part = 201 - part", database=database)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(20):
            found = read(connected(server, database), split_by="part", parallel=4)
            assert sorted(found.column("id").to_pylist()) == [*range(1, 201)]
    finally:
        over.set()
        writer.join()


@pytest.mark.parametrize("settings", [{}, {"log-bin": "changes", "binlog-ignore-db": "aside"}])
def test_one_reader_reads_where_snapshots_cannot_be_told_apart(settings: dict[str, str]) -> None:
    with running_mariadb(settings=settings) as unlogged:
        database = unlogged.create_database()
        unlogged.execute("CREATE TABLE t (v int PRIMARY KEY)", database=database)
        unlogged.execute("INSERT INTO t SELECT seq FROM seq_1_to_1000", database=database)
        with closing(connected(unlogged, database)) as source:
            reader = source.read(asked(split_by="v", parallel=4))
            rows = sorted(reader.read_all().column("v").to_pylist())
            assert rows == [*range(1, 1001)]
            server_sessions = [thread.name for thread in threading.enumerate() if thread.name.startswith("edp-reader")]
            assert server_sessions == []


def test_an_error_of_one_reader_ends_the_read(server: MariaDBServer) -> None:
    database = server.create_database()
    server.execute(
        "CREATE TABLE t (part int, v text)",
        "INSERT INTO t SELECT seq, seq FROM seq_1_to_20000",
        "INSERT INTO t VALUES (20001, 'x')",
        database=database,
    )
    with pytest.raises(SourceError, match="1 hold a value in column 'v'"):
        read(connected(server, database), types={"v": "integer"}, split_by="part", parallel=3, batch_rows=100)


def test_readers_that_are_not_drained_end_with_the_source(server: MariaDBServer) -> None:
    database = server.create_database()
    server.execute("CREATE TABLE t AS SELECT seq AS v, repeat('x', 999) AS w FROM seq_1_to_60000", database=database)
    source = connected(server, database)
    source.read(asked(split_by="v", parallel=3, batch_rows=100)).read_next_batch()
    source.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edp-reader")] == []


def test_a_column_without_ranges_is_read_by_one(server: MariaDBServer) -> None:
    database = server.create_database()
    server.execute("CREATE TABLE t (v text)", "INSERT INTO t VALUES ('a'), ('b'), (NULL)", database=database)
    assert values(connected(server, database), split_by="v", parallel=2) == ["a", "b", None]


def test_a_table_without_rows_needs_no_ranges(server: MariaDBServer) -> None:
    database = server.create_database()
    server.execute("CREATE TABLE t (v int)", database=database)
    assert values(connected(server, database), split_by="v", parallel=2) == []
