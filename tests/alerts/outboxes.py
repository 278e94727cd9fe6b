"""Outboxes, alerts and channels for tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from platform_core.control.alert_records import NewAlert, Route, Seen, Told
from platform_core.control.alert_tables import deliveries
from platform_core.control.outbox import Outbox
from platform_core.operations.alerts.dispatch import Dispatcher
from platform_core.operations.alerts.wording import told_of_recovery
from platform_core.plugins.interfaces import AlertChannel, AlertMessage, NoOptions
from platform_core.specs.alerts import AlertEvent, Severity

LONG_AGO = dt.datetime(2026, 11, 20, 6, 0, tzinfo=dt.UTC)
ORDERS = "crm.bronze.orders"


class MemoryChannel(AlertChannel):
    """Keeps what it is given, after whatever a test wants to happen first."""

    def __init__(self, happens: Callable[[AlertMessage], Any] = lambda _: None) -> None:
        super().__init__(NoOptions(), secret=lambda name: (_ for _ in ()).throw(KeyError(name)))
        self.happens = happens
        self.messages: list[AlertMessage] = []
        self.asked = 0

    def send(self, message: AlertMessage, *, timeout: float) -> str:
        self.asked += 1
        self.happens(message)
        self.messages.append(message)
        return f"sent-{message.id}"

    @property
    def titles(self) -> list[str]:
        return [message.title for message in self.messages]


def dispatcher(outbox: Outbox, channels: Mapping[str, AlertChannel], **more: Any) -> Dispatcher:
    opened = {name: (lambda channel=channel: channel) for name, channel in channels.items()}
    return Dispatcher(outbox, opened, **{"first_wait": 0.01, "send_seconds": 2, **more})


def failure(
    key: str = "crm/bronze/orders/failed",
    *,
    channels: tuple[str, ...] = ("team",),
    failing: tuple[str, ...] = (ORDERS,),
    at: dt.datetime | None = None,
    due: dt.datetime = LONG_AGO,
    **more: Any,
) -> NewAlert:
    told = Told(title=f"{failing[0] if failing else key} failed", severity=Severity.ERROR)
    given: dict[str, Any] = {
        "location": "crm",
        "workstream": "crm",
        "event": AlertEvent.FAILED,
        "told": told,
        "routes": tuple(Route(channel=name, due_at=due, recovers=True) for name in channels),
        "failing": dict.fromkeys(failing, at or LONG_AGO),
        "kind_of_reason": "SourceError",
        "run_id": "run-1",
    }
    return NewAlert(key=key, **(given | more))


def record(outbox: Outbox, *wrong: NewAlert, mark: str | None = None, well: tuple[str, ...] = (), **more: Any) -> Any:
    now = dt.datetime.now(dt.UTC)
    seen = Seen(mark=mark, location="crm", wrong=wrong, well=dict.fromkeys(well, now), told_by="run 2", **more)
    return outbox.record(seen, recovery=told_of_recovery)


def let_all_be_due(outbox: Outbox) -> None:
    """Take away every pause between tries."""
    outbox.database.transact(lambda connection: connection.execute(sa.update(deliveries).values(due_at=LONG_AGO)))
