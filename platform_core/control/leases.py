"""The statements of a lease: take it, keep it, give it back; each runs inside a transaction of its caller's."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa

from platform_core.control.holders import Holder
from platform_core.control.tables import columns_of, identity, leases, of_table
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to load one table.

    Args:
        table: the table.
        epoch: larger than that of every earlier lease of the table.
        token: tells this lease from every other.
        length: how long it holds without a renewal.
    """

    table: TableRef
    epoch: int
    token: str
    length: dt.timedelta


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lease as the database has it.

    Args:
        held: whether somebody holds it, or held it and never let go.
        since: when it was taken.
        seen: last sign of life of its holder.
        expires: when it runs out unless it is renewed.
    """

    epoch: int
    held: bool
    token: str | None
    holder: Holder
    run_id: str | None
    since: dt.datetime | None
    seen: dt.datetime | None
    expires: dt.datetime | None

    def whose(self) -> str:
        """Who holds it since when, in words."""
        run = f" (run {self.run_id})" if self.run_id else ""
        since = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"{self.holder}{run}, batch {self.epoch},{since}".rstrip(",")


def look(connection: sa.Connection, table: TableRef) -> Held:
    """The lease of a table, locked against everybody else until the transaction ends; made where there was none."""
    found = connection.execute(_LOOK, identity(table)).one_or_none()
    if found is None:
        values = {**columns_of(table), "epoch": 0, "held": False}
        connection.execute(_MAKE[connection.dialect.name], values)
        found = connection.execute(_LOOK, identity(table)).one()
    holder = Holder(
        host=found.host or "", boot=found.boot or "", pid=found.pid or 0, started=found.process_started or ""
    )
    return Held(
        epoch=found.epoch,
        held=found.held,
        token=found.token,
        holder=holder,
        run_id=found.run_id,
        since=found.acquired_at,
        seen=found.renewed_at,
        expires=found.expires_at,
    )


def take(connection: sa.Connection, lease: Lease, *, holder: Holder, run_id: str | None, now: dt.datetime) -> None:
    """Make a lease the table's; :func:`look` has said that it may be."""
    values = {
        "epoch": lease.epoch,
        "held": True,
        "token": lease.token,
        "host": holder.host,
        "boot": holder.boot,
        "pid": holder.pid,
        "process_started": holder.started,
        "run_id": run_id,
        "acquired_at": now,
        "renewed_at": now,
        "expires_at": now + lease.length,
    }
    connection.execute(_TAKE, {**identity(lease.table), **values})


def renew(connection: sa.Connection, lease: Lease, *, now: dt.datetime) -> bool:
    """Prolong a lease; false where it has run out or is somebody else's: it stays lost."""
    values = {"renewed_at": now, "expires_at": now + lease.length, "of_epoch": lease.epoch, "of_token": lease.token}
    changed = connection.execute(_RENEW, {**identity(lease.table), **values, "at": now})
    return changed.rowcount == 1


def release(connection: sa.Connection, lease: Lease) -> bool:
    """Give a lease back; false where it is somebody else's by now."""
    values = {"of_epoch": lease.epoch, "of_token": lease.token}
    return connection.execute(_RELEASE, {**identity(lease.table), **values}).rowcount == 1


def _make(dialect: str) -> sa.Insert:
    # Of two that find no row, both go on with the one that is there in the end.
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgres_insert

        return postgres_insert(leases).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(leases).on_conflict_do_nothing()


_MAKE = {dialect: _make(dialect) for dialect in ("postgresql", "sqlite")}
_LOOK = sa.select(leases).where(of_table(leases)).with_for_update()
_TAKE = sa.update(leases).where(of_table(leases))
_RELEASE = (
    sa.update(leases)
    .where(of_table(leases), leases.c.epoch == sa.bindparam("of_epoch"), leases.c.token == sa.bindparam("of_token"))
    .values(held=False)
)
_RENEW = sa.update(leases).where(
    of_table(leases),
    leases.c.epoch == sa.bindparam("of_epoch"),
    leases.c.token == sa.bindparam("of_token"),
    leases.c.held,
    leases.c.expires_at > sa.bindparam("at"),
)
