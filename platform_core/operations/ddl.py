"""Migrations of tables and views: what an environment lacks, bringing it up to date, and what it holds."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy as sa

from platform_core.control.database import Database
from platform_core.control.ddl_history import (
    Applied,
    pending_of,
    read_history,
    write_begun,
    write_done,
    write_ended,
)
from platform_core.control.ddl_lock import Lock, locked
from platform_core.control.ddl_tables import create
from platform_core.control.report import Report
from platform_core.errors import Issue, MigrationError, PlatformError, redacted
from platform_core.faults import DdlPoint, reach
from platform_core.operations.ddl_plan import (
    DdlLocation,
    DdlPlan,
    DdlScope,
    PlannedMigration,
    Targets,
    made_plan,
    read_files,
)
from platform_core.operations.platform import Platform
from platform_core.specs.ddl import LAKE, RunStatement

__all__ = ["DdlLocation", "DdlPlan", "DdlScope", "DdlStatus", "Done", "apply_ddl", "ddl_status", "plan_ddl"]

T = TypeVar("T")

_WAIT = dt.timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Done:
    """One migration that was applied.

    Args:
        statements: made by this attempt; the others had been made before.
        seconds: taken by this attempt.
    """

    migration: PlannedMigration
    statements: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class DdlStatus:
    """What an environment holds.

    Args:
        applied: all that is remembered, also what was begun and not ended.
        waiting: names of migrations that nothing is remembered of.
        issues: what does not fit between files and memory.
    """

    environment: str
    applied: tuple[Applied, ...]
    waiting: tuple[str, ...]
    issues: tuple[Issue, ...] = field(default=())


def plan_ddl(scope: DdlScope, *, platform: Platform, database: Database) -> DdlPlan:
    """What an environment lacks; nothing is changed.

    Raises:
        MigrationError: files and history do not fit, or a statement is refused; every fault with file and line.
        ControlError, StorageError: a database or the lake cannot be reached.
    """
    with _opened(platform) as targets:
        return _plan(scope, targets=targets, platform=platform, database=database)


def apply_ddl(
    scope: DdlScope,
    *,
    platform: Platform,
    database: Database,
    author: str,
    approve: str | None = None,
    wait: dt.timedelta = _WAIT,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Done]:
    """Bring an environment up to date, one migration after the other.

    A statement of the lake is one commit, which a rerun recognises; a migration of a serving database is one
    transaction. After an error, or when the process is killed, doing it again goes on where it stood.

    Args:
        author: who applies them.
        approve: reason for which statements that destroy something are let through; kept with the migration.
        wait: how long to wait for another process that applies migrations of the same workstreams.
        tell: hears of every statement that was made.

    Raises:
        MigrationError: as of :func:`plan_ddl`, or an approval is missing, or a statement failed.
        ControlError, StorageError: a database or the lake cannot be reached, or refused.
    """
    reason = approve.strip() if approve else None
    if approve is not None and not reason:
        raise MigrationError('an approval needs a reason\n  write it down: --approve "<reason>"')
    with _opened(platform) as targets, ExitStack() as stack:
        held: dict[str, Lock] = {}
        plan = _plan(scope, targets=targets, platform=platform, database=database)
        # In one order for all, so that two processes never wait for each other.
        for workstream in plan.workstreams:
            held[workstream] = stack.enter_context(
                locked(
                    database,
                    environment=platform.scope,
                    workstream=workstream,
                    length=platform.environment.control.lease,
                    wait=wait,
                    log=platform.log,
                )
            )
        # Somebody else may have applied some, or all, before the locks were had.
        plan = _plan(scope, targets=targets, platform=platform, database=database)
        _check_locked(plan, held)
        _check_approved(plan, reason, environment=platform.environment.name)
        attempts = [
            _Attempt(
                planned,
                lock=held[planned.migration.workstream],
                targets=targets,
                platform=platform,
                database=database,
                author=author,
                approved=reason if planned.destroys else None,
                tell=tell,
            )
            for planned in plan.migrations
        ]
        return [attempt.run() for attempt in attempts]


def ddl_status(scope: DdlScope, *, platform: Platform, database: Database) -> DdlStatus:
    """What an environment holds, as it is remembered; neither the lake nor a serving database is asked.

    Raises:
        ControlError: the control database cannot be reached.
    """
    environment = platform.scope
    history = [row for row in _history(database, environment) if row.workstream in scope.workstreams]
    report = Report(scope.project)
    files = [each for each in read_files(scope, report) if scope.is_chosen(each.location)]
    waiting = pending_of(files, history, environment=environment, report=report)
    return DdlStatus(
        environment=environment,
        applied=tuple(history),
        waiting=tuple(str(each.migration) for each in waiting if each.before is None),
        issues=report.issues,
    )


class _Attempt:
    """Applies one migration, and writes down how far it came."""

    def __init__(
        self,
        planned: PlannedMigration,
        *,
        lock: Lock,
        targets: Targets,
        platform: Platform,
        database: Database,
        author: str,
        approved: str | None,
        tell: Callable[[str], None],
    ) -> None:
        self._planned = planned
        self._migration = planned.migration
        self._lock = lock
        self._targets = targets
        self._environment = platform.scope
        self._log: logging.Logger = platform.log
        self._database = database
        self._author = author
        self._approved = approved
        self._tell = tell

    def run(self) -> Done:
        """Apply it.

        Raises:
            MigrationError: a statement failed; what was made before it stays, and is remembered.
        """
        clock = time.monotonic()
        self._transact(
            lambda connection: write_begun(
                connection,
                self._planned.pending,
                environment=self._environment,
                author=self._author,
                approved=self._approved,
                now=self._database.clock(connection),
            )
        )
        reach(DdlPoint.BEGUN)
        try:
            made = self._in_lake() if self._migration.target == LAKE else self._in_database()
        except Exception as error:
            self._end(redacted(error), seconds=time.monotonic() - clock)
            raise
        reach(DdlPoint.BEFORE_END)
        seconds = time.monotonic() - clock
        self._end(None, seconds=seconds)
        return Done(migration=self._planned, statements=made, seconds=seconds)

    def _in_lake(self) -> int:
        made = 0
        for each in self._planned.statements:
            if each.meaning is not None:
                self._lock.confirm()
                reach(DdlPoint.BEFORE_STATEMENT)
                what = self._make(each.statement.position, each.statement.line)
                made += 1
                self._tell(f"{self._migration}: {each.meaning.summary}" + (f" ({what})" if what else ""))
                reach(DdlPoint.AFTER_STATEMENT)
            self._done(each.statement.position)
        return made

    def _make(self, position: int, line: int) -> str:
        each = self._planned.statements[position - 1]
        assert each.meaning is not None  # noqa: S101 - its caller has looked
        try:
            return self._targets.lake.make(each.meaning.change, migration=self._migration, statement=each.statement)
        except PlatformError as error:
            count = len(self._migration.statements)
            first = f"{self._migration.shown}:{line}: statement {position} failed"
            kept = (
                f"what stands before it is made, and stays ({position - 1} of {count})"
                if position > 1
                else "nothing is made"
            )
            raise MigrationError(
                f"{first}; {kept}\n  {str(error).replace(chr(10), chr(10) + '  ')}\n"
                "  mend what is wrong, or this statement, and apply again: it goes on from here"
            ) from None

    def _in_database(self) -> int:
        database = self._targets.database(self._migration.target)
        if database is None or any(each.meaning is None for each in self._planned.statements):
            # The database holds it, and only the control database did not know.
            return 0
        self._lock.confirm()
        changes = [each.meaning.change for each in self._planned.statements if each.meaning is not None]
        statements = [change.sql for change in changes if isinstance(change, RunStatement)]
        if not database.run(self._migration, statements, author=self._author):
            return 0
        for each in self._planned.statements:
            if each.meaning is not None:
                self._tell(f"{self._migration}: {each.meaning.summary}")
        return len(statements)

    def _done(self, position: int) -> None:
        self._transact(
            lambda connection: write_done(connection, self._migration, environment=self._environment, done=position)
        )

    def _end(self, error: str | None, *, seconds: float) -> None:
        def write(connection: sa.Connection) -> None:
            write_ended(
                connection,
                self._migration,
                environment=self._environment,
                error=error,
                seconds=seconds,
                now=self._database.clock(connection),
            )

        try:
            self._transact(write)
        except PlatformError as failure:
            if error is None:
                raise
            # What ended the attempt goes first; the next one finds how far it came.
            self._log.error("%s: that it failed could not be written down\n%s", self._migration, failure)

    def _transact(self, work: Callable[[sa.Connection], T]) -> T:
        return self._database.transact(work, durable=True)


@contextmanager
def _opened(platform: Platform) -> Iterator[Targets]:
    targets = Targets(platform)
    try:
        yield targets
    finally:
        targets.close()


def _plan(scope: DdlScope, *, targets: Targets, platform: Platform, database: Database) -> DdlPlan:
    environment = platform.scope
    return made_plan(scope, _history(database, environment), targets=targets, environment=environment)


def _history(database: Database, environment: str) -> Sequence[Applied]:
    def read(connection: sa.Connection) -> list[Applied]:
        create(connection)
        return read_history(connection, environment=environment)

    return database.transact(read)


def _check_locked(plan: DdlPlan, held: dict[str, Lock]) -> None:
    if late := [name for name in plan.workstreams if name not in held]:
        raise MigrationError(
            f"migrations of {', '.join(late)} appeared while this was waiting for its turn; nothing was changed\n"
            "  apply again"
        )


def _check_approved(plan: DdlPlan, reason: str | None, *, environment: str) -> None:
    if reason is not None:
        return
    wanting = [each for each in plan.migrations if each.needs_approval]
    if wanting:
        lines = [f"  {each.migration.shown}: loses {lost}" for each in wanting for lost in each.destroys]
        raise MigrationError(
            "\n".join(
                [
                    f"{len(wanting)} of {len(plan.migrations)} migrations would destroy something; nothing was applied",
                    *lines,
                    f'  if that is meant, say why: edp ddl apply --env {environment} --approve "<reason>"',
                ]
            )
        )
