"""The right to apply the migrations of a workstream: one process at a time, in every environment."""

from __future__ import annotations

import datetime as dt
import logging
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from platform_core.control.database import Database
from platform_core.control.heartbeat import HEARTBEAT, Beat
from platform_core.control.holders import Holder, this_process
from platform_core.control.leases import Held, Lease, look, release, renew, take
from platform_core.errors import MigrationError, PlatformError
from platform_core.specs.table import TableRef

_LAYER = "ddl"
"""Stands in the place of a layer in the lease's name; no table can be in a layer of this name."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Lock:
    """A lock that is held, and renewed until its block ends."""

    database: Database
    beat: Beat

    def confirm(self) -> None:
        """Make sure that the lock still holds; called before every statement.

        Raises:
            MigrationError: it ran out or was taken over; nothing more may be changed.
            ControlError: the database cannot be asked.
        """
        lease = self.beat.lease
        held = not self.beat.lost and self.database.transact(
            lambda connection: renew(connection, lease, now=self.database.clock(connection))
        )
        if not held:
            raise MigrationError(
                f"{lease.table.workstream}: the lock of its migrations was lost\n"
                f"  it holds for {lease.length.total_seconds():g} seconds without a sign of life\n"
                "  apply again: what was made is recognised"
            )


@contextmanager
def locked(
    database: Database,
    *,
    environment: str,
    workstream: str,
    length: dt.timedelta,
    wait: dt.timedelta,
    log: logging.Logger,
) -> Iterator[Lock]:
    """Hold the lock for the block.

    A holder on this machine whose process has ended is taken over at once, any other one when its time has run out.

    Raises:
        MigrationError: somebody else holds it for longer than ``wait``.
        ControlError: the database cannot be reached.
    """
    table = TableRef(workstream, _LAYER, environment)
    token = secrets.token_hex(16)
    HEARTBEAT.expect(token)
    beat: Beat | None = None
    try:
        lease = _wait(database, table, token=token, length=length, wait=wait, log=log)
        beat = HEARTBEAT.keep(database, lease, log=log)
        yield Lock(database, beat)
    finally:
        if beat is not None:
            try:
                held = beat.lease
                database.transact(lambda connection: release(connection, held))
            except PlatformError as error:
                log.warning(
                    "%s: the lock of its migrations could not be given back; it runs out\n%s", workstream, error
                )
        HEARTBEAT.drop(token, beat)


def _wait(
    database: Database,
    table: TableRef,
    *,
    token: str,
    length: dt.timedelta,
    wait: dt.timedelta,
    log: logging.Logger,
) -> Lease:
    holder = this_process()
    deadline = time.monotonic() + wait.total_seconds()
    said = False
    while True:
        answer = database.transact(
            lambda connection: _ask(connection, database, table, token=token, length=length, holder=holder)
        )
        if isinstance(answer, Lease):
            return answer
        whose = _whose(answer)
        if time.monotonic() >= deadline:
            raise MigrationError(
                f"{table.workstream}: its migrations are being applied by {whose}\n"
                f"  waited {wait.total_seconds():g} seconds; if that process is dead, its lock runs out within "
                f"{length.total_seconds():g} seconds\n  apply again when it has ended"
            )
        if not said:
            log.info("%s: waiting for %s, which applies its migrations", table.workstream, whose)
            said = True
        time.sleep(_POLL_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - it only spreads attempts


def _ask(
    connection: sa.Connection,
    database: Database,
    table: TableRef,
    *,
    token: str,
    length: dt.timedelta,
    holder: Holder,
) -> Lease | Held:
    found = look(connection, table)
    if found.token == token:
        # The transaction was committed before, and only its acknowledgement was lost.
        return Lease(table=table, epoch=found.epoch, token=token, length=length)
    now = database.clock(connection)
    if found.held and not _is_gone(found, holder) and found.expires is not None and found.expires > now:
        return found
    lease = Lease(table=table, epoch=found.epoch + 1, token=token, length=length)
    take(connection, lease, holder=holder, run_id=None, now=now)
    return lease


def _is_gone(found: Held, own: Holder) -> bool:
    return not HEARTBEAT.knows(found.token) if found.holder == own else found.holder.is_gone()


def _whose(held: Held) -> str:
    since = f" since {held.since:%Y-%m-%d %H:%M:%S} UTC" if held.since else ""
    return f"{held.holder}{since}"
