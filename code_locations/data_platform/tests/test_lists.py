"""The lists that come with this location can be loaded as they are."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

import data_platform

LISTS = Path(data_platform.__file__).parent / "data"


def test_each_holiday_is_one_day() -> None:
    with (LISTS / "public_holidays.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    dates = [dt.date.fromisoformat(row["holiday_date"]) for row in rows]
    assert dates == sorted(set(dates))
    assert all(row["holiday"].strip() for row in rows)


def test_holidays_fall_on_working_days() -> None:
    """One that falls on a weekend is observed on the Friday or Monday beside it."""
    with (LISTS / "public_holidays.csv").open(newline="", encoding="utf-8") as file:
        assert all(dt.date.fromisoformat(row["holiday_date"]).weekday() < 5 for row in csv.DictReader(file))
