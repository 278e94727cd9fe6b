"""The server that the tests of the source mysql lean on."""

from __future__ import annotations

import os

import pymysql
import pytest

from tests.services.mariadb import MariaDBServer, running_mariadb

pytestmark = pytest.mark.services


def test_each_database_is_a_fresh_one(mariadb_server: MariaDBServer) -> None:
    first, second = mariadb_server.create_database(), mariadb_server.create_database()
    mariadb_server.execute("CREATE TABLE t (v int)", database=first)
    mariadb_server.execute("CREATE TABLE t (v int)", database=second)
    assert first != second


def test_it_wants_its_password_and_does_not_show_it(mariadb_server: MariaDBServer) -> None:
    assert mariadb_server.password not in repr(mariadb_server)
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        pymysql.connect(host=mariadb_server.host, port=mariadb_server.port, user="tester", password="wrong")


def test_it_ends_with_its_context() -> None:
    with (
        running_mariadb(settings={"max-connections": "17"}) as server,
        server.connect() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT @@max_connections")
        assert cursor.fetchall() == ((17,),)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
