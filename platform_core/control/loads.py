"""Leases of tables with the log of their loads: a load begins with both and ends with both, in one transaction each."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import sqlalchemy as sa

from platform_core.control.asking import Asking
from platform_core.control.database import PATIENCE, Database, open_database
from platform_core.control.heartbeat import HEARTBEAT, Beat
from platform_core.control.leases import Held, look, release, renew
from platform_core.control.load_log import (
    SEEN,
    Approval,
    LoadRow,
    Status,
    StoppedLoad,
    approve_row,
    finish_row,
    newest_stopped,
    read_rows,
    unused_approval,
    use_approval,
)
from platform_core.control.refresh_log import RefreshLog
from platform_core.control.silent_loads import SilentLoad, silent_loads
from platform_core.errors import ControlError, LeaseError, LoadError, PlatformError, redacted
from platform_core.faults import FaultPoint, reach
from platform_core.plugins.interfaces import SecretStore
from platform_core.specs.environment import ControlSpec
from platform_core.specs.person import Person
from platform_core.specs.table import TableRef

__all__ = ["Approval", "LoadRow", "Loads", "Patience", "SilentLoad", "Status", "StoppedLoad", "Ticket", "open_loads"]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds for which a busy or absent database is asked again.

    Args:
        ask: before anything was done: to begin, to confirm, to read.
        finish: to write how a load ended that bronze holds.
        leave: to write that a load failed; its lease runs out by itself.
    """

    ask: float = PATIENCE
    finish: float = 30.0
    leave: float = 5.0


def open_loads(control: ControlSpec, *, state: Path, secrets: SecretStore, person: Person | None = None) -> Loads:
    """The leases and the load log of an environment; nothing is connected before the first call.

    Open it once in a process and share it: it is safe to use from every thread.

    Args:
        control: the database; a relative SQLite file counts from ``state``.
        state: local folder of this installation.
        secrets: gives the password at the moment of connecting.
        person: whose tables are loaded; None: they are nobody's own.

    Raises:
        ControlError: the URL means no database that can be used, or holds a password.
    """
    return Loads(open_database(control, state=state, secrets=secrets), lease=control.lease, person=person)


def migrate(control: ControlSpec, *, state: Path, secrets: SecretStore) -> list[str]:
    """Bring the tables of an environment's control database up to date.

    Returns:
        Names of the migrations that were applied; none where it was up to date.

    Raises:
        MigrationError: one was edited, is missing or out of order, or the database is newer than this code.
        ControlError: the database cannot be reached.
    """
    database = open_database(control, state=state, secrets=secrets)
    try:
        return database.prepare()
    finally:
        database.close()


class Loads:
    """Who loads which table, and what every load did.

    In a personal environment leases and rows of the log are of the person's tables: a database that several people
    share tells them apart, and shows nobody those of another.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease: dt.timedelta,
        patience: Patience | None = None,
        person: Person | None = None,
    ) -> None:
        """Keep the database.

        Args:
            lease: how long a lease holds without a sign of life of its holder.
            patience: with a busy or absent database.
            person: whose tables are loaded; None: they are nobody's own.
        """
        self._person = person
        self._database = database
        self._lease = lease
        self._patience = patience or Patience()

    def begin(
        self,
        table: TableRef,
        *,
        mode: str,
        above: int,
        run_id: str | None,
        wait: dt.timedelta,
        log: logging.Logger,
        cancelled: Callable[[], bool],
    ) -> Ticket:
        """Take the lease of a table and note that a load of it runs.

        A holder on this machine whose process has ended is taken over at once, any other one when its lease has run
        out. Whoever gets a ticket with :attr:`Ticket.taken_over` fences the table before it loads. Ask
        :meth:`approval` afterwards: an approval that bronze has left behind ends here.

        Args:
            mode: for the log.
            above: the newest batch id in bronze, 0 where there is none; the new one is larger, even if the database
                was lost.
            run_id: the Dagster run, for the log.
            wait: how long to wait for another holder.
            log: hears of waiting, of a take-over and of renewals that fail.
            cancelled: polled while waiting.

        Raises:
            LeaseError: the table is held by another for longer than ``wait``.
            LoadError: the load was cancelled while it waited.
            ControlError: the database cannot be reached; nothing was begun.
        """
        own = self._own(table)
        asking = Asking(self._database, own, mode=mode, above=above, run_id=run_id, length=self._lease, log=log)
        HEARTBEAT.expect(asking.token)
        try:
            began = asking.wait(wait, patience=self._patience.ask, cancelled=cancelled)
        except BaseException:
            HEARTBEAT.drop(asking.token)
            raise
        beat = HEARTBEAT.keep(self._database, began.lease, log=log, cancelled=cancelled)
        ticket = Ticket(
            self._database,
            beat,
            taken_over=began.taken_over,
            seen=began.seen,
            patience=self._patience,
            cancelled=cancelled,
        )
        try:
            reach(FaultPoint.LEASE_ACQUIRED)
        except BaseException as error:
            ticket.__exit__(type(error), error, None)
            raise
        return ticket

    def approve(self, table: TableRef, batch_id: int, *, by: str, why: str) -> None:
        """Let the next load of a table pass where that stopped batch did not.

        Raises:
            LoadError: the batch is not a stopped one or was approved already, or ``by`` or ``why`` is empty.
            ControlError: the database cannot be reached; nothing was approved.
        """
        if not by.strip() or not why.strip():
            raise LoadError(f"{table}: batch {batch_id} cannot be approved without a name and a reason")
        self._database.transact(
            lambda connection: approve_row(
                connection,
                self._own(table),
                batch_id,
                by=by.strip(),
                why=why.strip(),
                now=self._database.clock(connection),
            ),
            patience=self._patience.ask,
            durable=True,
        )

    def approval(self, table: TableRef) -> Approval | None:
        """The newest approval of a table that no load has used yet; ControlError where the database is away."""
        return self._database.transact(
            lambda connection: unused_approval(connection, self._own(table)), patience=self._patience.ask
        )

    def stopped(self, table: TableRef) -> StoppedLoad | None:
        """The newest stopped load of a table; ControlError where the database is away."""
        return self._database.transact(
            lambda connection: newest_stopped(connection, self._own(table)), patience=self._patience.ask
        )

    def recent(self, *, table: TableRef | None = None, limit: int = 50) -> list[LoadRow]:
        """The newest loads first, of one table or of all; ControlError where the database is away."""
        own = None if table is None else self._own(table)
        rows = self._database.transact(
            lambda connection: read_rows(connection, table=own, limit=limit, person=self._person),
            patience=self._patience.ask,
        )
        return [replace(row, table=self._plain(row.table)) for row in rows]

    def silent(self) -> list[SilentLoad]:
        """Loads of Dagster runs that are not at an end and whose holder gives no sign of life.

        Raises:
            ControlError: the database is away.
        """
        return self._database.transact(
            lambda connection: silent_loads(connection, now=self._database.clock(connection), person=self._person),
            patience=self._patience.ask,
        )

    def _own(self, table: TableRef) -> TableRef:
        return table if self._person is None else self._person.table(table)

    def _plain(self, table: TableRef) -> TableRef:
        return table if self._person is None else self._person.plain(table)

    def refresh_log(self) -> RefreshLog:
        """The log of refreshes in the same database."""
        return RefreshLog(self._database, person=self._person)

    def close(self) -> None:
        """Close idle connections; the next call connects again."""
        self._database.close()


class Ticket:
    """One load under way: its lease is renewed until the block ends.

    Args:
        batch_id: id of the load's batch: the epoch of its lease.
        taken_over: whether the holder before never let go: the table is to be fenced first.
        seen: what the load before this one gave :meth:`finish` as ``seen``, where that was the table's last load.
    """

    def __init__(
        self,
        database: Database,
        beat: Beat,
        *,
        taken_over: bool,
        seen: str | None,
        patience: Patience,
        cancelled: Callable[[], bool],
    ) -> None:
        self.batch_id = beat.lease.epoch
        self.taken_over = taken_over
        self.seen = seen
        self._database = database
        self._beat = beat
        self._lease = beat.lease
        self._patience = patience
        self._cancelled = cancelled
        self._end: _End | None = None
        self._written = False

    def confirm(self) -> None:
        """Make sure that the lease still holds, and prolong it; called right before the commit.

        Raises:
            LeaseError: it has run out, is somebody else's, or the database cannot be asked: do not commit.
            LoadError: the load was asked to stop: do not commit.
        """
        lease = self._lease
        if self._cancelled():
            raise LoadError(f"{lease.table}: the load was cancelled; batch {lease.epoch} is not committed")
        if self._beat.lost:
            raise self._lost(None)
        try:
            held = self._database.transact(self._confirmed, patience=self._patience.ask)
        except PlatformError as error:
            raise LeaseError(
                f"{lease.table}: batch {lease.epoch} is not committed, because its lease cannot be confirmed\n"
                f"  {str(error).replace(chr(10), chr(10) + '  ')}"
            ) from None
        if held is not None:
            self._beat.lost = True
            raise self._lost(held)

    def finish(
        self,
        *,
        status: Literal["succeeded", "stopped"],
        figures: Mapping[str, Any],
        used_approval: int | None = None,
        mode: str | None = None,
        seen: str | None = None,
    ) -> None:
        """Write how the load ended and give the lease back, in one transaction.

        Args:
            figures: numbers and short texts, no row values. ``rows_read``, ``inserted``, ``updated``, ``deleted``,
                ``unchanged``, ``late``, ``quarantined``, ``bytes_landed``, ``bytes_written``, ``watermark_from``,
                ``watermark_to``, ``version``, ``committed`` and ``seconds`` (by phase) have columns of their own, as
                have ``deletes`` and ``current`` of a stopped load; others are kept together.
            used_approval: the stopped batch whose approval let this load pass.
            mode: what was loaded, where that was known only under the lease; None: what the load began as.
            seen: for the next load of the table, as :attr:`seen`; a digest, no row value.

        Raises:
            ControlError: the database was away for half a minute, or refused. Bronze holds the batch; the log learns
                of it when the next load of the table begins.
        """
        kept = dict(figures) if seen is None else {**figures, SEEN: seen}
        self._end = _End(status, kept, used_approval, None, mode)
        self._write(self._end, patience=self._patience.finish)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._written:
                # An end that could not be written is tried once more as it was: the log must not say that a load
                # failed which bronze holds.
                end = self._end or self._ended_by(error)
                self._write(end, patience=0.0 if self._end else self._patience.leave)
        except PlatformError as failure:
            # What ended the load goes first; the lease runs out, and the next load notes the crash.
            self._beat.log.error(
                "%s: the end of batch %d could not be written to the load log\n%s",
                self._lease.table,
                self.batch_id,
                failure,
            )
        finally:
            HEARTBEAT.drop(self._lease.token, self._beat)
        if error is None and self._end is None:
            raise RuntimeError(f"{self._lease.table}: batch {self.batch_id} ended without Ticket.finish()")

    def _ended_by(self, error: BaseException | None) -> _End:
        if error is None:
            return _End("failed", {}, None, "the load ended without a result")
        stopped = not isinstance(error, Exception) or self._cancelled()
        return _End("cancelled" if stopped else "failed", {}, None, redacted(error))

    def _confirmed(self, connection: sa.Connection) -> Held | None:
        """None where the lease was prolonged; else the lease as it is."""
        if renew(connection, self._lease, now=self._database.clock(connection)):
            return None
        return look(connection, self._lease.table)

    def _lost(self, held: Held | None) -> LeaseError:
        lease = self._lease
        if held is None:
            how = "it ran out, or was taken over, before it could be renewed"
        elif held.token != lease.token:
            how = f"taken over by {held.whose()}" if held.token else "the database does not know it"
        else:
            how = f"it ran out: no sign of life since {held.seen:%Y-%m-%d %H:%M:%S} UTC"
        return LeaseError(
            f"{lease.table}: the lease of batch {lease.epoch} was lost; nothing was committed\n"
            f"  {how}; a lease holds for {lease.length.total_seconds():g} seconds without a sign of life\n"
            "  load the table again"
        )

    def _write(self, end: _End, *, patience: float) -> None:
        reach(FaultPoint.AUDIT_COMMIT)
        # The use of an approval must outlast a power cut, or it could be used twice.
        durable = end.used_approval is not None
        try:
            released, used = self._database.transact(
                lambda connection: self._finished(connection, end), patience=patience, durable=durable
            )
        except PlatformError as error:
            if end.status != "succeeded":
                raise
            raise ControlError(
                f"{self._lease.table}: batch {self.batch_id} is loaded, but the load log could not be told\n"
                f"  {str(error).replace(chr(10), chr(10) + '  ')}\n"
                "  nothing is lost: load the table again when the control database answers"
            ) from None
        self._written = True
        log = self._beat.log
        if not released:
            log.warning("%s: the lease of batch %d was somebody else's at its end", self._lease.table, self.batch_id)
        if not used:
            log.error("%s: the approval of batch %s was not there any more", self._lease.table, end.used_approval)

    def _finished(self, connection: sa.Connection, end: _End) -> tuple[bool, bool]:
        now = self._database.clock(connection)
        table = self._lease.table
        finish_row(
            connection,
            table,
            batch_id=self.batch_id,
            status=end.status,
            figures=end.figures,
            error=end.error,
            mode=end.mode,
            now=now,
        )
        approval = end.used_approval
        used = approval is None or use_approval(connection, table, batch_id=approval, used_by=self.batch_id, now=now)
        reach(FaultPoint.LEASE_RELEASE)
        return release(connection, self._lease), used


@dataclass(frozen=True)
class _End:
    """How a load ended."""

    status: Status
    figures: Mapping[str, Any]
    used_approval: int | None
    error: str | None
    mode: str | None = None
