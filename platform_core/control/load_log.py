"""The load log: one row for every load, and a person's approval of a stopped one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import sqlalchemy as sa

from platform_core.control.holders import Holder
from platform_core.control.tables import approvals, columns_of, identity, loads, of_person, of_table
from platform_core.errors import LoadError
from platform_core.specs.person import Person
from platform_core.specs.table import TableRef

Status = Literal["running", "succeeded", "stopped", "failed", "cancelled", "crashed"]

_NUMBERS = (
    "rows_read",
    "inserted",
    "updated",
    "deleted",
    "unchanged",
    "late",
    "quarantined",
    "bytes_landed",
    "bytes_written",
    "version",
    "committed",
)
_TEXTS = ("watermark_from", "watermark_to")
_RENAMED = {"deletes": "stopped_deletes", "current": "stopped_current"}
SEEN = "seen"
"""What the next load of the table is told by :func:`seen_by`; no figure, and shown to nobody."""

_LONGEST_ERROR = 4_000
_LONGEST_TEXT = 200


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A person's word that one stopped load may pass, once.

    Args:
        batch_id: the stopped load.
        at: when it was approved, UTC.
    """

    batch_id: int
    by: str
    why: str
    at: dt.datetime


@dataclass(frozen=True, kw_only=True)
class StoppedLoad:
    """A load that was stopped because it would have flagged too many rows deleted.

    Args:
        deletes: rows that it would have flagged.
        current: rows that were current in bronze.
        at: when it was stopped, UTC.
    """

    batch_id: int
    deletes: int
    current: int
    at: dt.datetime


@dataclass(frozen=True, kw_only=True)
class LoadRow:
    """One row of the load log; times are UTC.

    Args:
        batch_id: the load's batch, which is the epoch of its lease.
        run_id: the Dagster run; None outside of one.
        taken_over: whether the load before it never let go of the table.
        finished_at: None while it runs.
        error: why it ended, without any row value; None where it succeeded.
        figures: what :meth:`Ticket.finish` was given.
    """

    table: TableRef
    batch_id: int
    mode: str
    status: Status
    run_id: str | None
    host: str
    pid: int
    taken_over: bool
    started_at: dt.datetime
    finished_at: dt.datetime | None
    error: str | None
    figures: Mapping[str, Any] = field(default_factory=dict)


def start_row(
    connection: sa.Connection,
    table: TableRef,
    *,
    batch_id: int,
    mode: str,
    holder: Holder,
    run_id: str | None,
    taken_over: bool,
    now: dt.datetime,
) -> None:
    """Write that a load runs."""
    values = {
        **columns_of(table),
        "batch_id": batch_id,
        "mode": mode,
        "status": "running",
        "run_id": run_id,
        "host": holder.host,
        "pid": holder.pid,
        "taken_over": taken_over,
        "started_at": now,
    }
    connection.execute(_START, values)


def seen_by(connection: sa.Connection, table: TableRef, *, batch_id: int) -> str | None:
    """What a load left for the next one under :data:`SEEN`; None where it left nothing, or is not in the log."""
    more = connection.execute(_MORE, {**identity(table), "of_batch": batch_id}).scalar()
    return more.get(SEEN) if isinstance(more, Mapping) else None


def took_over(connection: sa.Connection, table: TableRef, *, batch_id: int) -> bool:
    """Whether a load that runs took over from one that never let go."""
    return bool(connection.execute(_TOOK_OVER, {**identity(table), "of_batch": batch_id}).scalar())


def mark_crashed(connection: sa.Connection, table: TableRef, *, committed: int, now: dt.datetime) -> None:
    """Write that the loads of a table that still seem to run have ended without a word.

    Args:
        committed: the newest batch that bronze holds.
    """
    connection.execute(_CRASHED, {**identity(table), "finished_at": now, "of_batch": committed})


def finish_row(
    connection: sa.Connection,
    table: TableRef,
    *,
    batch_id: int,
    status: Status,
    figures: Mapping[str, Any],
    error: str | None,
    mode: str | None,
    now: dt.datetime,
) -> None:
    """Write how a load ended; a mode of None stays what it was at its start."""
    values = {**_columns(figures), "status": status, "finished_at": now, "error": error and error[:_LONGEST_ERROR]}
    if mode is not None:
        values["mode"] = mode
    connection.execute(_FINISH, {**identity(table), "of_batch": batch_id, **values})


def read_rows(
    connection: sa.Connection, *, table: TableRef | None, limit: int, person: Person | None = None
) -> list[LoadRow]:
    """The newest rows first, of one table or of all that are this person's, or nobody's own."""
    newest = sa.select(loads).order_by(loads.c.started_at.desc(), loads.c.batch_id.desc()).limit(limit)
    if table is None:
        return [_row(found) for found in connection.execute(newest.where(of_person(loads, person)))]
    return [_row(found) for found in connection.execute(newest.where(of_table(loads)), identity(table))]


def newest_stopped(connection: sa.Connection, table: TableRef) -> StoppedLoad | None:
    """The newest stopped load of a table."""
    found = connection.execute(_STOPPED, identity(table)).one_or_none()
    if found is None:
        return None
    return StoppedLoad(
        batch_id=found.batch_id,
        deletes=found.stopped_deletes or 0,
        current=found.stopped_current or 0,
        at=found.finished_at,
    )


def unused_approval(connection: sa.Connection, table: TableRef) -> Approval | None:
    """The newest approval of a table that no load has used yet."""
    found = connection.execute(_UNUSED, identity(table)).one_or_none()
    if found is None:
        return None
    return Approval(batch_id=found.batch_id, by=found.approved_by, why=found.why, at=found.approved_at)


def approve_row(
    connection: sa.Connection, table: TableRef, batch_id: int, *, by: str, why: str, now: dt.datetime
) -> None:
    """Write an approval.

    Raises:
        LoadError: the batch is not a stopped one, or was approved before.
    """
    batch = {**identity(table), "of_batch": batch_id}
    # The row is locked, so that two who approve at once come one after the other.
    status = connection.execute(_STATUS, batch).scalar()
    if status != "stopped":
        newest = newest_stopped(connection, table)
        known = f"the newest stopped one is {newest.batch_id}" if newest else "no load of it was stopped"
        raise LoadError(
            f"{table}: batch {batch_id} cannot be approved: "
            + (f"it is {status}, not stopped" if status else "there is no such batch")
            + f"\n  {known}; edp ingest log shows all"
        )
    earlier = connection.execute(_APPROVED, batch).one_or_none()
    if earlier is not None:
        used = f", and batch {earlier.used_by} has used it" if earlier.used_at else ""
        raise LoadError(
            f"{table}: batch {batch_id} was approved already, by {earlier.approved_by} at "
            f"{earlier.approved_at:%Y-%m-%d %H:%M:%S} UTC{used}\n"
            "  an approval lets one load pass; a load that is stopped again needs its own"
        )
    values = {"batch_id": batch_id, "approved_by": by, "why": why, "approved_at": now}
    connection.execute(_APPROVE, {**columns_of(table), **values})


def use_approval(connection: sa.Connection, table: TableRef, *, batch_id: int, used_by: int, now: dt.datetime) -> bool:
    """Write that a load has passed with an approval; false where another load had."""
    values = {"of_batch": batch_id, "used_by": used_by, "used_at": now}
    if connection.execute(_USE, {**identity(table), **values}).rowcount:
        return True
    earlier = connection.execute(_APPROVED, {**identity(table), "of_batch": batch_id}).one_or_none()
    return earlier is not None and earlier.used_by == used_by


def void_approvals(connection: sa.Connection, table: TableRef, *, committed: int, now: dt.datetime) -> bool:
    """End the approvals of loads that were stopped before bronze got the batch that it holds now.

    The load that an approval was meant for has passed and crashed before it could say so, or bronze has changed
    otherwise; either way it is not the one that was approved.

    Args:
        committed: the newest batch that bronze holds.
    """
    values = {"of_batch": committed, "used_by": committed, "used_at": now}
    return connection.execute(_VOID, {**identity(table), **values}).rowcount > 0


def _columns(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of the log for the figures of a load; what has no column of its own is kept as JSON."""
    values: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for name, value in figures.items():
        column = _RENAMED.get(name, name)
        if column in _NUMBERS or name in _RENAMED:
            values[column] = value
        elif name in _TEXTS:
            values[column] = None if value is None else str(_plain(value))[:_LONGEST_TEXT]
        elif name == "seconds" and isinstance(value, Mapping):
            values[column] = {phase: round(float(taken), 4) for phase, taken in value.items()}
        else:
            more[name] = _plain(value)
    return {**values, "more": more} if more else values


def _plain(value: Any) -> Any:
    """The value as JSON has it; of what JSON has not, the name of its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(each) for each in value]
    return type(value).__name__


def _row(found: sa.Row[Any]) -> LoadRow:
    given = {name: getattr(found, name) for name in (*_NUMBERS, *_TEXTS, "seconds")}
    given |= {name: getattr(found, column) for name, column in _RENAMED.items()}
    figures = {name: value for name, value in given.items() if value is not None} | (found.more or {})
    figures.pop(SEEN, None)
    return LoadRow(
        table=TableRef(found.workstream, found.layer, found.name),
        batch_id=found.batch_id,
        mode=found.mode,
        status=found.status,
        run_id=found.run_id,
        host=found.host,
        pid=found.pid,
        taken_over=found.taken_over,
        started_at=found.started_at,
        finished_at=found.finished_at,
        error=found.error,
        figures=figures,
    )


def _batch(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(of_table(table), table.c.batch_id == sa.bindparam("of_batch"))


_COMMITTED = "the process ended without a word, after its commit: bronze holds the batch; its figures are not known"
_LOST = "the process ended without a word, or lost its lease; bronze does not hold its batch"

# Kept at hand: building a statement costs more than running it.
_START = sa.insert(loads)
_FINISH = sa.update(loads).where(_batch(loads))
_MORE = sa.select(loads.c.more).where(_batch(loads))
_TOOK_OVER = sa.select(loads.c.taken_over).where(_batch(loads))
_CRASHED = (
    sa.update(loads)
    .where(of_table(loads), loads.c.status == sa.literal_column("'running'"))
    .values(
        status="crashed",
        error=sa.case((loads.c.batch_id == sa.bindparam("of_batch"), _COMMITTED), else_=_LOST),
    )
)
_STATUS = sa.select(loads.c.status).where(_batch(loads)).with_for_update()
_STOPPED = (
    sa.select(loads).where(of_table(loads), loads.c.status == "stopped").order_by(loads.c.batch_id.desc()).limit(1)
)
_APPROVE = sa.insert(approvals)
_APPROVED = sa.select(approvals).where(_batch(approvals))
_UNUSED = (
    sa.select(approvals)
    .where(of_table(approvals), approvals.c.used_at.is_(None))
    .order_by(approvals.c.batch_id.desc())
    .limit(1)
)
_USE = sa.update(approvals).where(_batch(approvals), approvals.c.used_at.is_(None))
_VOID = sa.update(approvals).where(
    of_table(approvals), approvals.c.used_at.is_(None), approvals.c.batch_id < sa.bindparam("of_batch")
)
