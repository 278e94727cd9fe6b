"""Cron fields and time zones: what is taken here must be taken by Dagster too."""

from __future__ import annotations

import pytest
from dagster._utils.schedules import is_valid_cron_schedule
from hypothesis import given
from hypothesis import strategies as st

from platform_core.control.report import Report
from platform_core.control.schedules import cron_fault, time_zone_fault

part = st.one_of(
    st.sampled_from(
        ["*", "*/5", "1-3", "2-8/2", "mon", "jan-mar", "7", "59", "60", "0", "31", "5/2", "a", "", "L", "?", "-1"]
    ),
    st.integers(0, 70).map(str),
)
field = st.lists(part, min_size=1, max_size=3).map(",".join)


@given(st.lists(field, min_size=4, max_size=6).map(" ".join))
def test_what_is_taken_here_is_taken_by_dagster(cron: str) -> None:
    if cron_fault(cron) is None:
        assert is_valid_cron_schedule(cron)


@pytest.mark.parametrize(
    "cron",
    [
        "0 6 * * *",
        "*/15 * * * *",
        "0 0 1 1 *",
        "30 5 * * 1-5",
        "0 0 29 2 *",
        "0 8,20 * * mon,FRI",
        "0 0 31 2 1",
        "5 4 * * 7",
    ],
)
def test_usual_schedules_are_taken(cron: str) -> None:
    assert cron_fault(cron) is None


@pytest.mark.parametrize(
    ("cron", "fault"),
    [
        ("", "cron '' has 0 fields; five are needed: minute hour day month weekday"),
        ("@daily", "cron '@daily' has 1 fields; five are needed: minute hour day month weekday"),
        ("0 0 6 * * *", "cron '0 0 6 * * *' has 6 fields; five are needed: minute hour day month weekday"),
        ("60 * * * *", "cron minute '60': must be 0 to 59"),
        ("* 24 * * *", "cron hour '24': must be 0 to 23"),
        ("* * 0 * *", "cron day of month '0': must be 1 to 31"),
        ("* * * 13 *", "cron month '13': must be 1 to 12 or jan to dec"),
        ("* * * * 8", "cron day of week '8': must be 0 to 7 or sun to sat"),
        ("* * * * monday", "cron day of week 'monday': write *, 5, 1-5, */15 or a list of these"),
        ("*/0 * * * *", "cron minute '*/0': a step must be 1 to 59"),
        ("5/10 * * * *", "cron minute '5/10': write a step as 5-59/10"),
        ("0 22-2 * * *", "cron hour '22-2': a range goes upwards; write the two parts as a list"),
        ("0 0 30 feb *", "cron '0 0 30 feb *' never comes: no such day in these months"),
        ("0 0 31 4,6 *", "cron '0 0 31 4,6 *' never comes: no such day in these months"),
    ],
)
def test_nonsense_is_told(cron: str, fault: str) -> None:
    assert cron_fault(cron) == fault


@pytest.mark.parametrize("name", ["UTC", "Europe/Amsterdam", "America/New_York"])
def test_time_zones_are_taken(name: str) -> None:
    assert time_zone_fault(name, Report()) is None


@pytest.mark.parametrize(
    "name", ["Europe", "Europe/Amsterdm", "../../etc/passwd", "/etc/localtime", "", "a\0b", "x" * 5000]
)
def test_other_names_are_no_time_zones(name: str) -> None:
    found = time_zone_fault(name, Report())
    assert found is not None
    assert found[0].startswith("unknown time zone")
