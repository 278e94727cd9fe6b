"""The outbox of alerts: what is wrong, and the messages about it that wait to be sent.

An alert and its messages are written in one transaction, with a mark that the run they come from was looked at. Nothing
is sent in that transaction: whoever sends claims one message for a while, sends it, and notes that it was sent.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from platform_core.control.alert_changes import Recovery, add_deliveries, close, end, log_steps, mark, open_or_repeat
from platform_core.control.alert_records import (
    Alert,
    Delivery,
    DeliveryKind,
    Recorded,
    Route,
    Seen,
    StepRow,
    Told,
    alert_of,
    delivery_of,
    reference,
)
from platform_core.control.alert_tables import alert_runs, alerts, deliveries, step_log
from platform_core.control.database import Database
from platform_core.faults import AlertPoint, reach

PATIENCE = 3.0
"""Seconds for which a busy or absent database is tried again: a sensor has its next tick."""

LEASE = dt.timedelta(seconds=60)
"""How long a message belongs to who claimed it; longer than any send may take."""


class Outbox:
    """The outbox in one control database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def record(self, seen: Seen, *, recovery: Recovery) -> Recorded | None:
        """Write what was found out, in one transaction.

        Returns:
            What changed; None where this look was taken before.

        Raises:
            ControlError: the database is away; nothing was written.
        """

        def work(connection: sa.Connection) -> Recorded | None:
            now = self.database.clock(connection)
            if seen.mark is not None and not mark(connection, seen.mark, now):
                return None
            closed = close(connection, seen, recovery=recovery, now=now)
            opened: list[str] = []
            repeated: list[str] = []
            for new in seen.wrong:
                alert_id, is_new = open_or_repeat(connection, new, now=now)
                (opened if is_new else repeated).append(reference(alert_id))
            log_steps(connection, seen.steps, now)
            reach(AlertPoint.RECORDING)
            return Recorded(opened=tuple(opened), repeated=tuple(repeated), closed=tuple(closed))

        recorded = self.database.transact(work, patience=PATIENCE)
        reach(AlertPoint.RECORDED)
        return recorded

    def has_seen(self, marks: Collection[str]) -> set[str]:
        """Which of these looks were taken."""
        query = sa.select(alert_runs.c.run_id).where(alert_runs.c.run_id.in_(marks))
        return self.database.transact(lambda connection: set(connection.execute(query).scalars()), patience=PATIENCE)

    def opened_since(self, workstream: str, since: dt.datetime) -> int:
        """How many alerts of a workstream were opened since a moment, those of storms left out."""
        query = (
            sa.select(sa.func.count())
            .select_from(alerts)
            .where(alerts.c.workstream == workstream, alerts.c.opened_at >= since)
        )
        return self.database.transact(lambda connection: connection.execute(query).scalar_one(), patience=PATIENCE)

    def open_alerts(self, *, location: str | None = None) -> list[Alert]:
        """Alerts that are not over, the oldest first."""
        query = sa.select(alerts).where(alerts.c.open_key.is_not(None)).order_by(alerts.c.id)
        if location is not None:
            query = query.where(alerts.c.location == location)
        return self.database.transact(
            lambda connection: [alert_of(row) for row in connection.execute(query)], patience=PATIENCE
        )

    def newest(self, *, limit: int) -> list[tuple[Alert, list[Delivery]]]:
        """The alerts seen last, with their messages: open ones first, then the newest."""
        query = (
            sa.select(alerts).order_by(alerts.c.open_key.is_(None), alerts.c.seen_at.desc(), alerts.c.id).limit(limit)
        )

        def work(connection: sa.Connection) -> list[tuple[Alert, list[Delivery]]]:
            found = [alert_of(row) for row in connection.execute(query)]
            of_these = deliveries.c.alert_id.in_([alert.id for alert in found])
            rows = connection.execute(sa.select(deliveries).where(of_these).order_by(deliveries.c.id)).all()
            return [(alert, [delivery_of(row) for row in rows if row.alert_id == alert.id]) for alert in found]

        return self.database.transact(work, patience=PATIENCE)

    def tell_again(
        self, alert_id: int, told: Told, routes: Sequence[Route], *, kind: DeliveryKind, unless_told_since: dt.datetime
    ) -> bool:
        """Add messages to an open alert; false where it is over, or was told of since that moment."""

        def work(connection: sa.Connection) -> bool:
            now = self.database.clock(connection)
            changed = connection.execute(
                sa.update(alerts)
                .where(alerts.c.id == alert_id, alerts.c.open_key.is_not(None), alerts.c.told_at < unless_told_since)
                .values(told_at=now)
            )
            if changed.rowcount:
                add_deliveries(connection, alert_id, kind, told, routes, now=now)
            return bool(changed.rowcount)

        return self.database.transact(work, patience=PATIENCE)

    def close(self, alert_id: int, *, by: str, told: Told | None) -> Alert | None:
        """Close an alert by a person's word; None where it is not open.

        Args:
            told: what its channels are told; None: nothing.
        """

        def work(connection: sa.Connection) -> Alert | None:
            now = self.database.clock(connection)
            query = sa.select(alerts).where(alerts.c.id == alert_id, alerts.c.open_key.is_not(None)).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            end(connection, alert_of(row), by=by, told=told, now=now)
            return alert_of(row)

        return self.database.transact(work, patience=PATIENCE, durable=True)

    def send_again(self, alert_id: int, *, channel: str | None) -> int:
        """Let messages that failed, or wait, be tried now.

        Args:
            channel: only those for this channel.

        Returns:
            How many.
        """

        def work(connection: sa.Connection) -> int:
            now = self.database.clock(connection)
            query = sa.update(deliveries).where(
                deliveries.c.alert_id == alert_id, deliveries.c.status.in_(("failed", "waiting"))
            )
            if channel is not None:
                query = query.where(deliveries.c.channel == channel)
            return connection.execute(query.values(status="waiting", due_at=now, tries=0)).rowcount

        return self.database.transact(work, patience=PATIENCE, durable=True)

    # Sending

    def due(self, *, limit: int, channels: Collection[str] | None = None) -> list[Delivery]:
        """Messages whose time has come and that nobody has claimed, those that wait for an earlier one left out."""
        before = deliveries.alias()

        def work(connection: sa.Connection) -> list[Delivery]:
            now = self.database.clock(connection)
            query = (
                sa.select(deliveries)
                .outerjoin(before, before.c.id == deliveries.c.after_id)
                .where(
                    deliveries.c.status == "waiting",
                    deliveries.c.due_at <= now,
                    sa.or_(deliveries.c.claimed_until.is_(None), deliveries.c.claimed_until <= now),
                    sa.or_(before.c.id.is_(None), before.c.status != "waiting"),
                )
                .order_by(deliveries.c.due_at, deliveries.c.id)
                .limit(limit)
            )
            if channels is not None:
                query = query.where(deliveries.c.channel.in_(channels))
            return [delivery_of(row) for row in connection.execute(query)]

        return self.database.transact(work, patience=PATIENCE)

    def claim(self, delivery_id: int, *, lease: dt.timedelta = LEASE) -> Delivery | None:
        """Claim one message, so that nobody else sends it for a while; None where somebody else was first."""
        token = uuid.uuid4().hex

        def work(connection: sa.Connection) -> Delivery | None:
            now = self.database.clock(connection)
            changed = connection.execute(
                sa.update(deliveries)
                .where(
                    deliveries.c.id == delivery_id,
                    deliveries.c.status == "waiting",
                    # The work may run again after a commit whose acknowledgement was lost.
                    sa.or_(
                        deliveries.c.claimed_until.is_(None),
                        deliveries.c.claimed_until <= now,
                        deliveries.c.token == token,
                    ),
                )
                .values(token=token, claimed_until=now + lease)
            )
            if not changed.rowcount:
                return None
            row = connection.execute(sa.select(deliveries).where(deliveries.c.id == delivery_id)).one()
            before = None
            if row.after_id is not None:
                before = connection.execute(sa.select(deliveries).where(deliveries.c.id == row.after_id)).one_or_none()
            return delivery_of(row, before)

        claimed = self.database.transact(work, patience=PATIENCE)
        reach(AlertPoint.CLAIMED)
        return claimed

    def note_sent(self, delivery: Delivery, *, sent_as: str) -> bool:
        """Note that a claimed message was sent; false where the claim had run out and somebody else has it."""

        def work(connection: sa.Connection) -> bool:
            now = self.database.clock(connection)
            values = {"status": "sent", "sent_at": now, "sent_as": sent_as[:500], "error": None, "claimed_until": None}
            changed = connection.execute(_of(delivery).values(tries=delivery.tries + 1, **values))
            return bool(changed.rowcount)

        noted = self.database.transact(work, patience=PATIENCE)
        reach(AlertPoint.NOTED)
        return noted

    def note_failed(self, delivery: Delivery, *, error: str, wait: dt.timedelta | None, instead: str | None) -> None:
        """Note that a claimed message was not taken.

        Args:
            error: why.
            wait: time until the next try; None: there is none.
            instead: channel that takes the message over, where there is no next try.
        """

        def work(connection: sa.Connection) -> None:
            now = self.database.clock(connection)
            values: dict[str, Any] = {"error": error[:1_000], "tries": delivery.tries + 1, "claimed_until": None}
            if wait is None:
                values["status"] = "failed"
            else:
                values["due_at"] = now + wait
            changed = connection.execute(_of(delivery).values(**values))
            if not changed.rowcount or wait is not None or instead is None:
                return
            row = connection.execute(sa.select(deliveries).where(deliveries.c.id == delivery.id)).one()
            added = connection.execute(
                sa.insert(deliveries).values(
                    alert_id=row.alert_id,
                    kind=row.kind,
                    channel=instead,
                    message={**row.message, "id": uuid.uuid4().hex},
                    recovers=row.recovers,
                    status="waiting",
                    tries=0,
                    due_at=now,
                    created_at=now,
                )
            )
            # What was to answer it follows it to the other channel.
            (new_id,) = added.inserted_primary_key or (None,)
            connection.execute(
                sa.update(deliveries)
                .where(deliveries.c.after_id == delivery.id, deliveries.c.status == "waiting")
                .values(channel=instead, after_id=new_id)
            )

        self.database.transact(work, patience=PATIENCE)

    def channels_told(self, delivery: Delivery) -> set[str]:
        """Channels that have had, or are to have, the same message."""
        query = sa.select(deliveries.c.channel).where(
            deliveries.c.alert_id == delivery.alert_id, deliveries.c.kind == delivery.kind
        )
        return self.database.transact(lambda connection: set(connection.execute(query).scalars()), patience=PATIENCE)

    def channels_of(self, alert_ids: Collection[int]) -> set[str]:
        """Channels that have had, or are to have, a message about any of these alerts."""
        query = sa.select(deliveries.c.channel).where(
            deliveries.c.alert_id.in_(alert_ids), deliveries.c.status.in_(("waiting", "sent"))
        )
        return self.database.transact(lambda connection: set(connection.execute(query).scalars()), patience=PATIENCE)

    def forget(self, *, older: dt.timedelta) -> int:
        """Remove closed alerts, marks and rows of the log of steps from before that time; returns how many rows."""

        def work(connection: sa.Connection) -> int:
            before = self.database.clock(connection) - older
            old = sa.select(alerts.c.id).where(alerts.c.open_key.is_(None), alerts.c.seen_at < before)
            still = sa.select(deliveries.c.alert_id).where(deliveries.c.status == "waiting")
            gone: Sequence[int] = connection.execute(old.where(alerts.c.id.not_in(still)).limit(5_000)).scalars().all()
            rows = connection.execute(sa.delete(deliveries).where(deliveries.c.alert_id.in_(gone))).rowcount
            rows += connection.execute(sa.delete(alerts).where(alerts.c.id.in_(gone))).rowcount
            rows += connection.execute(sa.delete(alert_runs).where(alert_runs.c.seen_at < before)).rowcount
            return rows + connection.execute(sa.delete(step_log).where(step_log.c.logged_at < before)).rowcount

        return self.database.transact(work, patience=PATIENCE)

    def steps(self, *, limit: int, run_id: str | None = None) -> list[StepRow]:
        """The log of steps, the newest first."""
        query = sa.select(step_log).order_by(step_log.c.logged_at.desc(), step_log.c.step).limit(limit)
        if run_id is not None:
            query = query.where(step_log.c.run_id == run_id)
        names = list(StepRow.__dataclass_fields__)
        return self.database.transact(
            lambda connection: [
                StepRow(**{name: getattr(row, name) for name in names}) for row in connection.execute(query)
            ],
            patience=PATIENCE,
        )


def _of(delivery: Delivery) -> sa.Update:
    return sa.update(deliveries).where(
        deliveries.c.id == delivery.id, deliveries.c.token == delivery.token, deliveries.c.status == "waiting"
    )
