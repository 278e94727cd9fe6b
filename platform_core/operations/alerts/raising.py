"""Writes the alerts of a finished run to the outbox, and closes those whose cause is gone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence

from platform_core.control.alert_records import NewAlert, Recorded, Seen, Told
from platform_core.control.outbox import Outbox
from platform_core.operations.alerts.causes import Cause, causes_of, merged, refused_its_inputs
from platform_core.operations.alerts.facts import FinishedRun, ShownDashboard, Surroundings
from platform_core.operations.alerts.known import Known
from platform_core.operations.alerts.routing import Routed, route
from platform_core.operations.alerts.wording import told_again, told_of_cause, told_of_recovery
from platform_core.specs.alerts import AlertRule, AlertsSpec
from platform_core.specs.table import TableRef

STORM = 10
"""So many alerts of a workstream within :data:`STORM_TIME`: what comes on top is told as one."""

STORM_TIME = dt.timedelta(minutes=10)

Ages = Callable[[Sequence[TableRef]], Sequence[ShownDashboard]]
"""Finds how old the data is that dashboards show."""

_MOST_DASHBOARDS = 20


def raise_alerts(
    run: FinishedRun,
    *,
    outbox: Outbox,
    rules: Sequence[AlertRule],
    alerts: AlertsSpec | None,
    around: Callable[[], Surroundings],
    ages: Ages,
    now: dt.datetime,
    retried: bool = False,
) -> Recorded | None:
    """Write what one finished run tells; a run that was looked at before is left alone.

    Args:
        rules: of the run's location.
        alerts: of the environment; None: only the log of steps is written.
        around: what lies around the tables; asked only where something went wrong.
        ages: asked for the dashboards that a cause reaches.
        now: UTC.
        retried: whether another run does the same again: what it comes to counts.

    Raises:
        ControlError: the control database is away; nothing was written.
    """
    wrong: list[NewAlert] = []
    if (
        alerts is not None
        and not retried
        and not run.cancelled
        and (not run.succeeded or any(not check.passed for check in run.checks))
    ):
        surroundings = around()
        still = outbox.open_alerts()
        found = causes_of(run, around=surroundings, known=Known.of(still))
        for cause in _unless_storm(found, known={alert.key for alert in still}, outbox=outbox, now=now):
            wrong.append(_alert(cause, run, rules=rules, alerts=alerts, around=surroundings, ages=ages, now=now))
    well = {str(ref): at for ref, at in run.built.items()}
    well |= {check.called: check.at for check in run.checks if check.passed}
    broken = {name for alert in wrong for name in alert.failing}
    seen = Seen(
        mark=run.run_id,
        location=run.location,
        wrong=tuple(wrong),
        well={name: at for name, at in well.items() if name not in broken} if alerts is not None else {},
        jobs={run.job: run.ended_at} if run.succeeded and alerts is not None else {},
        steps=run.steps,
        told_by=f"run {run.run_id}",
    )
    return outbox.record(seen, recovery=told_of_recovery)


def is_unexplained(run: FinishedRun, *, outbox: Outbox, around: Callable[[], Surroundings]) -> bool:
    """Whether something in a run refused its inputs, and no open alert says what is the matter with these.

    The alert may come yet: from a location that has not looked at its own run.

    Args:
        around: as of :func:`raise_alerts`; asked only where something refused.

    Raises:
        ControlError: the control database is away.
    """
    refused = [step for step in run.failed if refused_its_inputs(step)]
    if not refused:
        return False
    others = (ref for step in run.failed if step not in refused for ref in step.makes)
    known, surroundings = Known.of(outbox.open_alerts()).and_also(tables=others), around()
    return any(not known.explains(step.makes, around=surroundings) for step in refused)


def remind(*, outbox: Outbox, rules: Sequence[AlertRule], location: str, now: dt.datetime) -> list[str]:
    """Tell again of open alerts whose rules want to hear of them after some time.

    Returns:
        References of the alerts.
    """
    if not any(rule.remind for rule in rules):
        return []
    reminded = []
    for alert in outbox.open_alerts(location=location):
        routed = route(rules, event=alert.event, workstream=alert.workstream, owners=alert.owners, now=now)
        if routed.remind is None or now - alert.told_at < routed.remind:
            continue
        since = now - routed.remind
        told = told_again(alert, now)
        if outbox.tell_again(alert.id, told, routed.routes, kind="reminder", unless_told_since=since):
            reminded.append(alert.reference)
    return reminded


def _unless_storm(causes: list[Cause], *, known: Collection[str], outbox: Outbox, now: dt.datetime) -> list[Cause]:
    """The causes, or one for all of a workstream of which too much was told within a short time.

    Args:
        known: causes that are told already.
    """
    kept = [cause for cause in causes if cause.key in known]
    for workstream in dict.fromkeys(cause.workstream for cause in causes):
        new = [cause for cause in causes if cause.workstream == workstream and cause.key not in known]
        if new:
            recent = outbox.opened_since(workstream, now - STORM_TIME)
            kept += new if recent + len(new) <= STORM else [merged(new)]
    return kept


def _alert(
    cause: Cause,
    run: FinishedRun,
    *,
    rules: Sequence[AlertRule],
    alerts: AlertsSpec,
    around: Surroundings,
    ages: Ages,
    now: dt.datetime,
) -> NewAlert:
    owners = around.owners_of(cause.refs or cause.skipped)
    routed: Routed = route(
        rules, event=cause.event, workstream=cause.workstream, owners=owners, now=now, minor=cause.minor
    )
    shown = ages(cause.dashboards[:_MOST_DASHBOARDS]) if cause.dashboards else ()
    others = around.owners_of(cause.dashboards)
    told: Told = told_of_cause(
        cause,
        run,
        dashboards=shown,
        owners=tuple(dict.fromkeys((*owners, *others))),
        severity=routed.severity,
        link=alerts.run_url(run.run_id),
    )
    return NewAlert(
        key=cause.key,
        location=run.location,
        workstream=cause.workstream,
        event=cause.event,
        told=told,
        routes=routed.routes,
        failing=cause.failed,
        kind_of_reason=cause.error_class,
        job=cause.job,
        run_id=run.run_id,
        owners=owners,
    )
