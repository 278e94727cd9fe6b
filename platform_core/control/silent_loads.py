"""Loads that run, as the log has it, and whose holder gives no sign of life."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa

from platform_core.control.holders import Holder
from platform_core.control.tables import leases, loads, of_person
from platform_core.specs.person import Person
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class SilentLoad:
    """A load that nobody seems to be at work on any more.

    Args:
        holder: the process that held its lease.
        run_id: the Dagster run.
        seen: last sign of life, UTC.
        ended: whether the process is known to have ended; else its lease has run out.
    """

    table: TableRef
    batch_id: int
    run_id: str
    holder: Holder
    seen: dt.datetime
    ended: bool


def silent_loads(connection: sa.Connection, *, now: dt.datetime, person: Person | None = None) -> list[SilentLoad]:
    """The loads of Dagster runs whose process has ended, or whose lease ran out before ``now``; oldest first.

    Looked at are loads of the person's tables, or of those that are nobody's own. Left out are runs of which another
    load gives a sign of life.
    """
    found: list[SilentLoad] = []
    alive: set[str] = set()
    for row in connection.execute(_RUNNING.where(of_person(loads, person))):
        holder = Holder(host=row.host, boot=row.boot, pid=row.pid, started=row.process_started)
        ended = holder.is_gone()
        if ended or row.expires_at <= now:
            found.append(
                SilentLoad(
                    table=TableRef(row.workstream, row.layer, row.name),
                    batch_id=row.batch_id,
                    run_id=row.run_id,
                    holder=holder,
                    seen=row.renewed_at,
                    ended=ended,
                )
            )
        else:
            alive.add(row.run_id)
    return [load for load in found if load.run_id not in alive]


_RUNNING = (
    sa.select(
        loads.c.workstream,
        loads.c.layer,
        loads.c.name,
        loads.c.batch_id,
        loads.c.run_id,
        leases.c.host,
        leases.c.boot,
        leases.c.pid,
        leases.c.process_started,
        leases.c.renewed_at,
        leases.c.expires_at,
    )
    .join(
        leases,
        sa.and_(
            leases.c.workstream == loads.c.workstream,
            leases.c.layer == loads.c.layer,
            leases.c.name == loads.c.name,
            leases.c.epoch == loads.c.batch_id,
        ),
    )
    .where(loads.c.status == "running", loads.c.run_id.is_not(None), leases.c.held)
    .order_by(loads.c.started_at)
)
