"""Checks rules for alerts: hours, time zones and owners here, channels against every environment that has any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from platform_core.control.documents import read_document
from platform_core.control.environment import environment_names
from platform_core.control.reading import Reading
from platform_core.control.report import Report, excerpt
from platform_core.control.schedules import time_zone_fault
from platform_core.settings import Settings
from platform_core.specs.alerts import AlertEvent
from platform_core.specs.ingestion import IngestionSpec
from platform_core.specs.processing import ProcessingSpec


def check_alert_rules(reading: Reading, report: Report) -> None:
    """Check what one location's own files can tell."""
    scheduled = {entry.spec.name for entry in reading.workstreams if entry.spec.schedule is not None}
    tables: list[IngestionSpec | ProcessingSpec] = [entry.spec for entry in reading.ingestions]
    tables += [entry.spec for entry in reading.steps]
    fresh = {spec.workstream for spec in tables if any(each.fresh for each in spec.expectations)}
    # What could not be read may say so.
    whole = not reading.damaged and reading.unread.isdisjoint({"ingestion", "processing"})
    dashboards = {entry.spec.workstream for entry in reading.refreshes}
    for entry in reading.alerts:
        rule = entry.spec
        if rule.quiet_hours is not None and (fault := time_zone_fault(rule.quiet_hours.timezone, report)):
            entry.complain(report, ("quiet_hours", "timezone"), fault[0], *fault[1])
        if rule.late_after is not None and rule.workstream not in scheduled:
            message = f"workstream '{rule.workstream}' has no schedule, so no run of it can be late"
            hint = "give it one in control/location.yaml, or leave 'late_after' out"
            entry.complain(report, ("late_after",), message, hint)
        elif AlertEvent.LATE in rule.events and rule.late_after is None and whole and rule.workstream not in fresh:
            message = "'late_after' is missing: event late needs it, or a table that says how fresh it is to be"
            entry.complain(report, ("events",), message, "write late_after: 1 hours, or 'fresh' among the expectations")
        if AlertEvent.STALE in rule.events and rule.workstream not in dashboards and "refresh" not in reading.unread:
            message = f"workstream '{rule.workstream}' has no dashboard, so none of it can be stale"
            entry.complain(report, ("events",), message, "leave 'stale' out")


def check_channels(readings: Sequence[Reading], settings: Settings, report: Report) -> None:
    """Check that every environment that has channels has those that rules name.

    A rule holds for all environments; one without channels sends nothing and so lacks none.
    """
    rules = [entry for reading in readings for entry in reading.alerts]
    if not rules:
        return
    for environment, channels in _channels(settings):
        for entry in rules:
            for index, name in enumerate(entry.spec.channels):
                if name not in channels:
                    hints = report.choice(f"channels of environment '{environment}'", name, channels)
                    message = f"unknown channel '{excerpt(name)}' in environment '{environment}'"
                    entry.complain(report, ("channels", index), message, *hints)


def _channels(settings: Settings) -> Iterator[tuple[str, list[str]]]:
    """Environments that have channels, with the names of these; what else is wrong with a file is told elsewhere."""
    for name in environment_names(settings):
        unheard = Report(settings.project)
        document = read_document(settings.environments / f"{name}.yaml", unheard, example="lake: {root: lake}")
        alerts = document.value.get("alerts") if document else None
        channels = alerts.get("channels") if isinstance(alerts, dict) else None
        if isinstance(channels, dict):
            yield name, [str(each) for each in channels]
