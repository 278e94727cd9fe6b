"""How the tests of the source mysql connect and read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pyarrow as pa

from platform_core.plugins.interfaces import ReadRequest, Secret
from platform_core.sources.mysql import MysqlSource
from tests.services.mariadb import MariaDBServer

Run = Callable[..., None]


def connected(server: MariaDBServer, database: str, **options: Any) -> MysqlSource:
    """A source over one database; further options go before the server's own."""
    given = {
        "host": server.host,
        "port": server.port,
        "database": database,
        "user": server.user,
        "password": {"secret": "crm/reader"},
        **options,
    }
    return MysqlSource(MysqlSource.Options(**given), secret=lambda name: Secret(name, server.password.encode()))


def asked(
    object_: str = "t", *, types: dict[str, str] | None = None, zero_dates: str = "refuse", **more: Any
) -> ReadRequest:
    """A request for one table."""
    return ReadRequest(
        object=object_, options=MysqlSource.ObjectOptions(columns=types or {}, zero_dates=zero_dates), **more
    )


def read(source: MysqlSource, object_: str = "t", **request: Any) -> pa.Table:
    """All rows; the source is closed after it."""
    with closing(source):
        return source.read(asked(object_, **request)).read_all()


def values(source: MysqlSource, **request: Any) -> list[Any]:
    """All values of the column ``v`` of the table ``t``."""
    found: list[Any] = read(source, **request).column("v").to_pylist()
    return found
