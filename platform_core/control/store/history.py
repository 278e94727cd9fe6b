"""What was applied when: every apply, and every version of every row."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from platform_core.control.store.codec import Content, Row, codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import RowKey
from platform_core.control.store.tables import PROVENANCE, SPEC_TABLES, applies, history
from platform_core.errors import PlanError

Change = Literal["created", "changed", "deleted", "pruned"]
"""What happened to a row; ``pruned``: its table was removed from the lake after the row was."""


@dataclass(frozen=True, kw_only=True)
class Apply:
    """One apply; times are UTC.

    Args:
        plan: digest of the plan.
        origin: ``git`` or ``sql``.
        approval: the reason that a person gave; None: none was needed.
        restored: the serial that it went back to; None: it went forward.
    """

    serial: int
    plan: str
    origin: str
    release: str
    git_commit: str | None
    author: str
    applied_at: dt.datetime
    created: int
    changed: int
    deleted: int
    approval: str | None
    restored: int | None


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of one row, and how it came to be.

    Args:
        content: the row by column; of a deleted row as it was last.
        applied_at: UTC.
    """

    serial: int
    key: RowKey
    change: Change
    content: Content
    hash: str
    origin: str
    git_commit: str | None
    author: str
    applied_at: dt.datetime
    approval: str | None

    @property
    def is_live(self) -> bool:
        """Whether the row was there from then on."""
        return self.change in ("created", "changed")

    def row(self) -> Row:
        """The row as the database keeps it."""
        return codec(KINDS[self.key.kind]).row(self.content)


def read_applies(connection: sa.Connection, *, limit: int) -> list[Apply]:
    """The newest applies, newest first."""
    query = sa.select(applies).order_by(applies.c.serial.desc()).limit(limit)
    return [_apply(row) for row in connection.execute(query).mappings()]


def read_apply(connection: sa.Connection, serial: int) -> Apply | None:
    """One apply; None: there is none of that number."""
    row = connection.execute(sa.select(applies).where(applies.c.serial == serial)).mappings().one_or_none()
    return _apply(row) if row else None


def read_versions(
    connection: sa.Connection, *, kind: str, address: str, location: str | None = None, limit: int | None = None
) -> list[Version]:
    """The versions of what has this address, newest first; of any location, as a table may have moved."""
    query = _VERSIONS.where(history.c.kind == kind, history.c.address == address).order_by(history.c.id.desc())
    if location is not None:
        query = query.where(history.c.location == location)
    return [_version(row) for row in connection.execute(query.limit(limit)).mappings()]


def rows_at(connection: sa.Connection, *, serial: int) -> dict[RowKey, Row]:
    """All rows as they were after an apply.

    Raises:
        PlanError: a row had columns that this version of the code does not know.
    """
    return {version.key: version.row() for version in _newest(connection, history.c.serial <= serial)}


def version_at(connection: sa.Connection, *, kind: str, address: str, moment: dt.datetime) -> Version | None:
    """What an address stood for at a moment; None: nothing.

    The answers for one moment fit together, whatever clocks did: they are those of one serial.
    """
    serial = serial_at(connection, moment)
    of_row = (history.c.kind == kind, history.c.address == address, history.c.serial <= serial)
    return next((version for version in _newest(connection, *of_row)), None)


def live_version(connection: sa.Connection, *, kind: str, address: str) -> Version | None:
    """A row as it is now, whoever wrote it; None: there is none."""
    table, rows = SPEC_TABLES[kind], codec(KINDS[kind])
    values = [
        sa.cast(table.c[column.name], sa.Text).label(column.name) if column.is_json else table.c[column.name]
        for column in rows.columns
    ]
    provenance = [table.c[name].label(f"_{name}") for name in PROVENANCE]
    query = sa.select(table.c.location.label("_location"), *values, *provenance)
    for found in connection.execute(query.where(table.c.name == address.rpartition(".")[2])).mappings():
        row = tuple(found[name] for name in rows.names)
        if rows.address(row) == address:
            return Version(
                serial=found["_serial"],
                key=RowKey(kind, found["_location"], address),
                change="changed",
                content=rows.content(row),
                hash=rows.digest(rows.normal(row)),
                origin=found["_origin"],
                git_commit=found["_git_commit"],
                author=found["_author"],
                applied_at=found["_applied_at"],
                approval=None,
            )
    return None


def last_deleted(connection: sa.Connection, *, kinds: Iterable[str]) -> dict[tuple[str, str], Version]:
    """What was deleted last of each kind and address that has no row any more, and whose data may still be there."""
    return {
        (version.key.kind, version.key.address): version
        for version in _last_words(connection, kinds)
        if version.change == "deleted"
    }


def write_versions(connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add versions; ``content`` is JSON text."""
    if found := list(rows):
        connection.execute(history.insert(), found)


def serial_at(connection: sa.Connection, moment: dt.datetime) -> int:
    """The serial that the tables stood at; 0: nothing was applied then.

    Where a clock went back, it is the last of the applies that told this time.
    """
    newest = sa.select(sa.func.max(applies.c.serial)).where(applies.c.applied_at <= moment)
    return connection.execute(newest).scalar() or 0


def require_apply(connection: sa.Connection, serial: int) -> Apply:
    """One apply.

    Raises:
        PlanError: there is none of that number.
    """
    found = read_apply(connection, serial)
    if found is None:
        newest = connection.execute(sa.select(sa.func.max(applies.c.serial))).scalar() or 0
        raise PlanError(f"there is no apply with serial {serial}; the newest is {newest}\n  see: edp history")
    return found


_VERSIONS = sa.select(
    *(column for column in history.c if column.name != "content"),
    # As it was written: the database's own reading would lose the order of keys.
    sa.cast(history.c.content, sa.Text).label("content"),
)


def _newest(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Version]:
    """The newest version of each row among those that meet the conditions, deleted ones left out."""
    ids = (
        sa.select(sa.func.max(history.c.id))
        .where(*conditions, history.c.change != "pruned")
        .group_by(history.c.kind, history.c.location, history.c.address)
    )
    query = _VERSIONS.where(history.c.id.in_(ids), history.c.change != "deleted").order_by(history.c.id)
    return [_version(row) for row in connection.execute(query).mappings()]


def _last_words(connection: sa.Connection, kinds: Iterable[str]) -> list[Version]:
    ids = (
        sa.select(sa.func.max(history.c.id))
        .where(history.c.kind.in_(list(kinds)))
        .group_by(history.c.kind, history.c.address)
    )
    query = _VERSIONS.where(history.c.id.in_(ids), history.c.change.in_(("deleted", "pruned")))
    return [_version(row) for row in connection.execute(query.order_by(history.c.id)).mappings()]


def _apply(row: sa.RowMapping) -> Apply:
    return Apply(**{name: value for name, value in row.items() if name != "token"})


def _version(row: sa.RowMapping) -> Version:
    return Version(
        serial=row["serial"],
        key=RowKey(row["kind"], row["location"], row["address"]),
        change=row["change"],
        content=json.loads(row["content"]),
        hash=row["hash"],
        origin=row["origin"],
        git_commit=row["git_commit"],
        author=row["author"],
        applied_at=row["applied_at"],
        approval=row["approval"],
    )
