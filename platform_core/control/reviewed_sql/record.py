"""What the control database remembers of reviewed SQL changes, and how that fits the files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from platform_core.control.numbered_files import report_edited, report_late, report_missing, report_renamed
from platform_core.control.report import Report
from platform_core.control.reviewed_sql.files import LONGEST_LIFE, NOUN, SqlChange
from platform_core.control.store.tables import sql_changes


@dataclass(frozen=True, kw_only=True)
class AppliedChange:
    """One change that was applied; times are UTC.

    Args:
        name: of its file, without the ending.
        checksum: SHA-256 (hex) of its text.
        owner: who answers for what it set.
        expires: last day on which that holds against git.
        author: who applied it.
        serial: of the apply that it was.
    """

    number: int
    name: str
    checksum: str
    statements: int
    owner: str
    expires: dt.date
    reason: str
    author: str
    applied_at: dt.datetime
    serial: int


def read_applied(connection: sa.Connection) -> list[AppliedChange]:
    """All that is remembered, by number."""
    query = sa.select(sql_changes).order_by(sql_changes.c.number)
    return [AppliedChange(**row) for row in connection.execute(query).mappings()]


def write_applied(connection: sa.Connection, change: SqlChange, *, author: str, serial: int, now: dt.datetime) -> None:
    """Remember that a change was applied."""
    connection.execute(
        sql_changes.insert().values(
            number=change.number,
            name=change.name,
            checksum=change.checksum,
            statements=len(change.statements),
            owner=change.owner,
            expires=change.expires,
            reason=change.reason,
            author=author,
            applied_at=now,
            serial=serial,
        )
    )


def pending_of(
    changes: Sequence[SqlChange], applied: Sequence[AppliedChange], *, folder: Path, report: Report
) -> list[SqlChange]:
    """Changes that are still to be applied, in order; what does not fit goes to the report.

    Args:
        changes: all files of the environment.
        applied: all that is remembered.
        folder: of the files.
    """
    remembered = {row.number: row for row in applied}
    newest = applied[-1] if applied else None
    here = {change.number for change in changes}
    for row in applied:
        if row.number not in here:
            same = next((each.file for each in changes if each.checksum == row.checksum), None)
            file = folder / f"{row.name}.sql"
            report_missing(file, row.number, report, noun=NOUN, applied=_applied(row), text_now_in=same)
    pending = []
    for change in changes:
        row_ = remembered.get(change.number)
        if row_ is None:
            if newest is not None and newest.number > change.number:
                told = f"{newest.name}: {_applied(newest)}"
                report_late(change.file, change.number, report, noun=NOUN, later=newest.number, applied=told)
            pending.append(change)
        elif change.checksum != row_.checksum:
            report_edited(change.file, change.number, report, noun=NOUN, applied=_applied(row_))
        elif change.name != row_.name:
            told = _applied(row_)
            report_renamed(change.file, change.number, report, noun=NOUN, applied=told, before=row_.name)
    return pending


def check_expiry(change: SqlChange, *, today: dt.date, report: Report) -> None:
    """A change that is still to be applied ends neither in the past nor far in the future."""
    line = change.expires_line
    if change.expires < today:
        hint = f"today is {today:%Y-%m-%d} (UTC); nothing of it would hold: set a later day, or remove the file"
        report.add(change.file, line, f"expired on {change.expires:%Y-%m-%d}", hint)
    elif change.expires - today > LONGEST_LIFE:
        latest = today + LONGEST_LIFE
        hint = f"the latest day is {latest:%Y-%m-%d}; what is meant to stay belongs into control files"
        report.add(change.file, line, "expires more than a year ahead", hint)


def _applied(row: AppliedChange) -> str:
    return f"it was applied on {row.applied_at:%Y-%m-%d %H:%M} UTC by {row.author}, serial {row.serial}"
