"""Says which channels are told of something, when, and how much it matters to them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from platform_core.control.alert_records import Route
from platform_core.specs.alerts import USUAL_SEVERITY, AlertEvent, AlertRule, Severity


@dataclass(frozen=True, kw_only=True)
class Routed:
    """Where something goes.

    Args:
        severity: the highest that a rule gives it; by event where no rule is for it.
        routes: each channel once.
        remind: shortest time after which a rule wants to hear of it again.
    """

    severity: Severity
    routes: tuple[Route, ...]
    remind: dt.timedelta | None


def route(
    rules: Iterable[AlertRule],
    *,
    event: AlertEvent,
    workstream: str,
    owners: Sequence[str],
    now: dt.datetime,
    minor: bool = False,
) -> Routed:
    """Find the rules for something, and when their channels are told.

    Args:
        owners: who answers for it.
        minor: whether it matters less than is usual for its event.
    """
    usual = min(USUAL_SEVERITY[event], Severity.WARNING, key=_rank) if minor else USUAL_SEVERITY[event]
    found: dict[str, Route] = {}
    severities: list[Severity] = []
    reminders: list[dt.timedelta] = []
    for rule in rules:
        severity = rule.severity or usual
        if not _is_for(rule, event=event, workstream=workstream, owners=owners, severity=severity):
            continue
        severities.append(severity)
        if rule.remind is not None:
            reminders.append(rule.remind)
        due = _due(rule, severity, now)
        for channel in rule.channels:
            earlier = found.get(channel)
            recovers = AlertEvent.RECOVERED in rule.events or (earlier is not None and earlier.recovers)
            when = due if earlier is None else min(due, earlier.due_at)
            found[channel] = Route(channel=channel, due_at=when, recovers=recovers)
    return Routed(
        severity=max(severities, key=_rank, default=usual),
        routes=tuple(found.values()),
        remind=min(reminders, default=None),
    )


def _rank(severity: Severity) -> int:
    return severity.rank


def _is_for(rule: AlertRule, *, event: AlertEvent, workstream: str, owners: Sequence[str], severity: Severity) -> bool:
    return (
        rule.workstream == workstream
        and event in rule.events
        and severity.rank >= rule.at_least.rank
        and (not rule.owners or bool(set(rule.owners) & set(owners)))
    )


def _due(rule: AlertRule, severity: Severity, now: dt.datetime) -> dt.datetime:
    quiet = rule.quiet_hours
    if quiet is None or severity.rank >= quiet.below.rank:
        return now
    return quiet.end(now) or now
