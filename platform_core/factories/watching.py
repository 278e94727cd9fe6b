"""Looks for what should have happened and did not: late workstreams and tables, stale dashboards; tells of applies."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import dagster as dg
import sqlalchemy as sa
from dagster._utils.schedules import reverse_cron_string_iterator

from platform_core.control.alert_records import NewAlert, Seen
from platform_core.control.outbox import Outbox
from platform_core.factories import translation
from platform_core.factories.run_facts import data_ages
from platform_core.operations.alerts.causes import MOST_CAUSES
from platform_core.operations.alerts.facts import ShownDashboard, Surroundings
from platform_core.operations.alerts.known import LATE, STALE, UNWRITTEN, Known
from platform_core.operations.alerts.routing import Routed, route
from platform_core.operations.alerts.wording import (
    told_deployed,
    told_late,
    told_late_tables,
    told_of_recovery,
    told_stale,
)
from platform_core.specs.alerts import AlertEvent, AlertRule
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.location import WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.processing import ProcessingSpec

_MOST_TICKS = 100


class Progress(Protocol):
    """The part of the sensor's cursor that is read and moved here."""

    began: float
    serial: int | None


@dataclass(frozen=True, kw_only=True)
class Old:
    """A table or dashboard whose data is older than it may be."""

    event: AlertEvent
    shown: ShownDashboard
    owners: tuple[str, ...]

    @property
    def called(self) -> str:
        """What its alert says that fails."""
        return f"{STALE if self.event is AlertEvent.STALE else LATE}{self.shown.ref}"


@dataclass
class Findings:
    """What one look finds.

    Args:
        late: workstreams of which no run has succeeded in time.
        old: tables and dashboards, whether they are told already or not.
        well: what an alert may have said of, and is as it should be.
    """

    late: dict[str, NewAlert] = field(default_factory=dict)
    old: list[Old] = field(default_factory=list)
    well: dict[str, dt.datetime] = field(default_factory=dict)


def watch(
    instance: dg.DagsterInstance,
    progress: Progress,
    *,
    outbox: Outbox,
    manifest: Manifest,
    environment: EnvironmentSpec,
    around: Callable[[], Surroundings],
    now: dt.datetime,
) -> None:
    """Write what is late, stale or deployed, and close what no longer is.

    Args:
        around: what lies around the tables; asked only where something is older than it may be.

    Raises:
        ControlError: the control database is away.
    """
    events = {event for rule in manifest.alerts for event in rule.events}
    found = Findings()
    if environment.schedules:
        for workstream in manifest.location.workstreams:
            _watch_schedule(instance, workstream, manifest, progress, found, now)
        _watch_tables(instance, manifest, found, now)
    _watch_dashboards(instance, manifest, found, now)
    if found.late or found.old or found.well:
        _tell(found, outbox=outbox, manifest=manifest, around=around, now=now)
    if AlertEvent.DEPLOY in events:
        _tell_of_applies(progress, outbox=outbox, manifest=manifest, now=now)


def _tell(
    found: Findings, *, outbox: Outbox, manifest: Manifest, around: Callable[[], Surroundings], now: dt.datetime
) -> None:
    """Write what is new of it; most of the time nothing is, and nothing is written."""
    location = manifest.location.name
    alerts = outbox.open_alerts()
    told = {name for alert in alerts if alert.location == location for name in alert.failing}
    wrong = [alert for name, alert in found.late.items() if f"{LATE}{name}" not in told]
    old = [each for each in found.old if each.called not in told]
    if old:
        known = Known.of(alerts).and_also(workstreams=found.late)
        wrong += _alerts(old, known=known, outbox=outbox, manifest=manifest, around=around(), now=now)
    if wrong or not told.isdisjoint(found.well):
        seen = Seen(mark=None, location=location, wrong=tuple(wrong), well=found.well, told_by="the clock")
        outbox.record(seen, recovery=told_of_recovery)


def _watch_schedule(
    instance: dg.DagsterInstance,
    workstream: WorkstreamSpec,
    manifest: Manifest,
    progress: Progress,
    found: Findings,
    now: dt.datetime,
) -> None:
    after = _shortest(manifest, workstream.name, "late_after")
    due = None if after is None else _due(workstream, before=now - after)
    # What was due before anybody watched is not told.
    if due is None or due.timestamp() < progress.began:
        return
    succeeded = dg.RunsFilter(
        job_name=translation.job_name(workstream.name), statuses=[dg.DagsterRunStatus.SUCCESS], created_after=due
    )
    name = f"{LATE}{workstream.name}"
    if instance.get_run_records(succeeded, limit=1):
        found.well[name] = now
        return
    owners = tuple(workstream.owners)
    routed = route(manifest.alerts, event=AlertEvent.LATE, workstream=workstream.name, owners=owners, now=now)
    found.late[workstream.name] = NewAlert(
        key=f"late/{workstream.name}",
        location=manifest.location.name,
        workstream=workstream.name,
        event=AlertEvent.LATE,
        told=told_late(workstream.name, due, now=now, owners=owners, severity=routed.severity),
        routes=routed.routes,
        failing={name: now},
        owners=owners,
    )


def _due(workstream: WorkstreamSpec, *, before: dt.datetime) -> dt.datetime | None:
    """The last time before a moment at which the schedule meant to run."""
    schedule = workstream.schedule
    if schedule is None:
        return None
    times = reverse_cron_string_iterator(before.timestamp(), schedule.cron, schedule.timezone)
    for _, moment in zip(range(_MOST_TICKS), times, strict=False):
        if moment <= before:
            return moment.astimezone(dt.UTC)
    return None


def _watch_tables(instance: dg.DagsterInstance, manifest: Manifest, found: Findings, now: dt.datetime) -> None:
    """Tables that nothing has built for longer than they are expected to be fresh.

    That a load found nothing new is what the expectation itself says, when it is looked at after the load.
    """
    asked = {rule.workstream for rule in manifest.alerts if AlertEvent.LATE in rule.events}
    tables: list[IngestionSpec | ProcessingSpec] = [*manifest.ingestions, *manifest.steps]
    specs = [
        (spec, limit)
        for spec in tables
        if spec.workstream in asked
        and not spec.paused
        and (limit := min((each.fresh for each in spec.expectations if each.fresh), default=None))
    ]
    ages = data_ages(instance, [spec.ref for spec, _ in specs]) if specs else ()
    for (spec, limit), shown in zip(specs, ages, strict=True):
        owners = tuple(translation.owners(spec.owners, manifest.workstream(spec.workstream)))
        _weigh(Old(event=AlertEvent.LATE, shown=shown, owners=owners), limit, found, now)


def _watch_dashboards(instance: dg.DagsterInstance, manifest: Manifest, found: Findings, now: dt.datetime) -> None:
    specs = [
        (spec, limit)
        for spec in manifest.refreshes
        if not spec.paused and (limit := _shortest(manifest, spec.workstream, "stale_after"))
    ]
    ages = data_ages(instance, [spec.ref for spec, _ in specs]) if specs else ()
    for (spec, limit), shown in zip(specs, ages, strict=True):
        owners = tuple(translation.owners(spec.owners, manifest.workstream(spec.workstream)))
        _weigh(Old(event=AlertEvent.STALE, shown=shown, owners=owners), limit, found, now)


def _weigh(each: Old, limit: dt.timedelta, found: Findings, now: dt.datetime) -> None:
    # What was never built has no age.
    if each.shown.as_of is None:
        return
    if now - each.shown.as_of <= limit:
        found.well[each.called] = now
    else:
        found.old.append(each)


def _alerts(
    old: Sequence[Old],
    *,
    known: Known,
    outbox: Outbox,
    manifest: Manifest,
    around: Surroundings,
    now: dt.datetime,
) -> list[NewAlert]:
    """Alerts about what is old; those who are told of what made it old are not told of it once more."""
    about = known.and_also(tables=[each.shown.ref for each in old if each.event is AlertEvent.LATE])
    groups: dict[tuple[AlertEvent, str], list[tuple[Old, Routed]]] = {}
    for each in old:
        ref = each.shown.ref
        reasons = known.explaining([ref]) | about.explaining(around.upstream([ref]))
        # Who hears of a reason that this very look is about to write, the next look knows.
        if UNWRITTEN in reasons:
            continue
        routed = route(manifest.alerts, event=each.event, workstream=ref.workstream, owners=each.owners, now=now)
        if reasons:
            heard = outbox.channels_of(reasons)
            routed = replace(routed, routes=tuple(way for way in routed.routes if way.channel not in heard))
        if routed.routes or not reasons:
            groups.setdefault((each.event, ref.workstream), []).append((each, routed))
    made = []
    for group in groups.values():
        parts = [[each] for each in group] if len(group) <= MOST_CAUSES else [group]
        made += [_alert(part, location=manifest.location.name, now=now) for part in parts]
    return made


def _alert(part: Sequence[tuple[Old, Routed]], *, location: str, now: dt.datetime) -> NewAlert:
    """One alert about one table or dashboard, or about many of one workstream."""
    first, routed = part[0]
    ref = first.shown.ref
    owners = tuple(dict.fromkeys(owner for each, _ in part for owner in each.owners))
    told = told_stale if first.event is AlertEvent.STALE else told_late_tables
    return NewAlert(
        key=f"{first.event}/{ref if len(part) == 1 else f'{ref.workstream}/many'}",
        location=location,
        workstream=ref.workstream,
        event=first.event,
        told=told([each.shown for each, _ in part], now=now, owners=owners, severity=routed.severity),
        routes=tuple({way.channel: way for _, each in part for way in each.routes}.values()),
        failing={each.called: now for each, _ in part},
        owners=owners,
    )


def _shortest(manifest: Manifest, workstream: str, field: str) -> dt.timedelta | None:
    own: list[AlertRule] = [rule for rule in manifest.alerts if rule.workstream == workstream]
    spans = [span for rule in own if (span := getattr(rule, field)) is not None]
    return min(spans, default=None)


def _tell_of_applies(progress: Progress, *, outbox: Outbox, manifest: Manifest, now: dt.datetime) -> None:
    """Tell of applies that changed something of this location since the last look."""
    # Their columns are derived from every spec: only the sensor needs them, and step processes build definitions, too.
    from platform_core.control.store.tables import applies, history

    location = manifest.location.name
    newest = sa.select(sa.func.coalesce(sa.func.max(applies.c.serial), 0))
    last = outbox.database.transact(lambda connection: int(connection.execute(newest).scalar_one()))
    if progress.serial is None or last == progress.serial:
        progress.serial = last
        return
    since = progress.serial
    query = (
        sa.select(
            applies.c.serial,
            applies.c.author,
            applies.c.applied_at,
            applies.c.release,
            history.c.workstream,
            history.c.change,
            sa.func.count().label("rows"),
        )
        .join(history, history.c.serial == applies.c.serial)
        .where(applies.c.serial > since, history.c.location == location)
        .group_by(
            applies.c.serial,
            applies.c.author,
            applies.c.applied_at,
            applies.c.release,
            history.c.workstream,
            history.c.change,
        )
        .order_by(applies.c.serial)
    )
    rows = outbox.database.transact(lambda connection: connection.execute(query).all())
    for serial in sorted({row.serial for row in rows}):
        own = [row for row in rows if row.serial == serial]
        wrong = []
        for workstream in manifest.location.workstreams:
            counts: dict[str, int] = {}
            for row in own:
                if row.workstream in (None, workstream.name):
                    counts[row.change] = counts.get(row.change, 0) + row.rows
            routed = route(
                manifest.alerts,
                event=AlertEvent.DEPLOY,
                workstream=workstream.name,
                owners=tuple(workstream.owners),
                now=now,
            )
            if counts and routed.routes:
                told = told_deployed(
                    serial,
                    author=own[0].author,
                    at=own[0].applied_at,
                    release=own[0].release,
                    counts=counts,
                    severity=routed.severity,
                )
                wrong.append(
                    NewAlert(
                        key=f"deploy/{workstream.name}/{serial}",
                        location=location,
                        workstream=workstream.name,
                        event=AlertEvent.DEPLOY,
                        told=told,
                        routes=routed.routes,
                        passing=True,
                    )
                )
        seen = Seen(mark=f"deploy/{location}/{serial}", location=location, wrong=tuple(wrong))
        outbox.record(seen, recovery=told_of_recovery)
    progress.serial = last
