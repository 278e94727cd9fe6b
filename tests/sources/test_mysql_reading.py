"""What the source mysql asks of a real MariaDB, and what it does when that fails."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import threading
from contextlib import closing
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.plugins.testing import CANARY, no_secrets
from platform_core.sources.mysql import MysqlSource
from tests.services.mariadb import MariaDBServer, running_mariadb
from tests.sources.mysql_reading import Run, asked, connected, read, values

pytestmark = pytest.mark.services


@pytest.fixture
def source(mariadb_server: MariaDBServer, mariadb_database: str) -> MysqlSource:
    return connected(mariadb_server, mariadb_database)


@pytest.fixture
def run(mariadb_server: MariaDBServer, mariadb_database: str) -> Run:
    return lambda *statements: mariadb_server.execute(*statements, database=mariadb_database)


@pytest.mark.parametrize(
    ("declared", "given", "since", "until", "expected"),
    [
        ("bigint unsigned", ["1", "18446744073709551615"], 2, 2**64 - 1, [Decimal(2**64 - 1)]),
        ("year", ["1999", "2024"], 2024, None, [2024]),
        ("varchar(9) character set latin1", ["a", "B", "ä", "z"], "a", "z", ["a", "z"]),
    ],
)
def test_b9_since_and_until_are_inclusive(
    run: Run, source: MysqlSource, declared: str, given: list[str], since: Any, until: Any, expected: list[Any]
) -> None:
    run(f"CREATE TABLE t (v {declared})", *(f"INSERT INTO t VALUES ('{value}')" for value in given))
    assert values(source, cursor="v", since=since, until=until) == expected


def test_b9_the_server_reads_only_what_is_asked_for(
    run: Run, source: MysqlSource, mariadb_server: MariaDBServer
) -> None:
    run(
        "CREATE TABLE t (id int PRIMARY KEY, v datetime(6), KEY (v))",
        "INSERT INTO t SELECT seq, '2024-01-01' + INTERVAL seq SECOND FROM seq_1_to_20000",
    )
    with closing(source):
        late = asked(cursor="v", since=dt.datetime(2024, 1, 1, 5, 33, 10), columns=("id",))
        few = asked(filter="id BETWEEN 5 AND 14 AND v IS NOT NULL", columns=("v",))
        for request, rows in ((late, 11), (few, 10)):
            before = rows_touched(mariadb_server)
            assert source.read(request).read_all().num_rows == rows
            assert rows_touched(mariadb_server) - before < 5_000


def rows_touched(server: MariaDBServer) -> int:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Handler_read%%next'")
        return sum(int(count) for _, count in cursor.fetchall())


def test_a_query_stands_in_place_of_a_table(run: Run, source: MysqlSource) -> None:
    run("CREATE TABLE t (id int, v varchar(9))", r"INSERT INTO t VALUES (1, 'a%'), (2, 'b\\'), (3, 'a''')")
    query = r"SELECT id AS n, concat(v, '%s \\ ''') AS v FROM t WHERE v LIKE 'a%' OR v = 'b\\'"
    found = read(source, query=query, cursor="n", since=2).to_pylist()
    assert found == [{"n": 2, "v": r"b\%s \ '"}, {"n": 3, "v": r"a'%s \ '"}]


def test_a_query_is_described_without_being_run(run: Run, source: MysqlSource) -> None:
    run(
        "CREATE TABLE t (v int)",
        "INSERT INTO t VALUES (1)",
        "CREATE FUNCTION broken(v int) RETURNS int NO SQL BEGIN SIGNAL SQLSTATE '45000'; RETURN v; END",
    )
    request = asked(query="SELECT max(broken(v)) AS v FROM t GROUP BY v")
    with closing(source):
        assert source.schema(request) == pa.schema([("v", pa.int64())])
        with pytest.raises(SourceError, match="a function of a view or query raised an error"):
            source.read(request).read_all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": "DELETE FROM t"},
        {"query": "SELECT 1; DROP TABLE t"},
        {"query": "SELECT v FROM t INTO OUTFILE '/tmp/x'"},
        {"query": "SELECT v FROM t FOR UPDATE"},
        {"query": "SELECT load_file('/etc/passwd') AS v"},
        {"filter": "1 = 1; DROP TABLE t"},
        {"filter": "v IN (SELECT v FROM t)"},
        {"filter": "sleep(10) = 0"},
    ],
)
def test_what_is_more_than_reading_is_refused(run: Run, source: MysqlSource, wrong: dict[str, str]) -> None:
    run("CREATE TABLE t (v int)", "INSERT INTO t VALUES (1)")
    with pytest.raises(SourceError, match=r"the query|the filter"):
        read(source, **wrong)
    assert values(source) == [1]


def test_nothing_can_be_written_through_the_source(run: Run, source: MysqlSource) -> None:
    run(
        "CREATE TABLE t (v int)",
        "CREATE FUNCTION f() RETURNS int BEGIN INSERT INTO t VALUES (1); RETURN 1; END",
        "CREATE VIEW w AS SELECT f() AS v",
    )
    with pytest.raises(SourceError, match="1792"):
        read(source, "w")


def test_names_are_quoted_and_never_folded(run: Run, source: MysqlSource) -> None:
    run('CREATE TABLE `a "t``.b` (`select` int, `x;--` text)', 'INSERT INTO `a "t``.b` VALUES (1, NULL)')
    assert read(source, '"a ""t`.b"', cursor="select", since=0).to_pylist() == [{"select": 1, "x;--": None}]


@pytest.mark.parametrize("text", ["'); DROP TABLE t; --", "\\'; DROP TABLE t; --", "%s", "\x00\x1a"])
def test_a_watermark_cannot_become_part_of_the_statement(run: Run, source: MysqlSource, text: str) -> None:
    run("CREATE TABLE t (v text)", "INSERT INTO t VALUES ('\U0010ffff')")
    assert read(source, cursor="v", since=text).num_rows == 1
    assert read(source).num_rows == 1


def test_a_read_sees_one_moment(run: Run, source: MysqlSource) -> None:
    run("CREATE TABLE t AS SELECT seq AS v, repeat('x', 1000) AS filler FROM seq_1_to_50000")
    with closing(source):
        reader = source.read(asked(columns=("v",), batch_rows=100))
        run("INSERT INTO t VALUES (0, '')")
        rows = reader.read_next_batch().num_rows
        run("DELETE FROM t WHERE v > 10")
        assert rows + reader.read_all().num_rows == 50_000


def test_values_of_every_length_arrive(run: Run, source: MysqlSource) -> None:
    lengths = [0, 1, 250, 251, 65_535, 65_536, 16_777_195, 16_777_203, 16_777_211, 16_777_215, 16_777_216, 40_000_000]
    run("SET GLOBAL max_allowed_packet = 67108864", "CREATE TABLE t (id int, v longblob)")
    for length in lengths:
        run(f"INSERT INTO t VALUES ({length}, concat(repeat('ab', {length // 2}), left('c', {length % 2})))")
    with closing(source):
        for batch in source.read(asked(batch_rows=2)):
            for length, value in zip(batch.column("id").to_pylist(), batch.column("v").to_pylist(), strict=True):
                assert value == b"ab" * (length // 2) + b"c" * (length % 2)
                lengths.remove(length)
    assert lengths == []


def test_memory_does_not_grow_with_the_table(run: Run, source: MysqlSource) -> None:
    run("CREATE TABLE t AS SELECT seq AS v, repeat('x', 200) AS filler FROM seq_1_to_300000")
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    peak = 0
    with closing(source):
        for _ in source.read(asked()):
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 40_000_000  # the table is 61 MB


def test_b1_a_server_that_is_killed_while_rows_stream_is_an_error() -> None:
    with running_mariadb() as server:
        database = server.create_database()
        server.execute("CREATE TABLE t AS SELECT repeat('x', 1000) AS v FROM seq_1_to_60000", database=database)
        with closing(connected(server, database)) as source:
            reader = source.read(asked(batch_rows=100))
            reader.read_next_batch()
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(SourceError, match="the connection broke, or the server went away"):
                reader.read_all()


def test_b1_a_connection_that_is_ended_at_the_server_is_an_error(
    run: Run, source: MysqlSource, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    run("CREATE TABLE t AS SELECT repeat('x', 1000) AS v FROM seq_1_to_60000")
    with closing(source):
        reader = source.read(asked(batch_rows=100))
        reader.read_next_batch()
        for session in sessions(mariadb_server, mariadb_database):
            mariadb_server.execute(f"KILL {session}")
        with pytest.raises(SourceError, match="the read failed"):
            reader.read_all()


def test_b1_a_server_that_hangs_is_an_error_in_time(
    run: Run, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    run(
        "CREATE FUNCTION slow(v int) RETURNS int NOT DETERMINISTIC RETURN sleep(v)",
        "CREATE TABLE kept AS SELECT 30 AS v UNION SELECT 31",
        "CREATE VIEW t AS SELECT slow(v) AS v FROM kept",
    )
    with pytest.raises(SourceError, match="the connection broke"):
        read(connected(mariadb_server, mariadb_database, read_timeout=1))


def test_closing_ends_a_read_that_waits_for_the_server(run: Run, source: MysqlSource) -> None:
    run(
        "CREATE FUNCTION slow(v int) RETURNS int NOT DETERMINISTIC RETURN sleep(v)",
        "CREATE TABLE kept AS SELECT 30 AS v UNION SELECT 31",
        "CREATE VIEW t AS SELECT slow(v) AS v FROM kept",
    )
    reader = source.read(asked())
    faults: list[SourceError] = []

    def drain() -> None:
        try:
            reader.read_all()
        except SourceError as error:
            faults.append(error)

    waiting = threading.Thread(target=drain)
    waiting.start()
    waiting.join(0.5)
    source.close()
    waiting.join(10)
    assert (waiting.is_alive(), len(faults)) == (False, 1)


def test_closing_ends_the_session_at_the_server(
    run: Run, source: MysqlSource, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    run("CREATE TABLE t AS SELECT repeat('x', 1000) AS v FROM seq_1_to_60000")
    source.read(asked()).read_next_batch()
    source.close()
    # The server notices a moment after the client has gone.
    left = next((True for _ in range(50) if not sessions(mariadb_server, mariadb_database, after=0.1)), False)
    assert left


def sessions(server: MariaDBServer, database: str, *, after: float = 0) -> list[int]:
    """Numbers of the sessions at a database, some seconds from now."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT sleep(%s)", (after,))
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (database,))
        return [int(number) for (number,) in cursor.fetchall()]


def test_a_wrong_password_is_said_without_showing_it(mariadb_server: MariaDBServer, mariadb_database: str) -> None:
    options = connected(mariadb_server, mariadb_database).options
    source = MysqlSource(options, secret=lambda name: Secret(name, CANARY.encode()))
    with pytest.raises(SourceError, match="the server refuses user or password") as caught:
        read(source)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_password_with_every_odd_character_works(
    run: Run, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    password = r"""a 'b" \c=d%20&?é€"""
    with mariadb_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER odd IDENTIFIED BY %s", (password,))
    run("CREATE TABLE t (v int)", "GRANT SELECT ON t TO odd")
    options = connected(mariadb_server, mariadb_database, user="odd").options
    assert read(MysqlSource(options, secret=lambda name: Secret(name, password.encode()))).num_rows == 0
    run("DROP USER odd")


def test_a_missing_privilege_says_what_to_grant(run: Run, mariadb_server: MariaDBServer, mariadb_database: str) -> None:
    run(
        "CREATE TABLE t (v int)",
        "CREATE TABLE other (v int)",
        "CREATE OR REPLACE USER guest IDENTIFIED BY 'guest'",
        "GRANT SELECT ON other TO guest",
    )
    options = connected(mariadb_server, mariadb_database, user="guest").options
    with pytest.raises(SourceError, match="no SELECT privilege on it; grant it"):
        read(MysqlSource(options, secret=lambda name: Secret(name, b"guest")))
    run("DROP USER guest")


def test_an_unreachable_server_is_named(mariadb_server: MariaDBServer) -> None:
    source = connected(mariadb_server, "x", port=1)
    with pytest.raises(SourceError, match=r"cannot connect to database 'x' at 127.0.0.1:1 as 'tester': .*refused"):
        read(source)


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    source = MysqlSource(MysqlSource.Options(host="x", database="x", user="x"), secret=no_secrets)
    with pytest.raises(PluginError, match=r"edp-platform-core\[mysql\]"):
        source.schema(ReadRequest(object="t"))


@pytest.mark.parametrize("mode", ["required", "verify_ca", "verify_identity"])
def test_the_connection_is_encrypted_where_asked_for(
    run: Run, mariadb_server: MariaDBServer, mariadb_database: str, mode: str
) -> None:
    run(
        "CREATE VIEW t AS SELECT variable_value AS v FROM information_schema.session_status "
        "WHERE variable_name = 'SSL_VERSION'"
    )
    ca = None if mode == "required" else str(mariadb_server.certificate)
    assert values(connected(mariadb_server, mariadb_database, ssl_mode=mode, ssl_ca=ca)) == ["TLSv1.3"]
    assert values(connected(mariadb_server, mariadb_database, ssl_mode="disabled")) == [""]


def test_a_certificate_that_nobody_vouches_for_is_refused(mariadb_server: MariaDBServer, mariadb_database: str) -> None:
    with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED"):
        read(connected(mariadb_server, mariadb_database, ssl_mode="verify_ca"))


def test_a_certificate_of_another_host_is_refused_where_identity_counts(
    run: Run, mariadb_server: MariaDBServer, mariadb_database: str
) -> None:
    run("CREATE TABLE t (v int)")
    trusted = {"host": "localhost", "ssl_ca": str(mariadb_server.certificate)}
    assert values(connected(mariadb_server, mariadb_database, ssl_mode="verify_ca", **trusted)) == []
    with pytest.raises(SourceError, match="Hostname mismatch"):
        read(connected(mariadb_server, mariadb_database, ssl_mode="verify_identity", **trusted))
