"""The lock that applies hold: one at a time, and who waits is told for whom."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import sqlalchemy as sa

from platform_core.control.database import Database
from platform_core.control.holders import Holder, this_process
from platform_core.control.store.tables import locks, state
from platform_core.errors import PlanError, PlatformError

_APPLY = "apply"
_HELD = sa.select(locks.c.id).where(locks.c.name == _APPLY)
_LEAVING_PATIENCE = 2.0


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The lock as somebody holds it.

    Args:
        id: what ``edp unlock`` wants to hear.
        purpose: what it is held for.
        since: UTC.
    """

    id: str
    purpose: str
    author: str
    since: dt.datetime
    holder: Holder

    def __str__(self) -> str:
        return f"{self.author}, {self.holder}, since {self.since:%Y-%m-%d %H:%M:%S} UTC, for {self.purpose}"


class HeldLock:
    """The lock, in our hands."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.given_back = False

    def confirm(self, connection: sa.Connection) -> None:
        """Make sure, within a transaction, that the lock is still ours.

        Raises:
            PlanError: somebody took it away.
        """
        if connection.execute(_HELD.with_for_update(read=True)).scalar() != self.id:
            raise PlanError(
                "the lock on the control tables was taken away while this was at work; nothing was applied\n"
                "  somebody ran edp unlock; talk to each other, then plan again"
            )

    def give_back(self, connection: sa.Connection) -> None:
        """Give it back within the transaction that ends the work."""
        _remove(connection, self.id)


@contextmanager
def locked(database: Database, *, purpose: str, author: str) -> Iterator[HeldLock]:
    """Hold the lock for the block, over as many transactions as it takes.

    The lock of a process that ended on this machine without giving it back is taken over.

    Raises:
        PlanError: somebody else holds it.
    """
    lock = HeldLock(secrets.token_hex(8))
    asking = _Asking(database, lock, purpose=purpose, author=author)
    other = database.transact(asking.take, durable=True)
    if other is not None:
        raise PlanError(
            f"the control tables are locked by {other}\n  lock id: {other.id}\n"
            f"  wait until it has ended; if it surely never will: edp unlock {other.id}, with the same --env"
        )
    try:
        yield lock
    except BaseException:
        # What went wrong says more than that the lock stays, which is taken over once this process has ended.
        with suppress(PlatformError):
            database.transact(lock.give_back, patience=_LEAVING_PATIENCE)
        raise
    if not lock.given_back:
        database.transact(lock.give_back)


class _Asking:
    def __init__(self, database: Database, lock: HeldLock, *, purpose: str, author: str) -> None:
        self.database = database
        self.lock = lock
        self.purpose = purpose
        self.author = author

    def take(self, connection: sa.Connection) -> Lock | None:
        """Take it if it is free; else whose it is."""
        found = current_lock(connection)
        if found is not None and found.id != self.lock.id and not found.holder.is_gone():
            return found
        # Whoever else found it free waits here, and then sees who was first.
        connection.execute(sa.select(state.c.id).with_for_update())
        found = current_lock(connection)
        if found is not None:
            if found.id == self.lock.id:
                # Taken before, and only the acknowledgement was lost.
                return None
            if not found.holder.is_gone():
                return found
            _remove(connection, found.id)
        self._write(connection)
        return None

    def _write(self, connection: sa.Connection) -> None:
        holder = this_process()
        connection.execute(
            locks.insert().values(
                name=_APPLY,
                id=self.lock.id,
                purpose=self.purpose,
                author=self.author,
                since=self.database.clock(connection),
                host=holder.host,
                boot=holder.boot,
                pid=holder.pid,
                process_started=holder.started,
            )
        )


def current_lock(connection: sa.Connection) -> Lock | None:
    """Who holds the lock; None: nobody."""
    row = connection.execute(sa.select(locks).where(locks.c.name == _APPLY)).one_or_none()
    if row is None:
        return None
    holder = Holder(host=row.host, boot=row.boot, pid=row.pid, started=row.process_started)
    return Lock(id=row.id, purpose=row.purpose, author=row.author, since=row.since, holder=holder)


def unlock(database: Database, id_: str) -> Lock:
    """Take the lock away from whoever holds it.

    Returns:
        The lock as it was held.

    Raises:
        PlanError: the lock has another id, or nobody holds it.
    """

    taken: list[Lock] = []

    def take_away(connection: sa.Connection) -> Lock:
        # An apply that is at work gives its lock back as its last act: whoever asks waits for that.
        connection.execute(_HELD.with_for_update())
        found = current_lock(connection)
        if found is None and taken:
            # Taken away before, and only the acknowledgement was lost.
            return taken[0]
        if found is None:
            raise PlanError(f"nobody holds the lock on the control tables\n  looked for: {id_}")
        if found.id != id_:
            raise PlanError(
                f"the lock on the control tables is another one: {found.id}, held by {found}\n  looked for: {id_}"
            )
        _remove(connection, id_)
        taken.append(found)
        return found

    return database.transact(take_away, durable=True)


def _remove(connection: sa.Connection, id_: str) -> None:
    connection.execute(locks.delete().where(locks.c.name == _APPLY, locks.c.id == id_))
