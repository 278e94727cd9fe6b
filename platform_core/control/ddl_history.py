"""What the control database remembers of migrations, and how that fits the files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from platform_core.control.ddl_files import Migration
from platform_core.control.ddl_tables import ddl_history
from platform_core.control.numbered_files import report_edited, report_late, report_missing, report_renamed
from platform_core.control.report import Report

Status = Literal["running", "applied", "failed"]

_LONGEST_ERROR = 4_000


@dataclass(frozen=True, kw_only=True)
class Applied:
    """One migration as an environment remembers it; times are UTC.

    Args:
        digests: SHA-256 of each statement as it stood when the migration was last begun.
        done: statements that are known to have been made.
        approved: reason for which a destructive one was let through.
        seconds: taken by all attempts together.
        error: of the last attempt, without any row value; None where it did not fail.
    """

    environment: str
    location: str
    workstream: str
    number: int
    name: str
    target: str
    checksum: str
    digests: tuple[str, ...]
    statements: int
    done: int
    status: Status
    author: str
    approved: str | None
    started_at: dt.datetime
    applied_at: dt.datetime | None
    seconds: float
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A migration that is still to be applied, whole or from a statement on.

    Args:
        done: statements that are known to have been made; the next one may have been, too.
        before: what is remembered of an earlier attempt; None: there was none.
    """

    migration: Migration
    done: int = 0
    before: Applied | None = None


def read_history(
    connection: sa.Connection, *, environment: str, workstreams: Sequence[str] | None = None
) -> list[Applied]:
    """All that is remembered of an environment, by workstream and number; of some workstreams, or of all."""
    query = sa.select(ddl_history).where(ddl_history.c.environment == environment)
    if workstreams is not None:
        query = query.where(ddl_history.c.workstream.in_(list(workstreams)))
    query = query.order_by(ddl_history.c.workstream, ddl_history.c.number)
    return [_applied(row) for row in connection.execute(query)]


def write_begun(
    connection: sa.Connection,
    pending: Pending,
    *,
    environment: str,
    author: str,
    approved: str | None,
    now: dt.datetime,
) -> None:
    """Write that a migration is being applied."""
    migration = pending.migration
    values: dict[str, Any] = {
        "location": migration.location,
        "name": migration.name,
        "target": migration.target,
        "checksum": migration.checksum,
        "digests": [statement.digest for statement in migration.statements],
        "statements": len(migration.statements),
        "status": "running",
        "author": author,
        "error": None,
    }
    if approved is not None:
        values["approved"] = approved
    if connection.execute(sa.update(ddl_history).where(_key(environment, migration)).values(values)).rowcount:
        return
    first = {"done": 0, "seconds": 0.0, "approved": approved, "started_at": now}
    identity = {"environment": environment, "workstream": migration.workstream, "number": migration.number}
    connection.execute(sa.insert(ddl_history).values({**values, **first, **identity}))


def write_done(connection: sa.Connection, migration: Migration, *, environment: str, done: int) -> None:
    """Write how many statements of a migration are known to have been made."""
    connection.execute(sa.update(ddl_history).where(_key(environment, migration)).values(done=done))


def write_ended(
    connection: sa.Connection,
    migration: Migration,
    *,
    environment: str,
    error: str | None,
    seconds: float,
    now: dt.datetime,
) -> None:
    """Write how an attempt ended: applied, or failed with an error."""
    values: dict[str, Any] = {"seconds": ddl_history.c.seconds + seconds}
    if error is None:
        values |= {"status": "applied", "done": len(migration.statements), "applied_at": now, "error": None}
    else:
        values |= {"status": "failed", "error": error[:_LONGEST_ERROR]}
    connection.execute(sa.update(ddl_history).where(_key(environment, migration)).values(values))


def pending_of(
    migrations: Sequence[Migration], history: Sequence[Applied], *, environment: str, report: Report
) -> list[Pending]:
    """Migrations that are still to be applied, in order; what does not fit goes to the report.

    Args:
        migrations: all files of the workstreams.
        history: all that is remembered of these workstreams.
    """
    remembered = {(row.workstream, row.number): row for row in history}
    _check_there(migrations, history, environment, report)
    newest = _newest(history)
    found = []
    for migration in migrations:
        row = remembered.get((migration.workstream, migration.number))
        if row is None:
            _check_order(migration, newest, environment, report)
            found.append(Pending(migration=migration))
        elif row.status == "applied":
            _check_unchanged(migration, row, environment, report)
        else:
            _check_done_part(migration, row, environment, report)
            found.append(Pending(migration=migration, done=row.done, before=row))
    return found


def _check_there(migrations: Sequence[Migration], history: Sequence[Applied], environment: str, report: Report) -> None:
    """Every migration that is remembered must have its file."""
    known = {(each.workstream, each.number) for each in migrations}
    for row in history:
        if (row.workstream, row.number) in known:
            continue
        near = next((each.file.parent for each in migrations if each.workstream == row.workstream), None)
        same = next((each for each in migrations if each.checksum == row.checksum), None)
        report_missing(
            (near or Path("ddl") / row.workstream) / f"{row.name}.sql",
            row.number,
            report,
            noun="migration",
            applied=f"{_how(row)} in environment '{environment}' {_when(row)}",
            text_now_in=same.file if same else None,
        )


def _check_order(
    migration: Migration, newest: Mapping[tuple[str, str], Applied], environment: str, report: Report
) -> None:
    last = newest.get((migration.workstream, migration.target))
    if last is not None and last.number > migration.number:
        report_late(
            migration.file,
            migration.number,
            report,
            noun="migration",
            later=last.number,
            applied=f"{last.name} was applied in environment '{environment}' {_when(last)}",
        )


def _newest(history: Sequence[Applied]) -> dict[tuple[str, str], Applied]:
    """The last begun migration by workstream and target: what one target lacks does not hold up the others."""
    found: dict[tuple[str, str], Applied] = {}
    for row in history:
        key = (row.workstream, row.target)
        if key not in found or found[key].number < row.number:
            found[key] = row
    return found


def _check_unchanged(migration: Migration, row: Applied, environment: str, report: Report) -> None:
    where = f"it was applied in environment '{environment}' {_when(row)}"
    if migration.checksum != row.checksum:
        line = next(
            (
                statement.line
                for statement, digest in zip(migration.statements, (*row.digests, *[""] * 1000), strict=False)
                if statement.digest != digest
            ),
            0,
        )
        report_edited(migration.file, migration.number, report, noun="migration", applied=where, line=line)
    elif migration.name != row.name:
        report_renamed(migration.file, migration.number, report, noun="migration", applied=where, before=row.name)


def _check_done_part(migration: Migration, row: Applied, environment: str, report: Report) -> None:
    """What was made already must stand as it stood; the rest may be mended."""
    if migration.target != row.target:
        report.add(
            migration.file,
            1,
            f"migration {migration.number:04d} was begun in '{row.target}', not '{migration.target}'",
            f"begun in environment '{environment}' {_when(row)}",
            "put its first line back",
        )
    for statement, digest in zip(migration.statements, row.digests[: row.done], strict=False):
        if statement.digest != digest:
            report.add(
                migration.file,
                statement.line,
                f"statement {statement.position} of migration {migration.number:04d} is made already, but was edited",
                f"{row.done} of {row.statements} statements were made in environment '{environment}' {_when(row)}",
                "put its text back; what was not made yet may be mended",
            )
    if len(migration.statements) < row.done:
        report.add(
            migration.file,
            0,
            f"migration {migration.number:04d} has {len(migration.statements)} statements, but {row.done} were made",
            "put the removed ones back; what was not made yet may be mended",
        )


def _how(row: Applied) -> str:
    return "it was applied" if row.status == "applied" else f"it was begun ({row.done} of {row.statements} statements)"


def _when(row: Applied) -> str:
    moment = row.applied_at or row.started_at
    return f"on {moment:%Y-%m-%d %H:%M} UTC by {row.author}"


def _key(environment: str, migration: Migration) -> sa.ColumnElement[bool]:
    return sa.and_(
        ddl_history.c.environment == environment,
        ddl_history.c.workstream == migration.workstream,
        ddl_history.c.number == migration.number,
    )


def _applied(row: sa.Row[Any]) -> Applied:
    fields = dict(row._mapping)
    return Applied(**{**fields, "digests": tuple(fields["digests"])})
