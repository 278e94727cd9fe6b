"""Says in plain words what is wrong, what it did, and that it is over."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from platform_core.control.alert_records import Alert, Told
from platform_core.operations.alerts.causes import Cause
from platform_core.operations.alerts.facts import FinishedRun, ShownDashboard
from platform_core.specs.alerts import AlertEvent, Severity
from platform_core.specs.table import TableRef

_MOST_NAMED = 8
_MOST_LINES = 8
_MOST_TEXT = 1_500


def told_of_cause(
    cause: Cause,
    run: FinishedRun,
    *,
    dashboards: Sequence[ShownDashboard],
    owners: Sequence[str],
    severity: Severity,
    link: str | None,
) -> Told:
    """What is said when a cause is first seen."""
    facts: list[tuple[str, str]] = []
    if len(cause.refs) > 1:
        facts.append(("Failed", _named(cause.refs)))
    if cause.skipped:
        facts.append(("Not run because of it", _named(cause.skipped)))
    facts += _dashboard_facts(dashboards, now=run.ended_at)
    facts += _owner_facts(owners)
    facts.append(("Run", f"{run.job}, {run.run_id[:8]}, ended {moment(run.ended_at)}"))
    return Told(
        title=_title(cause),
        text=(_shortened(cause.error),) if cause.error else (),
        facts=tuple(facts),
        link=link,
        severity=severity,
    )


def told_of_recovery(alert: Alert, now: dt.datetime) -> Told:
    """What is said when an alert is over."""
    times = f", seen {alert.times} times" if alert.times > 1 else ""
    return Told(
        title=f"Over: {alert.title}",
        text=(f"It works again. This closes {alert.reference}.",),
        facts=(
            ("Since", f"{moment(alert.opened_at)}{times}"),
            ("Over after", span(now - alert.opened_at)),
            *_owner_facts(alert.owners),
        ),
        link=alert.told.link,
        severity=Severity.INFO,
        good=True,
    )


def told_again(alert: Alert, now: dt.datetime) -> Told:
    """What is said when an alert is still open after the time that a rule names."""
    facts = [("Since", f"{moment(alert.opened_at)} ({span(now - alert.opened_at)})"), ("Seen", f"{alert.times} times")]
    return Told(
        title=f"Still: {alert.title}",
        text=alert.told.text,
        facts=(*facts, *alert.told.facts),
        link=alert.told.link,
        severity=alert.severity,
    )


def told_of_closing(alert: Alert, *, by: str, now: dt.datetime) -> Told:
    """What is said when a person closes an alert."""
    return Told(
        title=f"Closed: {alert.title}",
        text=(f"{by} closed {alert.reference}.",),
        facts=(("Since", f"{moment(alert.opened_at)} ({span(now - alert.opened_at)})"),),
        link=alert.told.link,
        severity=Severity.INFO,
        good=True,
    )


def told_late(
    workstream: str, due: dt.datetime, *, now: dt.datetime, owners: Sequence[str], severity: Severity
) -> Told:
    """What is said when a workstream's run did not succeed in time."""
    return Told(
        title=f"{workstream} is late",
        text=(f"No run of {workstream} has succeeded since it was due.",),
        facts=(("Due", f"{moment(due)} ({span(now - due)} ago)"), *_owner_facts(owners)),
        severity=severity,
    )


def told_late_tables(
    tables: Sequence[ShownDashboard], *, now: dt.datetime, owners: Sequence[str], severity: Severity
) -> Told:
    """What is said when nothing has built tables for longer than they are expected to be fresh."""
    ref = tables[0].ref
    return Told(
        title=f"{ref} is late" if len(tables) == 1 else f"{ref.workstream}: {len(tables):,} tables are late",
        text=("Nothing has built it within the time for which it is expected to be fresh.",)
        if len(tables) == 1
        else ("Nothing has built them within the time for which they are expected to be fresh.",),
        facts=(("Last built", _ages(tables, now=now, then="ago")), *_owner_facts(owners)),
        severity=severity,
    )


def told_stale(
    dashboards: Sequence[ShownDashboard], *, now: dt.datetime, owners: Sequence[str], severity: Severity
) -> Told:
    """What is said when dashboards show old data."""
    ref, many = dashboards[0].ref, len(dashboards) > 1
    return Told(
        title=f"{ref.workstream}: {len(dashboards):,} dashboards show old data" if many else f"{ref} shows old data",
        facts=(*_dashboard_facts(dashboards, now=now), *_owner_facts(owners)),
        severity=severity,
    )


def told_deployed(
    serial: int, *, author: str, at: dt.datetime, release: str, counts: Mapping[str, int], severity: Severity
) -> Told:
    """What is said when control metadata was applied."""
    changes = ", ".join(f"{number} {what}" for what, number in counts.items() if number) or "nothing changed"
    return Told(
        title=f"Applied: serial {serial}",
        facts=(("Changes", changes), ("By", author), ("At", moment(at)), ("Release", release)),
        severity=severity,
    )


def moment(at: dt.datetime) -> str:
    """A moment as people read it."""
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


def span(length: dt.timedelta) -> str:
    """A length of time as people read it: its largest unit, and two of them where that tells more."""
    minutes = max(0, int(length.total_seconds() // 60))
    if minutes < 1:
        return "less than a minute"
    for size, unit in ((60 * 24, "day"), (60, "hour"), (1, "minute")):
        if minutes >= 2 * size or (size == 1 and minutes >= 1):
            count = minutes // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{minutes} minutes"


def _title(cause: Cause) -> str:
    tables = len(cause.refs)
    if cause.causes > 1:
        return f"{cause.workstream}: {tables:,} steps failed, for {cause.causes:,} reasons"
    if cause.event is AlertEvent.DELETE_STOP:
        return f"{cause.what}: load stopped, it would have flagged too many rows deleted"
    if cause.event is AlertEvent.PRIVACY:
        return f"{cause.what}: load refused, a new column is not classified"
    if cause.minor:
        return f"{cause.what}: {len(cause.failed)} check{'' if len(cause.failed) == 1 else 's'} failed"
    if tables > 1 and cause.what.startswith("connection "):
        return f"{cause.what}: {tables:,} tables failed"
    if tables > 1:
        return f"{cause.workstream}: {tables:,} steps failed for one reason"
    return f"{cause.refs[0] if tables else cause.what} failed"


def _dashboard_facts(dashboards: Sequence[ShownDashboard], *, now: dt.datetime) -> list[tuple[str, str]]:
    return [("Dashboards not renewed", _ages(dashboards, now=now, of="data of "))] if dashboards else []


def _ages(shown: Sequence[ShownDashboard], *, now: dt.datetime, of: str = "", then: str = "old") -> str:
    """How old the data of each is, one a line."""
    lines = [
        f"{each.ref}: {of}{moment(each.as_of)} ({span(now - each.as_of)} {then})"
        if each.as_of
        else f"{each.ref}: empty"
        for each in shown[:_MOST_NAMED]
    ]
    if len(shown) > _MOST_NAMED:
        lines.append(f"and {len(shown) - _MOST_NAMED:,} more")
    return "\n".join(lines)


def _owner_facts(owners: Sequence[str]) -> list[tuple[str, str]]:
    return [("Owners", ", ".join(owners[:_MOST_NAMED]))] if owners else []


def _named(refs: Sequence[TableRef]) -> str:
    shown = ", ".join(map(str, refs[:_MOST_NAMED]))
    rest = len(refs) - _MOST_NAMED
    return f"{len(refs):,}: {shown}" + (f" and {rest:,} more" if rest > 0 else "")


def _shortened(error: str) -> str:
    lines = error.strip().splitlines()
    shown = "\n".join(lines[:_MOST_LINES]) + ("\n…" if len(lines) > _MOST_LINES else "")
    return shown if len(shown) <= _MOST_TEXT else shown[: _MOST_TEXT - 1] + "…"
