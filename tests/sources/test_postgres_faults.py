"""The source postgres when the line to the server breaks or falls silent: an error in time, and never a part."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.postgres import PostgresSource
from platform_core.sources.postgres_idle import IdleConnections, idle_connections
from tests.services.postgres import PostgresServer
from tests.sources.broken_line import Break, Line, line_to

pytestmark = pytest.mark.services
ROWS = 6_000
HASTE = 1
"""Seconds after which a silent server is given up, where that is what a test is about."""


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> str:
    name = postgres_server.create_database()
    postgres_server.execute(
        "CREATE TABLE t AS SELECT n AS id, repeat('x', 200) AS v, n::numeric(12, 2) AS d "
        f"FROM generate_series(1, {ROWS}) n",
        "CREATE TABLE wide AS SELECT n AS id, repeat('x', 1000) AS v FROM generate_series(1, 60000) n",
        "VACUUM ANALYZE",
        database=name,
    )
    return name


@pytest.fixture
def line(postgres_server: PostgresServer) -> Iterator[Line]:
    with line_to(postgres_server.host, postgres_server.port) as line:
        yield line


@pytest.fixture
def source(postgres_server: PostgresServer, database: str, line: Line) -> PostgresSource:
    return connected(postgres_server, database, line.port)


@pytest.fixture
def hasty(postgres_server: PostgresServer, database: str, line: Line) -> PostgresSource:
    """The same, on the same connections, but soon tired of a silent server."""
    return connected(postgres_server, database, line.port, read_timeout=HASTE)


def connected(server: PostgresServer, database: str, port: int, **more: Any) -> PostgresSource:
    options = PostgresSource.Options(
        host=server.host,
        port=port,
        database=database,
        user=server.user,
        password={"secret": "crm/reader"},
        **{"connect_timeout": 4, "read_timeout": 60, **more},
    )
    return PostgresSource(options, secret=lambda name: Secret(name, server.password.encode()))


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that happens by itself, on a busy machine late."""
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "it did not happen within two minutes"
        time.sleep(0.01)


def read(source: PostgresSource, object_: str = "t", **request: Any) -> pa.Table:
    with closing(source):
        return source.read(ReadRequest(object=object_, **request)).read_all()


@pytest.fixture(params=["new", "kept"])
def connections(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each read makes connections of its own, or finds those of the one before."""
    if request.param == "new":
        monkeypatch.setattr(IdleConnections, "give", lambda self, opened: opened.close())
    return str(request.param)


@pytest.mark.parametrize("breaks", ["reset", "end"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_b1_a_line_that_breaks_anywhere_gives_an_error_or_every_row(
    source: PostgresSource,
    line: Line,
    breaks: Break,
    parallel: int,
    connections: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform_core.sources.postgres._LEAST_PAGES", 15)
    assert read(source, parallel=parallel).num_rows == ROWS
    line.passed = 0
    assert read(source, parallel=parallel).num_rows == ROWS
    whole = line.passed
    chance = random.Random(7)
    places = sorted({0, 1, whole - 40, whole - 1, whole + 10_000, *(chance.randrange(whole) for _ in range(8))})
    outcomes = []
    for place in places:
        if connections == "kept":
            line.after = None
            read(source, parallel=parallel)
        line.breaks, line.passed, line.after = breaks, 0, place
        try:
            outcomes.append(read(source, parallel=parallel).num_rows)
        except SourceError as error:
            assert "xxxx" not in str(error)
            outcomes.append(0)
    assert set(outcomes) == {0, ROWS}
    assert outcomes[0] == 0


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
@pytest.mark.parametrize("parallel", [1, 3])
def test_b1_a_server_that_falls_silent_ends_the_read_in_time(
    postgres_server: PostgresServer,
    database: str,
    source: PostgresSource,
    line: Line,
    share: float,
    parallel: int,
    connections: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As short as may be where connections are made; those that are kept are found by the same options only.
    patience = 2 if connections == "new" else 4
    hasty = connected(postgres_server, database, line.port, read_timeout=HASTE, connect_timeout=patience)
    monkeypatch.setattr("platform_core.sources.postgres._LEAST_PAGES", 15)
    assert read(source, parallel=parallel).num_rows == ROWS
    line.passed = 0
    assert read(source, parallel=parallel).num_rows == ROWS
    line.breaks, line.after, line.passed = "silence", int(line.passed * share), 0
    threads = threading.active_count()
    ends = rf"nothing came from the server for {HASTE} s|no answer within {patience} s|timeout expired"
    with pytest.raises(SourceError, match=ends):
        read(hasty, parallel=parallel)
    assert threading.active_count() - threads <= 2 * 8  # the line's own, two a connection


def test_one_connection_serves_one_read_after_another(source: PostgresSource, line: Line) -> None:
    read(source, columns=("id",))
    made = line.connections
    for _ in range(5):
        read(source, columns=("id",))
    assert line.connections == made


def test_a_connection_is_closed_when_nobody_asks_for_it(
    source: PostgresSource, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform_core.sources.postgres_idle.IDLE_SECONDS", 0.2)
    read(source, columns=("id",))
    made = line.connections
    until(lambda: not idle_connections()._idle)
    read(source, columns=("id",))
    assert line.connections == 2 * made


def test_an_unfinished_read_leaves_no_connection_for_others(source: PostgresSource, line: Line) -> None:
    with closing(source):
        source.read(ReadRequest(object="wide", batch_rows=100)).read_next_batch()
    made = line.connections
    read(source, columns=("id",))
    assert line.connections == 2 * made


def test_another_password_is_another_connection(
    postgres_server: PostgresServer, database: str, source: PostgresSource, line: Line
) -> None:
    read(source, columns=("id",))
    other = connected(postgres_server, database, line.port)
    other.secret = lambda name: Secret(name, b"changed since")
    with pytest.raises(SourceError, match="cannot connect"):
        read(other, columns=("id",))


def test_closing_does_not_wait_for_a_silent_server(postgres_server: PostgresServer, database: str, line: Line) -> None:
    source = connected(postgres_server, database, line.port, read_timeout=600)
    line.breaks, line.after = "silence", 20_000_000
    reader = source.read(ReadRequest(object="wide", batch_rows=100))
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(reader.read_all)
        until(lambda: line.passed == line.after)
        began = time.monotonic()
        source.close()
        # Not the ten minutes for which it would wait itself.
        assert time.monotonic() - began < 120
        with pytest.raises(SourceError):
            rest.result()


def test_a_reader_that_is_slow_itself_is_not_taken_for_a_silent_server(
    postgres_server: PostgresServer, database: str
) -> None:
    source = connected(postgres_server, database, postgres_server.port, read_timeout=2)
    with closing(source):
        reader = source.read(ReadRequest(object="wide", batch_rows=20_000))
        rows = reader.read_next_batch().num_rows
        time.sleep(3)
        assert rows + reader.read_all().num_rows == 60_000


def test_another_connection_of_the_process_is_left_alone(
    postgres_server: PostgresServer, database: str, line: Line, hasty: PostgresSource
) -> None:
    other = connected(postgres_server, database, postgres_server.port, read_timeout=60)
    with closing(other):
        reader = other.read(ReadRequest(object="wide", batch_rows=100))
        reader.read_next_batch()
        line.breaks, line.after = "silence", 400_000
        with pytest.raises(SourceError, match="nothing came from the server"):
            read(hasty)
        assert 100 + reader.read_all().num_rows == 60_000


def test_a_table_that_is_being_altered_is_not_waited_for_too_long(
    postgres_server: PostgresServer, database: str
) -> None:
    source = connected(postgres_server, database, postgres_server.port, read_timeout=60, lock_timeout=1)
    with postgres_server.connect(database) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceError, match="did not come free in time"):
            read(source)
        connection.rollback()


def test_a_read_may_be_limited_at_the_server(postgres_server: PostgresServer, database: str) -> None:
    source = connected(postgres_server, database, postgres_server.port, read_timeout=60, statement_timeout=1)
    slow = "SELECT count(*) AS n FROM generate_series(1, 300000000)"
    with pytest.raises(SourceError, match=r"statement_timeout|statement timeout"):
        read(source, query=slow)
