"""Everything that is checked about a location once its files are read."""

from __future__ import annotations

from platform_core.control.alert_rules import check_alert_rules
from platform_core.control.dbt_projects import DbtModels, read_dbt_projects
from platform_core.control.expectation_checks import check_expectations
from platform_core.control.external_assets import check_external_assets
from platform_core.control.ingestion_checks import check_ingestions
from platform_core.control.plugin_options import check_plugin_options
from platform_core.control.reading import Reading
from platform_core.control.references import Tables, check_references
from platform_core.control.report import Report
from platform_core.control.schedules import cron_fault, time_zone_fault
from platform_core.control.steps import check_steps


def check_reading(reading: Reading, report: Report, *, files: bool = True) -> Tables:
    """Check plug-in options, schedules, steps, dbt projects and references of one location.

    Args:
        files: whether the location's package is here, so that queries, functions and dbt projects can be looked into.

    Returns:
        What the location makes and reads, to be checked against other locations.
    """
    check_plugin_options(reading, report)
    check_ingestions(reading, report)
    check_external_assets(reading, report)
    _check_schedules(reading, report)
    if not files:
        return check_references(reading, [DbtModels(entry, known=False) for entry in reading.dbt], report)
    check_steps(reading, report)
    check_expectations(reading, report)
    check_alert_rules(reading, report)
    return check_references(reading, read_dbt_projects(reading, report), report)


def _check_schedules(reading: Reading, report: Report) -> None:
    for entry in reading.workstreams:
        schedule = entry.spec.schedule
        if schedule is None:
            continue
        if fault := cron_fault(schedule.cron):
            entry.complain(report, ("schedule", "cron"), fault, 'an example: "0 6 * * *" is every day at six')
        if unknown := time_zone_fault(schedule.timezone, report):
            entry.complain(report, ("schedule", "timezone"), unknown[0], *unknown[1])
