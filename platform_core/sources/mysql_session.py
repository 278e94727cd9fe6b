"""Connects to MySQL and MariaDB: read-only transactions with a consistent snapshot, and errors without row values."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Literal, NoReturn

from pydantic import Field

from platform_core.errors import PluginError, SourceError, redacted
from platform_core.plugins.interfaces import Secret
from platform_core.sources.mysql_rows import BrokenStreamError
from platform_core.specs.base import Model, SecretRef

_BUSY_SECONDS = 3600
_ATTEMPTS = 5
_SQL_MODE = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO"


class MysqlOptions(Model):
    """How a MySQL or MariaDB server is reached."""

    host: str
    port: int = Field(default=3306, ge=1, le=65535)
    database: str = Field(description="Database of objects written without one.")
    user: str
    password: SecretRef | None = Field(default=None, description="Written as {secret: <workstream>/<name>}.")
    ssl_mode: Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"] = Field(
        default="preferred",
        description="preferred: TLS if the server has it; required: nothing but TLS; verify_ca: and a certificate "
        "that is trusted; verify_identity: and that was issued to this host.",
    )
    ssl_ca: str | None = Field(
        default=None, description="File of the certificates that verify_* trusts; default: the system's."
    )
    connect_timeout: int = Field(default=10, ge=1, description="Seconds to wait for the connection.")
    read_timeout: int = Field(default=900, ge=1, description="Seconds without a byte from the server that end a read.")


class _NoClearText:
    """Stands where the driver would send the password as it is to any server that asks for it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def authenticate(self, packet: Any) -> NoReturn:
        raise self._connection.OperationalError(2059, "a password in clear is sent by ssl_mode required or verify_*")


@contextmanager
def session(options: MysqlOptions, *, secret: Callable[[str], Secret], where: str) -> Iterator[Any]:
    """A connection of pymysql, set so that what a SELECT gives does not depend on the server's settings.

    Raises:
        SourceError: the server cannot be reached, or refuses.
        PluginError: a package is missing.
    """
    pymysql = _driver()
    try:
        connection = pymysql.connect(
            host=options.host,
            port=options.port,
            database=options.database,
            user=options.user,
            # As bytes: of a text the driver would make Latin-1.
            password=secret(options.password.secret).reveal() if options.password else b"",
            charset="utf8mb4",
            sql_mode=_SQL_MODE,
            # The server is to wait for a reader that is busy with the batch before.
            init_command=f"SET SESSION time_zone = '+00:00', SESSION net_write_timeout = {_BUSY_SECONDS}",
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            write_timeout=options.read_timeout,
            program_name="edp",
            autocommit=True,
            **_tls(options, where),
        )
    except pymysql.err.MySQLError as error:
        raise _not_connected(error, options, where) from None
    except RuntimeError:
        raise PluginError(
            f"{where}: the server's way to log in without TLS needs the package cryptography, which is not installed\n"
            "  install it, or set ssl_mode: required"
        ) from None
    try:
        yield connection
    finally:
        if connection.open:
            connection.close()


def interrupt(connection: Any) -> None:
    """Make a call that waits for the server in another thread return with an error."""
    if connection._sock is not None:
        with suppress(OSError):
            connection._sock.shutdown(socket.SHUT_RDWR)


def fetch(connection: Any, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows of a statement that gives few."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return list(cursor.fetchall())


def in_one_snapshot(connections: Sequence[Any]) -> Sequence[Any]:
    """Begin a read-only transaction with a consistent snapshot on each; gives those that see the very same moment.

    These are all of them, or the first alone. No server hands a snapshot on from one session to another. But MariaDB
    says at which place of the binary log a snapshot was taken, and where every change goes through that log, two
    snapshots of one place are the same; taken one after the other they soon are.
    """
    comparable = len(connections) > 1
    for _ in range(_ATTEMPTS):
        places = {_begin(connection) for connection in connections}
        comparable = comparable and None not in places and _logs_every_change(connections[0])
        if not comparable:
            break
        if len(places) == 1:
            return connections
    return connections[:1]


def _begin(connection: Any) -> tuple[str, ...] | None:
    """Begin the transaction; gives the place of its snapshot in the binary log, if the server knows it."""
    connection.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    place = tuple(value for _, value in sorted(fetch(connection, "SHOW STATUS LIKE 'binlog\\_snapshot\\_%'")))
    return place if place and all(place) else None


def _logs_every_change(connection: Any) -> bool:
    """Whether no database is kept out of the binary log, and what a replica takes over goes into it as well."""
    from pymysql.err import MySQLError

    try:
        status = fetch(connection, "SHOW MASTER STATUS")
        settings = fetch(connection, "SELECT @@GLOBAL.log_slave_updates")
        running = dict(fetch(connection, "SHOW GLOBAL STATUS LIKE 'Slaves_running'"))
    except MySQLError:
        # Who may not see it (BINLOG MONITOR) cannot rely on it.
        return False
    filters = [kept for row in status for kept in row[2:4]]
    return bool(status) and not any(filters) and (settings[0][0] == 1 or running.get("Slaves_running") == "0")


@contextmanager
def errors(where: str, *, read_timeout: int) -> Iterator[None]:
    """The server's errors by class and number only: their texts hold the statement, and may hold row values."""
    from pymysql.err import MySQLError

    try:
        yield
    except MySQLError as error:
        raise _failed(where, _meaning(error), error) from None
    except TimeoutError as error:
        raise _failed(where, f"nothing came from the server for {read_timeout} s (read_timeout)", error) from None
    except (BrokenStreamError, OSError) as error:
        raise _failed(where, _LOST, error) from None


def number(error: Exception) -> int:
    """The server's or driver's number of an error; 0: it has none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def _failed(where: str, meaning: str, error: Exception) -> SourceError:
    found = f" {number(error)}" if number(error) else ""
    return SourceError(
        f"{where}: the read failed: {meaning} ({type(error).__name__}{found})\n"
        "  the server's log may say more; the text of the error is withheld, for it may hold row values"
    )


def _driver() -> ModuleType:
    try:
        import pymysql
    except ImportError as error:
        raise PluginError(
            f"source 'mysql' needs the package pymysql, which cannot be imported ({error.name})\n"
            "  install it: pip install 'edp-platform-core[mysql]'"
        ) from None
    module: ModuleType = pymysql
    return module


def _tls(options: MysqlOptions, where: str) -> dict[str, Any]:
    if options.ssl_mode in ("disabled", "preferred"):
        return {
            "ssl_disabled": options.ssl_mode == "disabled",
            "auth_plugin_map": {"mysql_clear_password": _NoClearText},
        }
    try:
        context = ssl.create_default_context(cafile=options.ssl_ca)
    except (OSError, ValueError) as error:
        raise SourceError(f"{where}: ssl_ca {options.ssl_ca} cannot be used: {redacted(error)}") from None
    context.check_hostname = options.ssl_mode == "verify_identity"
    if options.ssl_mode == "required":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def _not_connected(error: Exception, options: MysqlOptions, where: str) -> SourceError:
    original = getattr(error, "original_exception", None)
    told = _meaning(error) if original is None else redacted(original)
    return SourceError(
        f"{where}: cannot connect to database '{options.database}' at {options.host}:{options.port} "
        f"as '{options.user}': {told} ({type(error).__name__} {number(error)})\n"
        "  check host, port, database, user, password and ssl_mode of the connection"
    )


def _meaning(error: Exception) -> str:
    return _MEANINGS.get(number(error), "the server refused")


_LOST = "the connection broke, or the server went away"
_MEANINGS = {
    1040: "the server has too many connections",
    1044: "the user has no privilege on the database",
    1045: "the server refuses user or password",
    1049: "there is no such database",
    1053: "the server is being shut down",
    1054: "a column is unknown",
    1060: "two columns of the query have one name; give each its own",
    1064: "the statement is not understood; check query and filter",
    1129: "the server blocks this host after too many errors",
    1130: "this host may not connect to the server",
    1142: "the user has no SELECT privilege on it; grant it",
    1143: "the user has no SELECT privilege on a column; grant it, or name others with 'select'",
    1146: "a table does not exist",
    1205: "a lock was not given in time",
    1213: "the server ended the transaction; try again",
    1226: "the user has used up what the server allows",
    1242: "a subquery of a view or query gave more than one row",
    1267: "the query compares texts of two collations",
    1317: "the query was cancelled",
    1356: "the view is broken, or its owner lacks privileges",
    1370: "the user may not call a function that a view or query calls",
    1412: "the table was altered while it was read; try again",
    1644: "a function of a view or query raised an error",
    1690: "a number of a view or query is out of range",
    1698: "the server refuses user or password",
    1792: "something that writes was refused: the read is read-only",
    1927: "an administrator ended the connection",
    1969: "the server's max_statement_time has passed",
    2003: _LOST,
    2006: _LOST,
    2013: _LOST,
    2026: "the server does not speak TLS, which ssl_mode demands",
    2059: "the server wants a way to log in that is not allowed here; see ssl_mode",
    3024: "the server's max_execution_time has passed",
}
"""What error numbers of server (1000 to 1999, 3000 and up) and driver (2000 to 2999) stand for."""
