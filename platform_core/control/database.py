"""Opens the control database and runs transactions in it, with patience where it is busy or away."""

from __future__ import annotations

import datetime as dt
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from platform_core.control.database_url import DatabaseUrl, parse_url
from platform_core.control.migrations import bring_up_to_date
from platform_core.control.tables import SCHEMA
from platform_core.errors import ControlError, PluginError
from platform_core.plugins.interfaces import SecretStore
from platform_core.specs.environment import ControlSpec

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for which a transaction is tried again while the database is busy or away."""

_BUSY_SECONDS = 1.0
_CONNECT_SECONDS = 5
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 1.0
_POSTGRES_LIMITS = {
    # A client that is stopped in the middle of a transaction must not keep everybody else waiting.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "5s",
    "statement_timeout": "15s",
}
_PASSING_SQLITE = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"})
# Connection trouble, restarts, too many clients, locks, deadlocks, statements that took too long.
_PASSING_POSTGRES = ("08", "53300", "57P", "57014", "55P03", "40001", "40P01", "25P03")
_REFUSED_FOR_GOOD = ("authentication failed", "no pg_hba.conf entry", "does not exist", "no password supplied")


class Database:
    """One control database; safe to use from every thread of a process, and after a fork.

    Nothing is connected before the first transaction, which also brings the tables up to date.
    """

    def __init__(self, url: DatabaseUrl, *, password: Callable[[], str] | None, migrations: Path | None = None) -> None:
        """Keep what is needed to connect.

        Args:
            url: the database.
            password: gives the password; asked whenever a connection is made, and kept nowhere.
            migrations: folder of the changes that make its tables; None: those of this version of the code.
        """
        self.url = url
        self._migrations = migrations
        self._password = password
        self._engine: sa.Engine | None = None
        self._begin_in_this_process()

    def _begin_in_this_process(self) -> None:
        self._process = os.getpid()
        if self._engine is not None:
            # Connections of the process that this one was forked from are not ours to use, nor to close.
            self._engine.dispose(close=False)
            self._engine = None
        self._ready = False
        self._preparing = threading.Lock()
        self._opening = threading.Lock()
        # SQLite has one writer: threads queue here instead of asking it over and over.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self.is_sqlite else nullcontext()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this machine."""
        return self.url.file is not None

    def prepare(self, *, patience: float = PATIENCE) -> list[str]:
        """Apply the migrations that are missing.

        Returns:
            Their names.

        Raises:
            MigrationError: one was edited, is missing or out of order, or the database is newer than this code.
            ControlError: the database cannot be reached.
        """
        if self._process != os.getpid():
            self._begin_in_this_process()
        with self._preparing:
            if self._ready:
                return []
            applied = self._patiently(lambda: self._once(self._bring_up_to_date, durable=True), patience=patience)
            self._ready = True
            return applied

    def transact(self, work: Callable[[sa.Connection], T], *, patience: float = PATIENCE, durable: bool = False) -> T:
        """Run one transaction; it is committed when ``work`` returns.

        ``work`` may run more than once, the last time after a commit whose acknowledgement was lost.

        Args:
            patience: seconds for which it is tried again while the database is busy or away.
            durable: wait until the disk has it, also in SQLite; for what a person decided.

        Raises:
            ControlError: the database refused, or was busy or away for longer; it may have been committed
                only where the connection broke while it was being committed.
            MigrationError: the tables are not those of this code.
            SecretError: the password is missing.
        """
        if not self._ready or self._process != os.getpid():
            self.prepare(patience=patience)
        return self._patiently(lambda: self._once(work, durable=durable), patience=patience)

    def look(self, work: Callable[[sa.Connection], T], *, patience: float = PATIENCE) -> T:
        """Run one transaction on the database as it is: nothing is brought up to date, and no file is made.

        Raises:
            ControlError: there is no file, or the database refused, or was busy or away for longer.
            SecretError: the password is missing.
        """
        if self.url.file is not None and not self.url.file.is_file():
            raise ControlError(f"control database: there is no file\n  looked at: {self.url}\n  make it: edp setup")
        if self._process != os.getpid():
            self._begin_in_this_process()
        return self._patiently(lambda: self._once(work, durable=False), patience=patience)

    def clock(self, connection: sa.Connection) -> dt.datetime:
        """The time, UTC: of the server where there is one, so that all machines share a clock."""
        if self.is_sqlite:
            return dt.datetime.now(dt.UTC)
        now: dt.datetime = connection.execute(_SERVER_CLOCK).scalar_one()
        return now.astimezone(dt.UTC)

    def close(self) -> None:
        """Close the connections; the next transaction opens a new one."""
        with self._opening:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _bring_up_to_date(self, connection: sa.Connection) -> list[str]:
        return bring_up_to_date(connection, shown=str(self.url), now=self.clock(connection), folder=self._migrations)

    def _patiently(self, attempt: Callable[[], T], *, patience: float) -> T:
        deadline = time.monotonic() + patience
        delay = _FIRST_DELAY
        while True:
            # Raised outside of the block: a driver's error remembers the password, and must not hang on to ours.
            try:
                return attempt()
            except (sa.exc.SQLAlchemyError, OSError) as error:
                passes, told = _passes(error), self._told(error, patience=patience)
            left = deadline - time.monotonic()
            if left <= 0 or not passes:
                # Tables that are gone, or another database in their place, are looked at anew next time.
                self._ready = self._ready and passes
                raise told
            time.sleep(min(left, delay * random.uniform(0.5, 1.0)))  # noqa: S311 - it only spreads attempts
            delay = min(2 * delay, _LONGEST_DELAY)

    def _once(self, work: Callable[[sa.Connection], T], *, durable: bool) -> T:
        with self._turn:
            engine = self._opened()
            pool = engine.pool
            try:
                with engine.connect() as connection, self._transaction(connection, durable=durable):
                    return work(connection)
            finally:
                if engine is not self._engine:
                    # Closed by another thread meanwhile: what came back to the pool since then is closed, too.
                    pool.dispose()

    @contextmanager
    def _transaction(self, connection: sa.Connection, *, durable: bool) -> Iterator[None]:
        if not self.is_sqlite:
            with connection.begin():
                yield
            return
        driver = connection.connection.cursor()
        if durable:
            driver.execute("PRAGMA synchronous = FULL")
        try:
            with connection.begin():
                # A transaction that reads first and writes then could find that somebody else has written meanwhile.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield
        finally:
            # One that was interrupted in the middle of a statement is closed already.
            if not connection.invalidated:
                # A commit that failed may leave its transaction open.
                connection.connection.rollback()
                if durable:
                    driver.execute("PRAGMA synchronous = NORMAL")
                driver.close()

    def _opened(self) -> sa.Engine:
        with self._opening:
            if self._engine is None:
                self._engine = self._sqlite() if self.is_sqlite else self._postgres()
                weakref.finalize(self, _dispose, self._engine, os.getpid())
            return self._engine

    def _sqlite(self) -> sa.Engine:
        assert self.url.file is not None  # noqa: S101 - is_sqlite says so
        self.url.file.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(self.url.file)),
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None, "check_same_thread": False},
            execution_options={"schema_translate_map": {SCHEMA: None}},
            hide_parameters=True,
        )
        event.listen(engine, "connect", _set_up_sqlite)
        return engine

    def _postgres(self) -> sa.Engine:
        try:
            import psycopg  # noqa: F401 - asked for its presence
        except ImportError:
            raise PluginError(
                "the control database on PostgreSQL needs psycopg, which is not installed\n"
                "  install it: pip install 'edp-platform-core[control]'"
            ) from None
        url = self.url
        limits = " ".join(f"-c {name}={value}" for name, value in _POSTGRES_LIMITS.items())
        engine = sa.create_engine(
            sa.URL.create(
                "postgresql+psycopg",
                username=url.user,
                host=url.host,
                port=url.port,
                database=url.database,
                query=dict(url.options),
            ),
            poolclass=QueuePool,
            pool_size=4,
            max_overflow=8,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                "application_name": "edp",
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 15_000,
                "options": limits,
            },
            isolation_level="READ COMMITTED",
            hide_parameters=True,
        )
        if self._password is not None:
            event.listen(engine, "do_connect", _give_password(self._password))
        return engine

    def _told(self, error: BaseException, *, patience: float) -> ControlError:
        """What may be said of a driver's error: its kind, never its text."""
        code = _code(error)
        label = f"{type(getattr(error, 'orig', None) or error).__name__}{f' [{code}]' if code else ''}"
        what = _reason(error, code, patience=patience)
        return ControlError(f"control database: {what} ({label})\n  looked at: {self.url}\n  {_advice(self.is_sqlite)}")


def open_database(control: ControlSpec, *, state: Path, secrets: SecretStore) -> Database:
    """The control database of an environment, not yet connected.

    Args:
        state: folder that a relative SQLite file counts from.
        secrets: gives the password whenever a connection is made.

    Raises:
        ControlError: the URL means no database that can be used, or holds a password.
    """
    try:
        url = parse_url(control.url, state=state)
    except ValueError as error:
        raise ControlError(f"control database: the environment's control.url {error}") from None
    reference = control.password
    if reference is None:
        return Database(url, password=None)
    if url.file is not None:
        raise ControlError("control database: SQLite takes no password\n  remove control.password of the environment")
    # Connections are few, and a remembered password may be an old one.
    return Database(url, password=lambda: secrets.fresh(reference.secret).reveal().decode())


_SERVER_CLOCK = sa.select(sa.func.clock_timestamp())


def _set_up_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise OSError(f"the file system keeps no write-ahead log (journal mode {mode})")
        # A crash of processes loses nothing; a power cut may lose the last transactions, but with them every process
        # that held a lease, and the ids of batches come back from bronze. It is twice as fast as FULL.
        cursor.execute("PRAGMA synchronous = NORMAL")
    finally:
        cursor.close()


def _dispose(engine: sa.Engine, process: int) -> None:
    if os.getpid() == process:
        engine.dispose()


def _give_password(password: Callable[[], str]) -> Callable[..., None]:
    def give(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
        parameters["password"] = password()

    return give


def _code(error: BaseException) -> str:
    driver = getattr(error, "orig", None) or error
    return str(getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None) or "")


def _passes(error: BaseException) -> bool:
    """Whether waiting may help."""
    if isinstance(error, sa.exc.TimeoutError):
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    code = _code(error)
    if code.startswith("SQLITE_"):
        return code.startswith(tuple(_PASSING_SQLITE))
    if code:
        return code.startswith(_PASSING_POSTGRES)
    refused = any(words in str(error.orig) for words in _REFUSED_FOR_GOOD)
    return not refused and (error.connection_invalidated or isinstance(error, sa.exc.OperationalError))


def _reason(error: BaseException, code: str, *, patience: float) -> str:
    if code.startswith(tuple(_PASSING_SQLITE)):
        return f"locked by another process for longer than {patience:g} seconds"
    if code in ("42P01", "3F000") or "no such table" in str(error):
        return "its tables are gone"
    if isinstance(error, OSError):
        return f"its file cannot be used: {error.strerror or error}"
    if code.startswith("SQLITE_"):
        return "its file cannot be used"
    if any(words in str(getattr(error, "orig", "")) for words in _REFUSED_FOR_GOOD):
        return "it refuses this user, password or database name"
    if _passes(error):
        return f"cannot be reached, or was too busy, for {patience:g} seconds"
    return "it refused a statement"


def _advice(is_sqlite: bool) -> str:
    if is_sqlite:
        return "look for a process that holds the file, a full disk, or a folder that cannot be written"
    return "look at the server, its log, and control.url and control.password of the environment"
