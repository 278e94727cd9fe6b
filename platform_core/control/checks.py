"""Everything that is checked about a location once its files are read."""

from __future__ import annotations

from platform_core.control.dbt_projects import read_dbt_projects
from platform_core.control.ingestion_checks import check_ingestions
from platform_core.control.plugin_options import check_plugin_options
from platform_core.control.reading import Reading
from platform_core.control.references import Tables, check_references
from platform_core.control.report import Report
from platform_core.control.schedules import cron_fault, time_zone_fault
from platform_core.control.steps import check_steps


def check_reading(reading: Reading, report: Report) -> Tables:
    """Check plug-in options, schedules, steps, dbt projects and references of one location.

    Returns:
        What the location makes and reads, to be checked against other locations.
    """
    check_plugin_options(reading, report)
    check_ingestions(reading, report)
    _check_schedules(reading, report)
    check_steps(reading, report)
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
