"""Looks for what should have happened and did not: late workstreams, stale dashboards; and tells of deployments."""

import datetime as dt
from typing import Protocol

import dagster as dg
import sqlalchemy as sa
from dagster._utils.schedules import reverse_cron_string_iterator

from platform_core.control.alert_records import NewAlert, Seen
from platform_core.control.outbox import Outbox
from platform_core.factories import translation
from platform_core.factories.run_facts import data_ages
from platform_core.operations.alerts.facts import ShownDashboard
from platform_core.operations.alerts.routing import route
from platform_core.operations.alerts.wording import told_deployed, told_late, told_of_recovery, told_stale
from platform_core.specs.alerts import AlertEvent, AlertRule
from platform_core.specs.environment import EnvironmentSpec
from platform_core.specs.location import WorkstreamSpec
from platform_core.specs.manifest import Manifest
from platform_core.specs.refresh import RefreshSpec

_MOST_TICKS = 100


class Progress(Protocol):
    """The part of the sensor's cursor that is read and moved here."""

    began: float
    serial: int | None


def watch(
    instance: dg.DagsterInstance,
    progress: Progress,
    *,
    outbox: Outbox,
    manifest: Manifest,
    environment: EnvironmentSpec,
    now: dt.datetime,
) -> None:
    """Write what is late, stale or deployed, and close what no longer is.

    Raises:
        ControlError: the control database is away.
    """
    events = {event for rule in manifest.alerts for event in rule.events}
    wrong: list[NewAlert] = []
    well: dict[str, dt.datetime] = {}
    if AlertEvent.LATE in events and environment.schedules:
        for workstream in manifest.location.workstreams:
            _watch_schedule(instance, workstream, manifest, progress, wrong, well, now)
    if AlertEvent.STALE in events:
        _watch_dashboards(instance, manifest, wrong, well, now)
    still = {alert.key for alert in outbox.open_alerts(location=manifest.location.name)} if wrong or well else set()
    wrong = [alert for alert in wrong if alert.key not in still]
    # Most of the time nothing has changed, and nothing is written.
    if wrong or any(name.replace(":", "/", 1) in still for name in well):
        seen = Seen(mark=None, location=manifest.location.name, wrong=tuple(wrong), well=well, told_by="the clock")
        outbox.record(seen, recovery=told_of_recovery)
    if AlertEvent.DEPLOY in events:
        _tell_of_applies(progress, outbox=outbox, manifest=manifest, now=now)


def _watch_schedule(
    instance: dg.DagsterInstance,
    workstream: WorkstreamSpec,
    manifest: Manifest,
    progress: Progress,
    wrong: list[NewAlert],
    well: dict[str, dt.datetime],
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
    name = f"late:{workstream.name}"
    if instance.get_run_records(succeeded, limit=1):
        well[name] = now
        return
    owners = tuple(workstream.owners)
    routed = route(manifest.alerts, event=AlertEvent.LATE, workstream=workstream.name, owners=owners, now=now)
    wrong.append(
        NewAlert(
            key=f"late/{workstream.name}",
            location=manifest.location.name,
            workstream=workstream.name,
            event=AlertEvent.LATE,
            told=told_late(workstream.name, due, now=now, owners=owners, severity=routed.severity),
            routes=routed.routes,
            failing={name: now},
            owners=owners,
        )
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


def _watch_dashboards(
    instance: dg.DagsterInstance,
    manifest: Manifest,
    wrong: list[NewAlert],
    well: dict[str, dt.datetime],
    now: dt.datetime,
) -> None:
    limits = {spec.ref: _shortest(manifest, spec.workstream, "stale_after") for spec in manifest.refreshes}
    watched = [spec for spec in manifest.refreshes if limits[spec.ref] is not None]
    shown = data_ages(instance, [spec.ref for spec in watched])
    for spec, dashboard in zip(watched, shown, strict=True):
        limit, name = limits[spec.ref], f"stale:{spec.ref}"
        if dashboard.as_of is None or limit is None:
            continue
        if now - dashboard.as_of <= limit:
            well[name] = now
        else:
            wrong.append(_stale(spec, dashboard, manifest, now))


def _stale(spec: RefreshSpec, dashboard: ShownDashboard, manifest: Manifest, now: dt.datetime) -> NewAlert:
    owners = tuple(translation.owners(spec.owners, manifest.workstream(spec.workstream)))
    routed = route(manifest.alerts, event=AlertEvent.STALE, workstream=spec.workstream, owners=owners, now=now)
    return NewAlert(
        key=f"stale/{spec.ref}",
        location=manifest.location.name,
        workstream=spec.workstream,
        event=AlertEvent.STALE,
        told=told_stale(dashboard, now=now, owners=owners, severity=routed.severity),
        routes=routed.routes,
        failing={f"stale:{spec.ref}": now},
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
