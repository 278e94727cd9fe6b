"""What a person may ask of a run, and what is refused before anything starts."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from platform_core.errors import ConfigError
from platform_core.operations.run_options import RunOptions, Window, run_options

NOW = dt.datetime(2026, 2, 3, 4, 5, tzinfo=dt.UTC)


def asked(**given: Any) -> RunOptions:
    return run_options(**{"run": None, "full_refresh": False, "since": None, "until": None, "now": NOW} | given)


def utc(year: int, month: int, day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime(year, month, day, hour, tzinfo=dt.UTC)


def test_nothing_is_asked_of_an_ordinary_run() -> None:
    assert asked() == RunOptions()
    assert asked(run="a", full_refresh=True) == RunOptions(run="a", full_refresh=True)


@pytest.mark.parametrize(
    ("since", "until", "window"),
    [
        ("2026-01-31", "2026-02-01", Window(start=utc(2026, 1, 31), end=utc(2026, 2, 1))),
        ("2026-01-31", None, Window(start=utc(2026, 1, 31), end=NOW)),
        ("2026-01-31T12:00+01:00", "2026-01-31T12:00", Window(start=utc(2026, 1, 31, 11), end=utc(2026, 1, 31, 12))),
    ],
)
def test_a_range_begins_and_ends_at_moments_of_utc(since: str, until: str | None, window: Window) -> None:
    assert asked(since=since, until=until).window == window


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"since": "yesterday"}, "run config: 'since' is no date or time: 'yesterday'\n  write it such as 2026-01-31"),
        ({"since": "2026-01-01", "until": "2026-13-01"}, "'until' is no date or time"),
        ({"since": "0001-01-01T00:00+23:00"}, "'since' is no date or time"),
        ({"until": "2026-01-01"}, "'until' needs 'since'"),
        ({"since": "2026-02-01", "until": "2026-02-01"}, "is empty\n  'until' is the first moment after it"),
        ({"since": "2027-01-01"}, "is empty"),
        ({"since": "2026-01-01", "full_refresh": True}, "full refresh and a range exclude each other"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        asked(**given)
    assert said in str(caught.value)
