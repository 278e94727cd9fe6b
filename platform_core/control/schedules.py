"""Checks cron fields and time zones before Dagster sees them."""

from __future__ import annotations

import re
import zoneinfo

from platform_core.control.report import Report, excerpt

_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_PART = re.compile(r"(?:(\*)|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?")
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


def cron_fault(cron: str) -> str | None:
    """What is wrong with five cron fields, in one line; None if nothing is."""
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        return f"cron '{excerpt(cron)}' has {len(fields)} fields; five are needed: minute hour day month weekday"
    values = []
    for text, (what, low, high, names) in zip(fields, _FIELDS, strict=True):
        found = _field(text.lower(), low, high, names)
        if isinstance(found, str):
            return f"cron {what} '{excerpt(text)}': {found}"
        values.append(found)
    _, _, days, months, _ = values
    # With a weekday given, cron runs on either of the two.
    if fields[4] == "*" and not any(min(days) <= _LONGEST_MONTH.get(month, 31) for month in months):
        return f"cron '{excerpt(cron)}' never comes: no such day in these months"
    return None


def time_zone_fault(name: str, report: Report) -> tuple[str, tuple[str, ...]] | None:
    """What is wrong with the name of a time zone, and hints; None if nothing is."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hints = report.did_you_mean(name, zoneinfo.available_timezones())
        return f"unknown time zone '{excerpt(name)}'", hints or ("use a name such as Europe/Amsterdam or UTC",)
    return None


def _field(text: str, low: int, high: int, names: tuple[str, ...]) -> set[int] | str:
    """The numbers that one field stands for, or what is wrong with it."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return "write *, 5, 1-5, */15 or a list of these"
        every, first, last, step = match.groups()
        if step is not None and (int(step) == 0 or int(step) > high):
            return f"a step must be 1 to {high}"
        if every:
            start, end = low, high
        else:
            ends = [_number(word, low, names) for word in (first, last or first)]
            if None in ends or not all(low <= end <= high for end in ends if end is not None):
                return f"must be {low} to {high}" + (f" or {names[0]} to {names[-1]}" if names else "")
            start, end = (end for end in ends if end is not None)
            if start > end:
                return "a range goes upwards; write the two parts as a list"
            if step is not None and last is None:
                return f"write a step as {part.partition('/')[0]}-{high}/{step}"
        numbers.update(range(start, end + 1, int(step or 1)))
    return numbers


def _number(word: str, low: int, names: tuple[str, ...]) -> int | None:
    if word.isdigit():
        return int(word)
    return names.index(word) + low if word in names else None
