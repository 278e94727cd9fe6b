"""A control database that is locked, away or wrong: no load without a lease, and a clear word."""

from __future__ import annotations

import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from platform_core.control.loads import open_loads
from platform_core.errors import ControlError, LeaseError, SecretError
from platform_core.specs.base import SecretRef
from platform_core.specs.environment import ControlSpec
from tests.control_database.conftest import ORDERS, Begin, Line, Place, postgres_place, sqlite_place
from tests.services.postgres import PostgresServer

SHORT = {"ask": 1.0, "finish": 1.0, "leave": 0.3}


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Place]:
    found = sqlite_place(tmp_path)
    yield found
    for each in found.opened:
        each.close()


@pytest.fixture
def line(postgres_server: PostgresServer) -> Iterator[Line]:
    found = Line((postgres_server.host, postgres_server.port))
    yield found
    found.cut()


@pytest.fixture
def remote(tmp_path: Path, postgres_server: PostgresServer, line: Line) -> Iterator[Place]:
    """PostgreSQL at the other end of a line that can be cut."""
    found = postgres_place(tmp_path, postgres_server, port=line.port)
    yield found
    for each in found.opened:
        each.close()


def told_of(error: BaseException | None) -> str:
    """All that an error says, and those behind it."""
    told = ""
    while error is not None:
        told += f"{error!r} {error} {vars(error)} {traceback.format_exception(error)}\n"
        error = error.__cause__ or error.__context__
    return told


class Lock:
    """Another process's transaction that does not end."""

    def __init__(self, file: Path) -> None:
        self.connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self.connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self.connection.rollback()
        self.connection.close()


def test_c9_a_lock_that_ends_in_time_is_waited_for(local: Place, begin: Begin) -> None:
    loads = local.loads()
    loads.recent()
    lock = Lock(local.file)
    threading.Timer(2.0, lock.release).start()
    with begin(loads) as ticket:
        ticket.finish(status="succeeded", figures={})


def test_c9_a_lock_that_does_not_end_is_an_error_that_says_so(local: Place, begin: Begin) -> None:
    loads = local.loads(**SHORT)
    loads.recent()
    lock = Lock(local.file)
    began = time.monotonic()
    with pytest.raises(
        ControlError, match=r"locked by another process for longer than 1 seconds .*SQLITE_BUSY"
    ) as told:
        begin(loads)
    assert time.monotonic() - began < 10
    assert f"looked at: SQLite file {local.file}" in str(told.value)
    lock.release()
    with begin(loads) as ticket:
        assert (ticket.batch_id, ticket.taken_over) == (1, False)
        ticket.finish(status="succeeded", figures={})


def test_c9_a_file_that_is_no_database_is_an_error_that_says_so(local: Place, begin: Begin) -> None:
    local.file.write_bytes(b"something else " * 100)
    with pytest.raises(ControlError, match=r"its file cannot be used .*SQLITE_NOTADB"):
        begin(local.loads())


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path, begin: Begin) -> None:
    (tmp_path / "file").write_text("")
    place = Place(ControlSpec(url="sqlite:///file/control.db"), tmp_path)
    with pytest.raises(ControlError, match="its file cannot be used: "):
        begin(place.loads())


def test_tables_that_are_gone_are_made_anew_at_the_next_load(local: Place, begin: Begin) -> None:
    loads = local.loads()
    loads.recent()
    with closing(sqlite3.connect(local.file)) as other:
        for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            other.execute(f"DROP TABLE {name}")
    with pytest.raises(ControlError, match="its tables are gone"):
        begin(loads)
    with begin(loads, above=8) as ticket:
        assert ticket.batch_id == 9
        ticket.finish(status="succeeded", figures={})


@pytest.mark.services
def test_c8_no_load_begins_while_the_database_is_away(remote: Place, line: Line, begin: Begin) -> None:
    line.cut()
    loads = remote.loads(**SHORT)
    with pytest.raises(ControlError, match="cannot be reached, or was too busy, for 1 seconds") as told:
        begin(loads)
    assert f"on 127.0.0.1:{line.port}" in str(told.value)
    line.mend()
    with begin(loads) as ticket:
        assert (ticket.batch_id, ticket.taken_over) == (1, False)
        ticket.finish(status="succeeded", figures={})


@pytest.mark.services
@pytest.mark.slow
def test_c8_a_short_outage_in_the_middle_does_no_harm(
    remote: Place, line: Line, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    loads = remote.loads(lease=4)
    with caplog.at_level("INFO"), begin(loads) as ticket:
        line.cut()
        time.sleep(2)
        line.mend()
        # Longer than the lease: it is only held because it is renewed again.
        time.sleep(4)
        ticket.confirm()
        ticket.finish(status="succeeded", figures={})
    assert caplog.text.count("the lease cannot be renewed yet") == 1
    assert "the lease is renewed again" in caplog.text
    assert loads.recent()[0].status == "succeeded"


@pytest.mark.services
def test_c8_an_outage_longer_than_the_lease_loses_it(remote: Place, line: Line, begin: Begin) -> None:
    loads = remote.loads(lease=1)
    with pytest.raises(LeaseError, match="the lease of batch 1 was lost"), begin(loads) as ticket:
        line.cut()
        time.sleep(1.5)
        line.mend()
        ticket.confirm()
    assert [row.status for row in loads.recent()] == ["failed"]


@pytest.mark.services
def test_c8_nothing_is_committed_while_the_lease_cannot_be_confirmed(remote: Place, line: Line, begin: Begin) -> None:
    loads = remote.loads(**SHORT)
    with (
        pytest.raises(LeaseError, match="batch 1 is not committed, because its lease cannot be confirmed"),
        begin(loads) as ticket,
    ):
        line.cut()
        ticket.confirm()
    line.mend()
    with begin(loads) as ticket:
        assert (ticket.batch_id, ticket.taken_over) == (2, True)
        ticket.finish(status="succeeded", figures={})
    assert [row.status for row in loads.recent()] == ["succeeded", "crashed"]


@pytest.mark.services
def test_c8_the_end_of_a_load_waits_for_the_database(remote: Place, line: Line, begin: Begin) -> None:
    loads = remote.loads()
    with begin(loads) as ticket:
        line.cut()
        threading.Timer(1.5, line.mend).start()
        ticket.finish(status="succeeded", figures={"rows_read": 5})
    [row] = loads.recent()
    assert (row.status, dict(row.figures)) == ("succeeded", {"rows_read": 5})


@pytest.mark.services
def test_c8_a_loaded_batch_whose_end_cannot_be_written_is_told_and_known_to_the_next_load(
    remote: Place, line: Line, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    loads = remote.loads(**SHORT)
    with (
        pytest.raises(ControlError, match="batch 1 is loaded, but the load log could not be told"),
        begin(loads) as ticket,
    ):
        line.cut()
        ticket.finish(status="succeeded", figures={})
    assert "the end of batch 1 could not be written to the load log" in caplog.text
    line.mend()
    with begin(loads, above=1) as ticket:
        assert (ticket.batch_id, ticket.taken_over) == (2, True)
        ticket.finish(status="succeeded", figures={})
    crashed = loads.recent()[1]
    assert crashed.status == "crashed"
    assert crashed.error is not None
    assert "bronze holds the batch" in crashed.error


@pytest.mark.services
def test_a_server_that_ends_every_connection_is_connected_to_again(
    remote: Place, postgres_server: PostgresServer, begin: Begin
) -> None:
    loads = remote.loads()
    loads.recent()
    database = remote.control.url.rpartition("/")[2]
    postgres_server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'", database="postgres"
    )
    with begin(loads) as ticket:
        ticket.finish(status="succeeded", figures={})


@pytest.mark.services
def test_a_wrong_password_is_told_at_once_and_never_shown(
    remote: Place, caplog: pytest.LogCaptureFixture, begin: Begin
) -> None:
    (remote.state / "secrets" / "platform" / "control").write_text("wrong-and-private")
    began = time.monotonic()
    with pytest.raises(ControlError, match="it refuses this user, password or database name") as told:
        begin(remote.loads())
    assert time.monotonic() - began < 5
    assert "wrong-and-private" not in told_of(told.value) + caplog.text


@pytest.mark.services
def test_a_password_that_is_missing_is_told_with_its_name(remote: Place, begin: Begin) -> None:
    control = remote.control.model_copy(update={"password": SecretRef(secret="platform/other")})
    with pytest.raises(SecretError, match="platform/other"):
        begin(Place(control, remote.state).loads())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql+psycopg://edp:hunter2@db/edp", "holds a password"),
        ("postgresql://db/edp?password=hunter2", "holds a password"),
        ("postgresql://db/", "must name a database"),
        ("mysql://edp@db/edp", "must begin with sqlite"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite://host/file.db", "must name a file"),
        ("postgresql://db:port/edp", "is no URL"),
        ("control.db", "must begin with"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(local: Place, url: str, told: str) -> None:
    with pytest.raises(ControlError, match=told) as refused:
        open_loads(ControlSpec(url=url), state=local.state, secrets=local.secrets)
    assert "hunter2" not in told_of(refused.value)


def test_sqlite_takes_no_password(local: Place) -> None:
    control = ControlSpec(password=SecretRef(secret="platform/control"))
    with pytest.raises(ControlError, match="SQLite takes no password"):
        open_loads(control, state=local.state, secrets=local.secrets)


def test_nothing_is_made_before_the_first_call(local: Place, begin: Begin) -> None:
    loads = open_loads(local.control, state=local.state / "new", secrets=local.secrets)
    assert not (local.state / "new").exists()
    assert loads.recent(table=ORDERS) == []
    assert (local.state / "new" / "control.db").is_file()
    loads.close()


@pytest.mark.services
def test_a_connection_that_is_in_use_while_the_database_is_closed_is_closed_after_it(remote: Place) -> None:
    database = remote.database()
    kept = []

    def close_meanwhile(connection: sa.Connection) -> None:
        kept.append(connection.connection.driver_connection)
        database.close()

    database.transact(close_meanwhile)
    assert [each.closed for each in kept] == [True]
