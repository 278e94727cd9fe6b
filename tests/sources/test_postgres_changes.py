"""The source postgres tells which rows changed: never one too few, whatever transactions do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from platform_core.errors import SourceError
from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources import postgres_changes
from platform_core.sources.postgres import PostgresSource
from platform_core.sources.postgres_changes import MOST_TRANSACTIONS, Moment
from tests.services.postgres import PostgresServer
from tests.sources.test_postgres_reading import connected

pytestmark = pytest.mark.services
Run = Callable[..., None]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of tests do not crash, and transactions that stay open here keep a log from being written."""
    monkeypatch.setattr(postgres_changes, "_DELAYS", 0)
    monkeypatch.setattr(postgres_changes, "_LOOKS_EVERY", 0.001)


@pytest.fixture
def run(postgres_server: PostgresServer, postgres_database: str) -> Run:
    return lambda *statements: postgres_server.execute(*statements, database=postgres_database)


@pytest.fixture
def reader(postgres_server: PostgresServer, postgres_database: str) -> Reader:
    return Reader(lambda: connected(postgres_server, postgres_database))


@pytest.fixture
def others(postgres_server: PostgresServer, postgres_database: str) -> Iterator[list[Any]]:
    """Four connections of an application, each in a transaction of its own."""
    with ExitStack() as held:
        cursors = []
        for _ in range(4):
            connection = held.enter_context(closing(psycopg.connect(postgres_server.dsn(postgres_database))))
            held.callback(connection.rollback)
            cursors.append(held.enter_context(closing(connection.cursor())))
        yield cursors


class Reader:
    """Reads one table again and again, and keeps what it is told."""

    def __init__(self, opened: Callable[[], PostgresSource]) -> None:
        self._opened = opened
        self.state: bytes | None = None
        self.rows: dict[Any, dict[str, Any]] = {}

    def read(self, object_: str = "t", key: tuple[str, ...] = ("id",)) -> tuple[set[Any], set[Any]] | None:
        """Take over what changed; returns the keys of changed and of unchanged rows, None: everything was read."""
        request = ReadRequest(object=object_, key=key, tracked=True, state=self.state)
        with closing(self._opened()) as source:
            changes = source.read_changes(request) if self.state is not None else None
            if changes is None:
                self.rows = {self._key(row, key): row for row in source.read(request).read_all().to_pylist()}
                self.state = source.state()
                return None
            changed = {self._key(row, key): row for row in changes.changed.read_all().to_pylist()}
            unchanged = {self._key(row, key) for row in changes.unchanged.read_all().to_pylist()}
            self.state = source.state()
        assert not unchanged & changed.keys()
        assert unchanged <= self.rows.keys(), "said to be unchanged, and never read"
        self.rows = {name: row for name, row in self.rows.items() if name in unchanged} | changed
        return set(changed), unchanged

    def everything(self, object_: str = "t", key: tuple[str, ...] = ("id",)) -> dict[Any, dict[str, Any]]:
        with closing(self._opened()) as source:
            rows = source.read(ReadRequest(object=object_)).read_all().to_pylist()
        return {self._key(row, key): row for row in rows}

    @property
    def moment(self) -> Moment:
        found = Moment.unpacked(self.state or b"")
        assert found is not None
        return found

    @staticmethod
    def _key(row: dict[str, Any], key: tuple[str, ...]) -> Any:
        return row[key[0]] if len(key) == 1 else tuple(row[name] for name in key)


def commit(cursor: Any, *, undo: bool = False) -> None:
    """End the transaction of one of the others."""
    connection = cursor.connection
    connection.rollback() if undo else connection.commit()


def test_changed_rows_come_whole_and_others_by_their_key(run: Run, reader: Reader) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t SELECT n, 'a' FROM generate_series(1, 9) n")
    assert reader.read() is None
    run("UPDATE t SET v = 'b' WHERE id = 3", "DELETE FROM t WHERE id = 4", "INSERT INTO t VALUES (10, 'new')")
    assert reader.read() == ({3, 10}, {1, 2, 5, 6, 7, 8, 9})
    assert reader.rows == reader.everything()
    assert reader.read() == (set(), {1, 2, 3, 5, 6, 7, 8, 9, 10})


def test_a_transaction_that_was_under_way_is_not_lost_when_it_commits_after_younger_ones(
    run: Run, reader: Reader, others: list[Any]
) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'a')")
    others[0].execute("UPDATE t SET v = 'slow' WHERE id = 1")
    run("UPDATE t SET v = 'quick' WHERE id = 2")
    reader.read()
    run("INSERT INTO t VALUES (3, 'younger')")
    reader.read()
    commit(others[0])
    changed, _ = reader.read() or (set(), set())
    assert 1 in changed
    assert reader.rows == reader.everything()


def test_what_is_rolled_back_never_shows(run: Run, reader: Reader, others: list[Any]) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a'), (2, 'a')")
    others[0].execute("UPDATE t SET v = 'never' WHERE id = 1")
    reader.read()
    commit(others[0], undo=True)
    reader.read()
    assert reader.rows == reader.everything()


@pytest.mark.parametrize("seed", range(6))
def test_any_interleaving_of_transactions_shows_what_reading_everything_shows(
    run: Run, reader: Reader, others: list[Any], seed: int
) -> None:
    run("CREATE TABLE t (id int, v int)", "INSERT INTO t SELECT n, 0 FROM generate_series(1, 40) n", "ANALYZE t")
    chance, saved = random.Random(seed), [0] * len(others)
    told = 0
    for step in range(150):
        who = chance.randrange(len(others))
        cursor, mine = others[who], 10 * who + 1 + chance.randrange(10)
        match chance.randrange(9):
            case 0 | 1 | 2:
                cursor.execute(f"UPDATE t SET v = {step} WHERE id = {mine}")
            case 3:
                cursor.execute(f"DELETE FROM t WHERE id = {mine}")
            case 4:
                cursor.execute(
                    f"INSERT INTO t SELECT {mine}, {step} WHERE NOT EXISTS (SELECT FROM t WHERE id = {mine})"
                )
            case 5:
                saved[who] += 1
                cursor.execute(f"SAVEPOINT s{saved[who]}")
            case 6 if saved[who]:
                cursor.execute(f"ROLLBACK TO SAVEPOINT s{saved[who]}")
            case 7:
                commit(cursor, undo=chance.random() < 0.3)
                saved[who] = 0
            case _:
                found = reader.read()
                told += len(found[1]) if found else 0
                assert reader.rows == reader.everything()
    assert told > 100


def test_partitions_and_composite_keys_are_told_too(run: Run, reader: Reader) -> None:
    run(
        "CREATE TABLE t (area text, id int, v text, PRIMARY KEY (area, id)) PARTITION BY LIST (area)",
        "CREATE TABLE t_north PARTITION OF t FOR VALUES IN ('north')",
        "CREATE TABLE t_south PARTITION OF t FOR VALUES IN ('south')",
        "INSERT INTO t SELECT a, n, 'a' FROM generate_series(1, 4) n, unnest(ARRAY['north', 'south']) a",
    )
    key = ("area", "id")
    reader.read(key=key)
    run(
        "UPDATE t SET v = 'b' WHERE area = 'south' AND id = 2",
        "UPDATE t SET area = 'north', id = 9 WHERE id = 3 AND area = 'south'",
    )
    changed, unchanged = reader.read(key=key) or (set(), set())
    assert changed == {("south", 2), ("north", 9)}
    assert len(unchanged) == 6
    assert reader.rows == reader.everything(key=key)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t ADD COLUMN w int DEFAULT 7",
        "ALTER TABLE t DROP COLUMN m",
        "ALTER TABLE t ALTER COLUMN v TYPE varchar(9)",
        "ALTER TABLE t RENAME COLUMN v TO x",
        "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'",
        "ALTER TYPE pair ADD ATTRIBUTE c int",
        "VACUUM FULL t",
        "CREATE TABLE heir () INHERITS (t)",
    ],
)
def test_what_changes_values_without_their_rows_has_everything_read(run: Run, reader: Reader, statement: str) -> None:
    run(
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(5), m mood)",
        "INSERT INTO t VALUES (1, 'a', 'good')",
    )
    reader.read()
    run(statement)
    assert reader.read() is None
    assert reader.rows == reader.everything()
    assert reader.read() == (set(), {1})


def test_a_table_that_was_emptied_and_filled_again_is_read_whole(run: Run, reader: Reader) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')")
    reader.read()
    run("TRUNCATE t", "INSERT INTO t VALUES (1, 'b')")
    assert reader.read() is None
    run("DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'c')")
    assert reader.read() is None
    assert reader.rows == {1: {"id": 1, "v": "c"}}


@pytest.mark.parametrize(
    "other",
    [
        lambda moment: replace(moment, server="1700000000.000001"),
        lambda moment: replace(moment, next=moment.next + 1_000_000),
        lambda moment: replace(moment, oldest=moment.oldest - MOST_TRANSACTIONS),
    ],
    ids=["restarted", "set back", "long ago"],
)
def test_a_moment_that_cannot_be_compared_with_now_has_everything_read(
    run: Run, reader: Reader, other: Callable[[Moment], Moment]
) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    reader.read()
    reader.state = other(reader.moment).packed()
    assert reader.read() is None


def test_a_state_of_another_form_has_everything_read(run: Run, reader: Reader) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY)")
    reader.state = b"something else"
    assert reader.read() is None


def test_ids_that_begin_anew_are_told_by_their_distance(run: Run, reader: Reader) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    reader.read()
    since = reader.moment
    again = postgres_changes.may_have_changed(replace(since, oldest=since.oldest + 2**32))
    assert again == postgres_changes.may_have_changed(since)


def test_a_moment_that_a_crash_could_undo_is_waited_for_as_long_as_the_server_may_take(
    run: Run, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    waits: list[float] = []
    monkeypatch.setattr(postgres_changes, "_DELAYS", 5)
    monkeypatch.setattr(postgres_changes, "_LOOKS_EVERY", 0.1)
    monkeypatch.setattr("platform_core.sources.postgres_changes.time.sleep", waits.append)
    asked = postgres_changes.moment
    monkeypatch.setattr(
        "platform_core.sources.postgres.moment", lambda *args: replace(asked(*args), log="FFFFFFFF/FFFFFFFF")
    )
    reader.read()
    assert sum(waits) == pytest.approx(1.1)


def test_a_commit_that_does_not_wait_for_its_log_counts_once_it_is_written(run: Run, reader: Reader) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY)", "SET synchronous_commit = off", "INSERT INTO t VALUES (1)")
    reader.read()
    assert reader.state is not None


@pytest.mark.parametrize(
    ("statement", "object_", "told"),
    [
        ("CREATE VIEW v AS SELECT * FROM t", "v", "this is a view"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM t", "v", "this is a view"),
    ],
)
def test_what_is_no_table_is_refused(run: Run, reader: Reader, statement: str, object_: str, told: str) -> None:
    run("CREATE TABLE t (id int PRIMARY KEY)", statement)
    with pytest.raises(SourceError, match=told):
        reader.read(object_)


def test_rows_that_policies_show_are_refused(run: Run, postgres_server: PostgresServer, postgres_database: str) -> None:
    run(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE ROLE clerk LOGIN PASSWORD 'clerk'",
        "GRANT SELECT ON t TO clerk",
    )
    options = {"host": postgres_server.host, "port": postgres_server.port, "database": postgres_database}
    source = PostgresSource(
        PostgresSource.Options(**options, user="clerk", password={"secret": "crm/clerk"}),
        secret=lambda name: Secret(name, b"clerk"),
    )
    with closing(source), pytest.raises(SourceError, match="row level security"):
        source.read(ReadRequest(object="t", key=("id",), tracked=True))
    run("DROP OWNED BY clerk", "DROP ROLE clerk")


def test_a_user_who_may_only_read_the_table_is_told_its_changes(
    run: Run, reader: Reader, postgres_server: PostgresServer, postgres_database: str
) -> None:
    run(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "CREATE ROLE reader LOGIN PASSWORD 'reader'",
        "GRANT SELECT ON t TO reader",
    )
    options = {"host": postgres_server.host, "port": postgres_server.port, "database": postgres_database}
    mine = Reader(
        lambda: PostgresSource(
            PostgresSource.Options(**options, user="reader", password={"secret": "crm/reader"}),
            secret=lambda name: Secret(name, b"reader"),
        )
    )
    mine.read()
    run("INSERT INTO t VALUES (2)")
    assert mine.read() == ({2}, {1})
    run("DROP OWNED BY reader", "DROP ROLE reader")
