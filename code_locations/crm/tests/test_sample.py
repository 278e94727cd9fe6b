"""The made-up riders are the same every time, and could not be anyone."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from crm.sample import lay_out, personal_values


def _rows(folder: Path, table: str) -> dict[int, dict[str, Any]]:
    with closing(sqlite3.connect(folder / "crm.db")) as connection:
        connection.row_factory = sqlite3.Row
        return {row[0]: dict(row) for row in connection.execute(f"select * from {table}")}


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folders = {day: tmp_path_factory.mktemp(f"day{day}") for day in (1, 2)}
    for day, folder in folders.items():
        lay_out(folder, day=day)
    return folders


@pytest.mark.parametrize("day", [1, 2])
def test_same_day_gives_the_same_rows(day: int, days: dict[int, Path], tmp_path: Path) -> None:
    lay_out(tmp_path, day=day)
    for table in ("riders", "rentals"):
        assert _rows(tmp_path, table) == _rows(days[day], table)


def test_seed_gives_the_riders_that_it_always_gave(days: dict[int, Path]) -> None:
    """Python may not change what a seed draws, or yesterday's lake would not fit today's source."""
    riders = _rows(days[1], "riders")
    assert (riders[1001]["membership"], riders[1400]["membership"]) == ("corporate", "monthly")
    assert sum(row["duration_minutes"] for row in _rows(days[1], "rentals").values()) == 106_678


def test_addresses_and_numbers_cannot_belong_to_anyone(days: dict[int, Path]) -> None:
    for folder in days.values():
        for rider in _rows(folder, "riders").values():
            assert re.fullmatch(r"[a-z.]+@example\.(com|org|net)", rider["email"])
            assert re.fullmatch(r"\+1-\d{3}-555-01\d\d", rider["phone"])


def test_names_addresses_and_numbers_are_unique(days: dict[int, Path]) -> None:
    for folder in days.values():
        riders = _rows(folder, "riders").values()
        for column in ("name", "email", "phone"):
            assert len({rider[column] for rider in riders}) == len(riders)


def test_every_rental_has_a_rider_on_day_one(days: dict[int, Path]) -> None:
    emails = {rider["email"] for rider in _rows(days[1], "riders").values()}
    assert {rental["rider_email"] for rental in _rows(days[1], "rentals").values()} <= emails


def test_day_two_changes_what_the_readme_says(days: dict[int, Path]) -> None:
    first, second = _rows(days[1], "riders"), _rows(days[2], "riders")
    kept = first.keys() & second.keys()
    assert (len(first), len(second)) == (400, 406)
    assert len(first.keys() - second.keys()) == 6
    assert len(second.keys() - first.keys()) == 12
    changed = [name for key in kept for name in first[key] if first[key][name] != second[key][name]]
    assert (changed.count("email"), changed.count("phone"), len(changed)) == (8, 5, 13)


def test_new_address_reaches_the_old_rentals(days: dict[int, Path]) -> None:
    first, second = _rows(days[1], "rentals"), _rows(days[2], "rentals")
    moved = {key for key, row in first.items() if second[key]["rider_email"] != row["rider_email"]}
    assert moved
    assert {second[key]["updated_at"] for key in moved} == {"2013-01-02T05:00:00"}
    assert {key for key, row in first.items() if second[key] != row} == moved
    assert len(second) - len(first) == 160


def test_personal_values_are_those_of_both_days(days: dict[int, Path]) -> None:
    expected = {
        row[name]
        for folder in days.values()
        for row in _rows(folder, "riders").values()
        for name in ("name", "email", "phone")
    }
    # Compared as a boolean: a failure must not print them.
    same = personal_values() == expected
    assert same


def test_unknown_day_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="day 1 and day 2, not 3"):
        lay_out(tmp_path, day=3)
