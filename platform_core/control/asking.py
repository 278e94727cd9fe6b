"""Asks for the lease of a table until it is had: at once, by taking over, or after waiting."""

from __future__ import annotations

import datetime as dt
import logging
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from platform_core.control.database import Database
from platform_core.control.heartbeat import HEARTBEAT
from platform_core.control.holders import this_process
from platform_core.control.leases import Held, Lease, look, take
from platform_core.control.load_log import mark_crashed, seen_by, start_row, took_over, void_approvals
from platform_core.errors import LeaseError, LoadError
from platform_core.specs.table import TableRef

_POLL_SECONDS = (0.1, 2.0)
_LOOK_UP_SECONDS = 0.2
_SAY_SECONDS = 60.0


@dataclass(frozen=True)
class Began:
    """A lease that was taken.

    Args:
        before: the lease as its last holder left it; None where it had let go.
        gone: whether that holder's process is known to have ended.
        seen: what the load before it left for this one.
    """

    lease: Lease
    taken_over: bool
    before: Held | None = None
    gone: bool = False
    voided: bool = False
    seen: str | None = None


class Asking:
    """Asks for the lease of one table until it is had."""

    def __init__(
        self,
        database: Database,
        table: TableRef,
        *,
        mode: str,
        above: int,
        run_id: str | None,
        length: dt.timedelta,
        log: logging.Logger,
    ) -> None:
        self.database = database
        self.table = table
        self.mode = mode
        self.above = above
        self.run_id = run_id
        self.length = length
        self.log = log
        self.token = secrets.token_hex(16)
        self.holder = this_process()

    def wait(self, longest: dt.timedelta, *, patience: float, cancelled: Callable[[], bool]) -> Began:
        """Ask, and ask again while another holds it."""
        began = time.monotonic()
        said: float | None = None
        delay, slowest = _POLL_SECONDS
        while True:
            answer = self.database.transact(self._ask, patience=patience)
            if isinstance(answer, Began):
                self._tell(answer)
                return answer
            waited = time.monotonic() - began
            left = longest.total_seconds() - waited
            if left <= 0:
                raise LeaseError(
                    f"{self.table}: is being loaded by {answer.whose()}"
                    + (f"; waited {waited:.0f} seconds" if longest else "")
                    + "\n  wait until that load has ended; if it is dead, its lease runs out within "
                    f"{self.length.total_seconds():g} seconds"
                )
            if said is None or waited - said >= _SAY_SECONDS:
                said = waited
                self.log.info("%s: waiting for %s, which is loading it", self.table, answer.whose())
            self._sleep(min(left, delay * random.uniform(0.5, 1.0)), cancelled)  # noqa: S311 - only spreads attempts
            delay = min(delay * 1.5, slowest)

    def _sleep(self, seconds: float, cancelled: Callable[[], bool]) -> None:
        until = time.monotonic() + seconds
        while True:
            if cancelled():
                raise LoadError(
                    f"{self.table}: the load was cancelled while it waited for another; nothing was applied"
                )
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _LOOK_UP_SECONDS))

    def _ask(self, connection: sa.Connection) -> Began | Held:
        """Take the lease, or say who holds it."""
        found = look(connection, self.table)
        if found.token == self.token:
            # The transaction was committed before, and only its acknowledgement was lost.
            lease = self._lease(found.epoch)
            return Began(lease, took_over(connection, self.table, batch_id=found.epoch))
        now = self.database.clock(connection)
        gone = found.held and self._is_gone(found)
        if found.held and not gone and found.expires is not None and found.expires > now:
            return found
        lease = self._lease(max(found.epoch, self.above) + 1)
        take(connection, lease, holder=self.holder, run_id=self.run_id, now=now)
        if found.held:
            mark_crashed(connection, self.table, committed=self.above, now=now)
        start_row(
            connection,
            self.table,
            batch_id=lease.epoch,
            mode=self.mode,
            holder=self.holder,
            run_id=self.run_id,
            taken_over=found.held,
            now=now,
        )
        voided = void_approvals(connection, self.table, committed=self.above, now=now)
        if found.held:
            return Began(lease, True, found, gone, voided)
        return Began(lease, False, voided=voided, seen=seen_by(connection, self.table, batch_id=found.epoch))

    def _lease(self, epoch: int) -> Lease:
        return Lease(table=self.table, epoch=epoch, token=self.token, length=self.length)

    def _is_gone(self, found: Held) -> bool:
        if found.holder == self.holder:
            return not HEARTBEAT.knows(found.token)
        return found.holder.is_gone()

    def _tell(self, began: Began) -> None:
        if began.before is not None:
            why = "has ended" if began.gone else f"has given no sign of life since {began.before.seen:%H:%M:%S} UTC"
            self.log.warning("%s: taking over from %s, which %s", self.table, began.before.whose(), why)
        if began.voided:
            self.log.warning("%s: an unused approval has ended: bronze has changed since that load", self.table)
