"""The server that other tests lean on."""

from __future__ import annotations

import os
from contextlib import closing

import pytest
from adbc_driver_postgresql import dbapi

from tests.services.postgres import PostgresServer, running_postgres

pytestmark = pytest.mark.services


def test_each_database_is_a_fresh_one(postgres_server: PostgresServer) -> None:
    first, second = postgres_server.create_database(), postgres_server.create_database()
    postgres_server.execute("CREATE TABLE t (v int)", database=first)
    postgres_server.execute("CREATE TABLE t (v int)", database=second)
    assert first != second


def test_it_wants_its_password_and_does_not_show_it(postgres_server: PostgresServer) -> None:
    assert postgres_server.password not in repr(postgres_server)
    with pytest.raises(dbapi.Error, match="password authentication failed"):
        dbapi.connect(postgres_server.dsn().replace(postgres_server.password, "wrong"))


def test_it_ends_with_its_context() -> None:
    with (
        running_postgres(settings={"max_connections": "7"}) as server,
        server.connect("postgres") as connection,
        closing(connection.cursor()) as cursor,
    ):
        cursor.execute("SELECT current_setting('max_connections')")
        assert cursor.fetchall() == [("7",)]
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
