"""What each kind of expectation means, in plain Python over rows as dictionaries."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


def same(value: Any) -> Any:
    """What equal values have in common: every NaN is the same, and so are 0 and -0."""
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def not_null(rows: Sequence[Row], columns: Sequence[str]) -> tuple[int, list[int]]:
    """Rows looked at, and places of those that fail."""
    return len(rows), [at for at, row in enumerate(rows) if any(row[name] is None for name in columns)]


def unique(rows: Sequence[Row], columns: Sequence[str]) -> tuple[int, list[int]]:
    """Rows looked at, and places of those that fail."""
    keys = {
        at: tuple(same(row[name]) for name in columns)
        for at, row in enumerate(rows)
        if all(row[name] is not None for name in columns)
    }
    times = Counter(keys.values())
    return len(keys), [at for at, key in keys.items() if times[key] > 1]


def each(rows: Sequence[Row], column: str, holds: Callable[[Any], bool]) -> tuple[int, list[int]]:
    """Rows looked at, and places of those that fail, where nulls are left out."""
    there = [(at, row[column]) for at, row in enumerate(rows) if row[column] is not None]
    return len(there), [at for at, value in there if not holds(value)]


def accepted(rows: Sequence[Row], column: str, values: Sequence[Any]) -> tuple[int, list[int]]:
    return each(rows, column, lambda value: same(value) in [same(known) for known in values])


def within(rows: Sequence[Row], column: str, low: float, high: float) -> tuple[int, list[int]]:
    return each(rows, column, lambda value: not math.isnan(value) and low <= value <= high)


def matching(rows: Sequence[Row], column: str, pattern: str) -> tuple[int, list[int]]:
    return each(rows, column, lambda value: re.fullmatch(pattern, value) is not None)


def known(rows: Sequence[Row], column: str, values: Sequence[Any]) -> tuple[int, list[int]]:
    there = {same(value) for value in values if value is not None}
    return each(rows, column, lambda value: same(value) in there)
