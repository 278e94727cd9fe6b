"""Opens, repeats and closes alerts; each runs inside a transaction of its caller's."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from platform_core.control.alert_records import (
    Alert,
    DeliveryKind,
    NewAlert,
    Route,
    Seen,
    StepRow,
    Told,
    alert_of,
)
from platform_core.control.alert_tables import alert_runs, alerts, deliveries, step_log

Recovery = Callable[[Alert, dt.datetime], Told]
"""Says that an alert is over, since when."""

_MOST_FAILING = 2_000


def _insert_once(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless there is one like it; whether it was inserted."""
    first = next(iter(table.primary_key.columns))
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgres_insert

        added = postgres_insert(table).values(**values).on_conflict_do_nothing().returning(first)
        return connection.execute(added).first() is not None
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return (
        connection.execute(sqlite_insert(table).values(**values).on_conflict_do_nothing().returning(first)).first()
        is not None
    )


def mark(connection: sa.Connection, name: str, now: dt.datetime) -> bool:
    """Mark a look; false where it was marked before."""
    return _insert_once(connection, alert_runs, {"run_id": name, "seen_at": now})


def log_steps(connection: sa.Connection, steps: Sequence[StepRow], now: dt.datetime) -> None:
    """Write rows of the log of steps; those that are there stay as they are."""
    for step in steps:
        values = {name: getattr(step, name) for name in StepRow.__dataclass_fields__}
        _insert_once(connection, step_log, {**values, "logged_at": now})


def open_or_repeat(connection: sa.Connection, new: NewAlert, *, now: dt.datetime) -> tuple[int, bool]:
    """Id of the alert of this cause, and whether it was opened now."""
    failing = {name: at.astimezone(dt.UTC).isoformat() for name, at in [*new.failing.items()][:_MOST_FAILING]}
    content = {"told": new.told.as_json(), "owners": list(new.owners), "kind": new.kind_of_reason}
    values: dict[str, Any] = {
        "open_key": None if new.passing else new.key,
        "key": new.key,
        "location": new.location,
        "workstream": new.workstream,
        "event": str(new.event),
        "severity": str(new.told.severity),
        "title": new.told.title,
        "content": content,
        "failing": failing,
        "job": new.job,
        "run_id": new.run_id,
        "last_run_id": new.run_id,
        "times": 1,
        "opened_at": now,
        "seen_at": now,
        "told_at": now,
        "closed_at": now if new.passing else None,
    }
    query = sa.select(alerts).where(alerts.c.open_key == new.key).with_for_update()
    row = None if new.passing else connection.execute(query).one_or_none()
    if row is None:
        added = _insert_once(connection, alerts, values)
        # Of two that open the same alert at once, the second goes on with the first one's.
        row = connection.execute(
            sa.select(alerts).where(alerts.c.key == new.key).order_by(alerts.c.id.desc()).limit(1)
        ).one()
        if added:
            add_deliveries(connection, row.id, "opened", new.told, new.routes, now=now)
            return row.id, True
    told_of = row.content.get("kind") != new.kind_of_reason
    changes = {
        "seen_at": now,
        "last_run_id": new.run_id,
        "times": row.times + 1,
        "content": content,
        "failing": dict([*{**row.failing, **failing}.items()][:_MOST_FAILING]),
    }
    connection.execute(
        sa.update(alerts).where(alerts.c.id == row.id).values(**changes, **({"told_at": now} if told_of else {}))
    )
    if told_of:
        add_deliveries(connection, row.id, "changed", new.told, new.routes, now=now)
    return row.id, False


def add_deliveries(
    connection: sa.Connection,
    alert_id: int,
    kind: DeliveryKind,
    told: Told,
    routes: Sequence[Route],
    *,
    now: dt.datetime,
) -> None:
    """Put a message for each route into the outbox; it answers the first one of its channel."""
    first: dict[str, int] = {}
    for row in connection.execute(
        sa.select(deliveries.c.id, deliveries.c.channel)
        .where(deliveries.c.alert_id == alert_id, deliveries.c.status.in_(("sent", "waiting")))
        .order_by(deliveries.c.id)
    ):
        first.setdefault(row.channel, row.id)
    for route in routes:
        connection.execute(
            sa.insert(deliveries).values(
                alert_id=alert_id,
                kind=kind,
                channel=route.channel,
                message={**told.as_json(), "id": uuid.uuid4().hex},
                recovers=route.recovers,
                status="waiting",
                tries=0,
                due_at=max(route.due_at, now),
                after_id=first.get(route.channel),
                created_at=now,
            )
        )


def close(connection: sa.Connection, seen: Seen, *, recovery: Recovery, now: dt.datetime) -> list[str]:
    """Close the alerts of a location of which all works again; their references."""
    if not seen.well and not seen.jobs:
        return []
    query = sa.select(alerts).where(alerts.c.open_key.is_not(None), alerts.c.location == seen.location)
    closed = []
    for row in connection.execute(query.with_for_update()).all():
        left = {
            name: failed
            for name, failed in row.failing.items()
            if name not in seen.well or seen.well[name] <= dt.datetime.fromisoformat(failed)
        }
        over = bool(row.failing) and not left
        if not row.failing and row.job is not None and row.job in seen.jobs:
            over = seen.jobs[row.job] > row.opened_at
        if over:
            alert = alert_of(row)
            end(connection, alert, by=seen.told_by, told=recovery(alert, now), now=now)
            closed.append(alert.reference)
        elif len(left) < len(row.failing):
            connection.execute(sa.update(alerts).where(alerts.c.id == row.id).values(failing=left))
    return closed


def end(connection: sa.Connection, alert: Alert, *, by: str, told: Told | None, now: dt.datetime) -> None:
    """Close an alert, and tell the channels that were told of it; None: nobody is told."""
    values: dict[str, Any] = {"open_key": None, "closed_at": now, "closed_by": by, "seen_at": now, "failing": {}}
    connection.execute(sa.update(alerts).where(alerts.c.id == alert.id).values(**values))
    rows = connection.execute(
        sa.select(deliveries).where(deliveries.c.alert_id == alert.id).order_by(deliveries.c.id)
    ).all()
    spared = set()
    for row in rows:
        # Held back for quiet hours and over before anybody was told: nobody needs to be.
        held = row.status == "waiting" and row.tries == 0 and row.token is None and row.due_at > now
        if held:
            spared.add(row.id)
            connection.execute(
                sa.update(deliveries)
                .where(deliveries.c.id == row.id, deliveries.c.token.is_(None))
                .values(status="cancelled", error="over before its time came")
            )
    first: dict[str, int] = {}
    for row in rows:
        if row.recovers and row.status in ("sent", "waiting") and row.id not in spared:
            first.setdefault(row.channel, row.id)
    for channel, row_id in first.items() if told is not None else ():
        connection.execute(
            sa.insert(deliveries).values(
                alert_id=alert.id,
                kind="recovered",
                channel=channel,
                message={**told.as_json(), "id": uuid.uuid4().hex} if told else {},
                recovers=False,
                status="waiting",
                tries=0,
                due_at=now,
                after_id=row_id,
                created_at=now,
            )
        )
