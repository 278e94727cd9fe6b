"""Opens read-only sessions of PostgreSQL that never wait for ever, and says what went wrong without row values."""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field
from sqlglot import exp

from platform_core.errors import PluginError, SourceError
from platform_core.plugins.interfaces import Secret
from platform_core.sources.postgres_idle import LIFE_SECONDS, Opened, idle_connections
from platform_core.sources.time_limit import limited
from platform_core.specs.base import Model, SecretRef

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection as DriverConnection
    from adbc_driver_manager.dbapi import Cursor as DriverCursor

_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    # What a filter or query holds is understood here as the standard has it.
    "standard_conforming_strings": "on",
}
_STATE = re.compile(r"SQLSTATE: ([0-9A-Z]{5})")
_SNAPSHOT = re.compile(r"[0-9A-F-]+")
_SILENCE_MS = 120_000
_MARKS = itertools.count()
_DISTINCT_MARKS = 60_000


class PostgresOptions(Model):
    """How a PostgreSQL database is reached."""

    host: str
    port: int = Field(default=5432, ge=1, le=65535)
    database: str
    user: str
    password: SecretRef | None = Field(default=None, description="Written as {secret: <workstream>/<name>}.")
    default_schema: str = Field(default="public", alias="schema", description="Schema of objects written without one.")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: str | None = Field(default=None, description="File of the certificates that sslmode verify-* trusts.")
    connect_timeout: int = Field(default=10, ge=2, description="Seconds to wait for the connection.")
    read_timeout: int = Field(
        default=900,
        ge=1,
        description="Seconds without a row from the server that end a read; a view or query that computes for longer "
        "before its first row needs more.",
    )
    lock_timeout: int = Field(
        default=60, ge=0, description="Seconds to wait for a table that is being altered; 0: as the server is set."
    )
    statement_timeout: int = Field(
        default=0, ge=0, description="Seconds that one read may take at the server; 0: as the server is set."
    )


@dataclass
class Session:
    """One connection in one read-only transaction; used by one thread at a time, but for :meth:`interrupt`.

    Args:
        reading: rows of a statement are still on their way.
    """

    connection: DriverConnection
    cursor: DriverCursor
    where: str
    read_timeout: float
    mark: int
    reading: bool = False
    _late: threading.Event = field(default_factory=threading.Event)

    @property
    def is_late(self) -> bool:
        """A call took too long, and its connection was cut."""
        return self._late.is_set()

    def fetch(self, statement: str, *parameters: str) -> list[tuple[Any, ...]]:
        """All rows of a statement that gives few."""
        with self.asking():
            self.cursor.execute(statement, parameters or None)
            # The driver's own way to rows asks for each value by itself.
            return [*zip(*(column.to_pylist() for column in self.cursor.fetch_arrow_table().columns), strict=True)]

    def set(self, name: str, value: str) -> None:
        """Give a setting a value until the end of the transaction."""
        self.fetch("SELECT set_config($1, $2, true)", name, value)

    @contextmanager
    def asking(self, *, statement_is_ours: bool = True) -> Iterator[None]:
        """A call of the driver: it ends with SourceError when it fails, or when nothing comes for too long.

        Args:
            statement_is_ours: False where a person's filter or query is only being understood, not run: then the
                server's own words about names and syntax pass.
        """
        import adbc_driver_manager

        with limited(self.read_timeout, self._give_up):
            try:
                yield
            except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
                raise self._failed(error, statement_is_ours=statement_is_ours) from None

    def interrupt(self) -> None:
        """Make a call that waits for the server in another thread return with an error."""
        if not _cut(self.mark):
            import adbc_driver_manager

            with suppress(adbc_driver_manager.Error):
                self.connection.adbc_cancel()

    def _give_up(self) -> None:
        self._late.set()
        self.interrupt()

    def _failed(self, error: Exception, *, statement_is_ours: bool) -> SourceError:
        found = getattr(error, "sqlstate", None) or "".join(_STATE.findall(str(error))[:1])
        code = f"{type(error).__name__}{', SQLSTATE ' + found if found else ''}"
        if self._late.is_set():
            return SourceError(
                f"{self.where}: the read failed: nothing came from the server for {self.read_timeout:g} s\n"
                "  see whether the server hangs; a view or query that computes for so long before its first row needs "
                "a larger read_timeout of the connection"
            )
        if not statement_is_ours and found.startswith("42") and found != "42501":
            said = str(error).partition("ERROR:")[2].strip().splitlines()
            return SourceError(
                f"{self.where}: the server refuses the filter or query: {said[0][:300] if said else 'no reason given'} "
                f"({code})\n  correct it; names are those of the source, as in any of its clients"
            )
        meaning = _MEANINGS.get(found) or _MEANINGS.get(found[:2]) or _streaming_fault(str(error))
        return SourceError(
            f"{self.where}: the read failed: {meaning} ({code})\n  the server's log has the full message"
        )


@contextmanager
def session(
    options: PostgresOptions, *, secret: Callable[[str], Secret], where: str, snapshot: str | None = None
) -> Iterator[Session]:
    """A session in a read-only transaction that sees one moment.

    Args:
        snapshot: the moment that :func:`exported` named; None: now.

    Raises:
        SourceError: the server cannot be reached, or refuses.
        PluginError: the driver is missing.
    """
    opened = _connected(options, secret=secret, where=where)
    try:
        # The cursor is closed before its connection: the other way round the driver refuses.
        with closing(opened.connection.cursor()) as cursor:
            asked = Session(opened.connection, cursor, where, options.read_timeout, opened.mark)
            _begin(asked, options, snapshot)
            yield asked
    except BaseException:
        opened.close()
        raise
    if asked.reading or asked.is_late or not _ended(asked) or time.monotonic() - opened.born > LIFE_SECONDS:
        opened.close()
    else:
        idle_connections().give(opened)


def _ended(asked: Session) -> bool:
    """Whether the transaction could be ended: a connection that broke after the last row did no harm."""
    try:
        with asked.asking():
            asked.connection.rollback()
    except SourceError:
        return False
    return True


def _connected(options: PostgresOptions, *, secret: Callable[[str], Secret], where: str) -> Opened:
    """A connection that was kept, or else a new one."""
    dbapi = _driver()
    password = secret(options.password.secret).reveal().decode() if options.password else None
    key = idle_connections().key_of(_connection_text(options, password, 0))
    if (kept := idle_connections().take(key, works=lambda opened: _begun_anew(opened, options))) is not None:
        return kept
    mark = _SILENCE_MS + next(_MARKS) % _DISTINCT_MARKS
    late = threading.Event()

    def give_up() -> None:
        late.set()
        _cut(mark)

    try:
        # The driver asks for the server's types while it connects: the library's own limit does not cover that.
        with limited(options.connect_timeout + 1, give_up):
            connection = dbapi.connect(_connection_text(options, password, mark))
    except (dbapi.Error, OSError) as error:
        told = str(error).partition("Failed to connect:")[2].split("\n")[0].strip()
        told = told or f"the connection broke while it was made ({type(error).__name__})"
        if late.is_set():
            told = f"no answer within {options.connect_timeout} s"
        if password:
            told = told.replace(password, "***")
        raise SourceError(
            f"{where}: cannot connect to database '{options.database}' at {options.host}:{options.port} "
            f"as '{options.user}'\n  the server or driver says: {told}\n"
            "  check host, port, database, user, password and sslmode of the connection"
        ) from None
    return Opened(key, connection, mark, time.monotonic())


def _begun_anew(opened: Opened, options: PostgresOptions) -> bool:
    """Whether a connection still works; the time of its transaction is then that of now."""
    dbapi = _driver()
    try:
        with limited(options.connect_timeout, lambda: _give_up(opened)):
            opened.connection.rollback()
    except (dbapi.Error, OSError):
        return False
    return True


def _give_up(opened: Opened) -> None:
    _cut(opened.mark)


def _begin(session: Session, options: PostgresOptions, snapshot: str | None) -> None:
    with session.asking():
        session.cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    if snapshot is not None:
        with session.asking():
            session.cursor.execute(f"SET TRANSACTION SNAPSHOT {exp.Literal.string(snapshot).sql(dialect='postgres')}")
    settings = dict(_SESSION)
    if options.lock_timeout:
        settings["lock_timeout"] = f"{options.lock_timeout}s"
    if options.statement_timeout:
        settings["statement_timeout"] = f"{options.statement_timeout}s"
    calls = [f"set_config(${2 * number + 1}, ${2 * number + 2}, true)" for number in range(len(settings))]
    parameters = [text for pair in settings.items() for text in pair]
    if options.default_schema != "public":
        calls.append(f"set_config('search_path', quote_ident(${len(parameters) + 1}) || ', public', true)")
        parameters.append(options.default_schema)
    # One question: each costs a round trip.
    session.fetch(f"SELECT {', '.join(calls)}", *parameters)


def exported(first: Session) -> str:
    """The name under which other sessions can see what this one sees, as long as it lives."""
    ((name,),) = first.fetch("SELECT pg_export_snapshot()")
    if not _SNAPSHOT.fullmatch(name):
        raise SourceError(f"{first.where}: the server gave a snapshot that cannot be shared; set parallel: 1")
    return str(name)


def _cut(mark: int) -> bool:
    """Break the connections that were opened with this mark, so that a call that waits on one returns.

    libpq has no time limit for reading, its own way to cancel waits for the same silent server, and the driver hides
    the socket. So a session is found among this process's sockets by an option that it alone has this value of.
    """
    found = False
    folder = Path("/proc/self/fd")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is None or not folder.is_dir():
        return False
    for number in [int(path.name) for path in folder.iterdir()]:
        with suppress(OSError), _copied(number) as copy:
            internet = copy.family in (socket.AF_INET, socket.AF_INET6)
            if internet and copy.getsockopt(socket.IPPROTO_TCP, option) == mark:
                copy.shutdown(socket.SHUT_RDWR)
                found = True
    return found


@contextmanager
def _copied(number: int) -> Iterator[socket.socket]:
    """A copy of an open socket, so that no number is touched that is meanwhile another file's."""
    copied = os.dup(number)
    try:
        # Raises for what is no socket, and leaves the number open then.
        copy = socket.socket(fileno=copied)
    except OSError:
        os.close(copied)
        raise
    with copy:
        yield copy


def _driver() -> ModuleType:
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise PluginError(
            f"source 'postgres' needs the package adbc-driver-postgresql, which cannot be imported ({error.name})\n"
            "  install it: pip install 'edp-platform-core[postgres]'"
        ) from None
    module: ModuleType = dbapi
    return module


def _connection_text(options: PostgresOptions, password: str | None, mark: int) -> str:
    """libpq's keyword form; it exists in memory only."""
    given = {
        "host": options.host,
        "port": str(options.port),
        "dbname": options.database,
        "user": options.user,
        "password": password,
        "sslmode": options.sslmode,
        "sslrootcert": options.sslrootcert,
        "connect_timeout": str(options.connect_timeout),
        "application_name": "edp",
        # A host that has vanished is noticed after two minutes; one that is there and silent, by read_timeout.
        "keepalives_idle": "60",
        "keepalives_interval": "10",
        "keepalives_count": "6",
        "tcp_user_timeout": str(mark),
    }
    return " ".join(
        "{}='{}'".format(name, value.replace("\\", "\\\\").replace("'", "\\'"))
        for name, value in given.items()
        if value is not None
    )


def _streaming_fault(text: str) -> str:
    """What went wrong while rows came in: then the driver passes on the server's words without SQLSTATE.

    Of those words only ones pass that are the same for every row.
    """
    if "ERROR:" not in text:
        return "the connection broke, or the server went away"
    told = next((words for words in _HARMLESS if words in text), None)
    return f"the server says: {told}" if told else "the server met a row that it cannot give"


_HARMLESS = (
    "canceling statement due to conflict with recovery",
    "canceling statement due to statement timeout",
    "canceling statement due to user request",
    "cannot convert NaN",
    "cannot convert infinity",
    "division by zero",
    "invalid input syntax",
    "out of range",
    "permission denied",
    "read-only transaction",
    "terminating connection",
)
_MEANINGS = {
    "42501": "the user has no SELECT privilege on it; grant it",
    "55P03": "the table is being altered and did not come free in time (lock_timeout)",
    "57014": "the query was cancelled, or took longer than statement_timeout",
    "57P01": "the server was shut down or the connection ended by an administrator",
    "08": "the connection broke",
    "0A": "a value (such as NaN) cannot be a number of that type",
    "22": "a value does not fit its type, or a view could not compute it",
    "25006": "something that writes was refused: the read is read-only",
    "40": "the server ended the transaction; try again",
    "42": "the table has changed while it was read, or the view is broken",
    "53": "the server lacks memory, disk or connections",
    "57": "the server stopped the query",
    "58": "the server has a disk or system error",
    "XX": "the server has an internal error",
}
