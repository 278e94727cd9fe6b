"""What the outbox of alerts holds: alerts, the messages about them, and what is written at one look."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from platform_core.specs.alerts import AlertEvent, Severity

DeliveryKind = Literal["opened", "changed", "reminder", "recovered", "test"]
DeliveryStatus = Literal["waiting", "sent", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Route:
    """One channel that is told.

    Args:
        due_at: not before; UTC.
        recovers: whether the channel is told when it is over, too.
    """

    channel: str
    due_at: dt.datetime
    recovers: bool


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a message says, in plain text; see :class:`AlertMessage` for the fields."""

    title: str
    text: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    link: str | None = None
    severity: Severity = Severity.ERROR
    good: bool = False

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "title": self.title,
            "text": list(self.text),
            "facts": [list(each) for each in self.facts],
            "link": self.link,
            "severity": str(self.severity),
            "good": self.good,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Told:
        """As it was kept."""
        return cls(
            title=kept["title"],
            text=tuple(kept["text"]),
            facts=tuple((name, value) for name, value in kept["facts"]),
            link=kept["link"],
            severity=Severity(kept["severity"]),
            good=kept["good"],
        )


@dataclass(frozen=True, kw_only=True)
class NewAlert:
    """Something that is wrong.

    Args:
        key: equal for the same cause at another time.
        failing: what does not work, each with the time at which it failed; the alert is over once all of it works.
        kind_of_reason: a change of it is told although the alert is open already.
        job: of a run that failed as a whole; the alert is over once a later run of it succeeds.
        run_id: where it happened; None outside of a run.
        owners: who answers for it.
        passing: whether it is over at once, such as news of a deployment.
    """

    key: str
    location: str
    workstream: str
    event: AlertEvent
    told: Told
    routes: tuple[Route, ...]
    failing: Mapping[str, dt.datetime] = field(default_factory=dict)
    kind_of_reason: str = ""
    job: str | None = None
    run_id: str | None = None
    owners: tuple[str, ...] = ()
    passing: bool = False


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One row of the log of steps; times are UTC, None where the step did not come so far."""

    run_id: str
    step: str
    location: str
    job: str
    workstream: str | None
    layer: str | None
    name: str | None
    status: str
    tries: int
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    error_class: str | None = None
    error: str | None = None
    serial: int | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was found out at one look.

    Args:
        mark: names the look, such as the id of a run; what was marked before is not taken again. None: always taken.
        location: whose alerts it may close.
        wrong: what is wrong.
        well: what works, each with the time since when.
        jobs: jobs that succeeded as a whole, each with the time.
        steps: for the log of steps.
        told_by: what is said to have closed an alert, such as ``run 1234``.
    """

    mark: str | None
    location: str
    wrong: tuple[NewAlert, ...] = ()
    well: Mapping[str, dt.datetime] = field(default_factory=dict)
    jobs: Mapping[str, dt.datetime] = field(default_factory=dict)
    steps: tuple[StepRow, ...] = ()
    told_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """References of the alerts that a look changed."""

    opened: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert as the outbox has it; times are UTC."""

    id: int
    key: str
    location: str
    workstream: str
    event: AlertEvent
    severity: Severity
    title: str
    told: Told
    owners: tuple[str, ...]
    failing: tuple[str, ...]
    job: str | None
    run_id: str | None
    times: int
    opened_at: dt.datetime
    seen_at: dt.datetime
    told_at: dt.datetime
    closed_at: dt.datetime | None
    closed_by: str | None

    @property
    def reference(self) -> str:
        """What people call it."""
        return reference(self.id)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One message for one channel.

    Args:
        token: of the claim; None where nobody has claimed it.
        answers: what the channel gave for the message that this one answers.
        answers_title: title of that message.
    """

    id: int
    alert_id: int
    kind: DeliveryKind
    channel: str
    message_id: str
    told: Told
    status: DeliveryStatus
    tries: int
    due_at: dt.datetime
    created_at: dt.datetime
    sent_at: dt.datetime | None
    error: str | None
    token: str | None = None
    answers: str | None = None
    answers_title: str = ""


def reference(alert_id: int) -> str:
    """What people call an alert."""
    return f"A-{alert_id}"


def alert_of(row: sa.Row[Any]) -> Alert:
    """A row of the table of alerts."""
    return Alert(
        id=row.id,
        key=row.key,
        location=row.location,
        workstream=row.workstream,
        event=AlertEvent(row.event),
        severity=Severity(row.severity),
        title=row.title,
        told=Told.from_json(row.content["told"]),
        owners=tuple(row.content.get("owners", ())),
        failing=tuple(row.failing),
        job=row.job,
        run_id=row.run_id,
        times=row.times,
        opened_at=row.opened_at,
        seen_at=row.seen_at,
        told_at=row.told_at,
        closed_at=row.closed_at,
        closed_by=row.closed_by,
    )


def delivery_of(row: sa.Row[Any], before: sa.Row[Any] | None = None) -> Delivery:
    """A row of the table of messages.

    Args:
        before: the message that it answers.
    """
    return Delivery(
        id=row.id,
        alert_id=row.alert_id,
        kind=row.kind,
        channel=row.channel,
        message_id=row.message["id"],
        told=Told.from_json(row.message),
        status=row.status,
        tries=row.tries,
        due_at=row.due_at,
        created_at=row.created_at,
        sent_at=row.sent_at,
        error=row.error,
        token=row.token,
        # An answer on another channel than its question's has nothing to answer there.
        answers=before.sent_as if before is not None and before.channel == row.channel else None,
        answers_title=before.message["title"] if before is not None else "",
    )
