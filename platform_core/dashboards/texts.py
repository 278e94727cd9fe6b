"""Values as a reader of a page sees them."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from decimal import Decimal

NOTHING = "–"
"""What stands where there is no value."""

_SEPARATED_FROM = 10_000
"""Below this the whole numbers of a column have no thousands separator: they may well be years."""

_ONE_DECIMAL_FROM = 100

_FORMAT = re.compile(r",?(\.\d{1,2})?[f%d]")


def check_format(text: str) -> str:
    """A number format that Python and the charts read alike; ValueError otherwise."""
    if not _FORMAT.fullmatch(text) or (text.endswith("d") and "." in text):
        raise ValueError("must read like ',.0f', '.1%' or ',d'")
    return text


def format_of(values: Sequence[object]) -> str | None:
    """A number format that suits all values of a column; None where they are not numbers."""
    if any(isinstance(value, bool) for value in values):
        return None
    numbers = [float(value) for value in values if isinstance(value, int | float | Decimal)]
    finite = [value for value in numbers if math.isfinite(value)]
    if not finite:
        return None
    largest = max(abs(value) for value in finite)
    if all(value.is_integer() for value in finite):
        return ",d" if largest >= _SEPARATED_FROM else "d"
    return ",.1f" if largest >= _ONE_DECIMAL_FROM else ",.2f"


def value_text(value: object, *, format: str | None = None) -> str:
    """One value of any Arrow type, as text.

    Args:
        value: as Arrow's ``as_py`` gives it.
        format: for numbers, checked by :func:`check_format`; None: whole numbers with thousands separators, others
            with one or two decimals.
    """
    match value:
        case None | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case int() | float() | Decimal():
            return _number_text(value, format)
        case dt.datetime():
            return _time_text(value)
        case dt.date():
            return value.isoformat()
        case bytes():
            return f"{len(value)} bytes"
        case _:
            return str(value)


def label(column: str, labels: dict[str, str]) -> str:
    """What a column is called: its declared label, or its name with spaces and a capital."""
    return labels.get(column) or column.strip("_").replace("_", " ").capitalize()


def _number_text(value: float | Decimal, format: str | None) -> str:
    if not math.isfinite(value):
        return NOTHING
    if format is not None:
        return f"{round(value) if format.endswith('d') else value:{format}}"
    if value == int(value):
        return f"{int(value):,d}"
    return f"{value:,.1f}" if abs(float(value)) >= _ONE_DECIMAL_FROM else f"{value:,.2f}"


def _time_text(value: dt.datetime) -> str:
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC)
    zone = " UTC" if value.tzinfo is not None else ""
    if (value.hour, value.minute, value.second) == (0, 0, 0) and not zone:
        return f"{value:%Y-%m-%d}"
    return f"{value:%Y-%m-%d %H:%M}{zone}"
