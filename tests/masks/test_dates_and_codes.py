"""What the masks `year` and `truncate` leave of dates and codes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from platform_core.masks.truncate import MOST_KEPT, TruncateMask
from platform_core.masks.year import YearMask
from tests.masks.oracle import ASSIGNED, masked

DAY = dt.date(1984, 5, 17)
MOMENT = dt.datetime(1984, 5, 17, 13, 45, 6, 7)


def truncate(**options: Any) -> TruncateMask:
    return TruncateMask(TruncateMask.Options(**options), key=None)


@pytest.mark.parametrize(
    ("value", "type_"),
    [(DAY, pa.date32()), (MOMENT, pa.timestamp("us")), (MOMENT.replace(tzinfo=dt.UTC), pa.timestamp("us", "UTC"))],
)
def test_year_of_a_date_is_a_number(value: Any, type_: pa.DataType) -> None:
    assert YearMask(None, key=None).output_type(type_) == pa.int32()
    assert masked(YearMask(None, key=None), [value, None], type_) == [1984, None]


@settings(deadline=None)
@given(st.lists(st.none() | st.dates()))
def test_year_is_right_from_the_first_to_the_last_year(days: list[dt.date | None]) -> None:
    expected = [None if day is None else day.year for day in days]
    assert masked(YearMask(None, key=None), days, pa.date32()) == expected


@pytest.mark.parametrize("repeats", [1, 50])
def test_year_of_a_text_is_a_text_and_of_no_date_it_shows_nothing(repeats: int) -> None:
    texts = {
        "1984-05-17": "1984",
        " 1984-05-17 ": "1984",
        "1984-05-17T13:45:06Z": "1984",
        "1984-05-17 Jan Jansen": "1984",
        "1984-02-30": "***",
        "17-05-1984": "***",
        "1984": "***",
        "": "***",
        None: None,
    }
    assert masked(YearMask(None, key=None), [*texts] * repeats) == [*texts.values()] * repeats


@pytest.mark.parametrize(
    ("to", "day", "moment"),
    [
        ("year", (1984, 1, 1), (1984, 1, 1)),
        ("quarter", (1984, 4, 1), (1984, 4, 1)),
        ("month", (1984, 5, 1), (1984, 5, 1)),
        ("week", (1984, 5, 14), (1984, 5, 14)),
        ("day", (1984, 5, 17), (1984, 5, 17)),
    ],
)
def test_truncate_brings_a_date_to_the_beginning_of_its_unit(to: str, day: Any, moment: Any) -> None:
    assert masked(truncate(to=to), [DAY, None], pa.date32()) == [dt.date(*day), None]
    assert masked(truncate(to=to), [MOMENT, None], pa.timestamp("us")) == [dt.datetime(*moment), None]
    zoned = masked(truncate(to=to), [MOMENT.replace(tzinfo=dt.UTC)], pa.timestamp("us", "UTC"))
    assert zoned == [dt.datetime(*moment).replace(tzinfo=dt.UTC)]
    texts = ["1984-05-17", "1984-05-17T01:02:03", "17 May", None]
    first = str(dt.date(*day))
    assert masked(truncate(to=to), texts) == [first, first, "***", None]
    assert masked(truncate(to=to), texts * 50) == [first, first, "***", None] * 50


def test_truncate_to_the_hour_is_for_timestamps() -> None:
    assert masked(truncate(to="hour"), [MOMENT], pa.timestamp("us")) == [dt.datetime(1984, 5, 17, 13)]
    for type_ in (pa.date32(), pa.string()):
        with pytest.raises(ValueError, match="takes timestamps"):
            truncate(to="hour").output_type(type_)


@pytest.mark.parametrize("repeats", [1, 50])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"keep": 4}, ["1012", "1012", "1012", "***", "***", "SW1A", None]),
        ({"keep": 4, "keep_short": True}, ["1012", "1012", "1012", "1012", "", "SW1A", None]),
        ({"keep": 5}, ["1012A", "1012A", "1012A", "***", "***", "SW1A1", None]),
    ],
)
def test_truncate_keeps_the_beginning_of_a_code(options: dict[str, Any], expected: list[Any], repeats: int) -> None:
    codes = ["1012 AB", "1012AB", " 10 12AB", "1012", " ", "SW1A 1AA", None]
    assert masked(truncate(**options), codes * repeats) == expected * repeats


def test_truncate_takes_codes_that_are_integers() -> None:
    assert masked(truncate(keep=2), [1012, 10, None], pa.int32()) == ["10", "***", None]


@settings(deadline=None)
@given(st.text(ASSIGNED, max_size=10), st.integers(1, MOST_KEPT))
def test_truncate_never_shows_more_than_the_policy_nor_a_whole_value(value: str, keep: int) -> None:
    (shown,) = masked(truncate(keep=keep), [value])
    assert shown == "***" or (len(shown) == keep and len("".join(value.split())) > keep)


@pytest.mark.parametrize(
    ("options", "type_"),
    [
        ({"keep": 4}, pa.date32()),
        ({"keep": 4}, pa.float64()),
        ({"to": "month"}, pa.int64()),
        ({"to": "month"}, pa.binary()),
        ({"keep": 4}, pa.list_(pa.string())),
    ],
)
def test_truncate_refuses_types_that_it_cannot_cut(options: dict[str, Any], type_: pa.DataType) -> None:
    with pytest.raises(ValueError, match="mask truncate"):
        truncate(**options).output_type(type_)


@pytest.mark.parametrize("type_", [pa.int64(), pa.float64(), pa.list_(pa.date32())])
def test_year_refuses_what_is_no_date(type_: pa.DataType) -> None:
    with pytest.raises(ValueError, match="mask year takes dates"):
        YearMask(None, key=None).output_type(type_)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keep": 4, "to": "month"},
        {"keep": 0},
        {"keep": MOST_KEPT + 1},
        {"to": "minute"},
        {"to": "day", "keep_short": True},
    ],
)
def test_truncate_refuses_options_that_mean_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TruncateMask.Options(**options)
