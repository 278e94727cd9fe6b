"""What the masks `full`, `null` and `partial` leave of values."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from platform_core.masks.full import FullMask
from platform_core.masks.null import NullMask
from platform_core.masks.partial import MOST_SHOWN, PartialMask
from tests.masks.oracle import ASSIGNED, masked

OF_EVERY_TYPE: list[tuple[Any, pa.DataType]] = [
    ("Anna", pa.string()),
    ("", pa.string()),
    (b"\x00\xff", pa.binary()),
    (1, pa.int16()),
    (Decimal("1.50"), pa.decimal128(10, 2)),
    (1.5, pa.float64()),
    (True, pa.bool_()),
    (dt.date(2000, 1, 1), pa.date32()),
    (dt.datetime(2000, 1, 1), pa.timestamp("us")),
    (["Anna"], pa.list_(pa.string())),
    ({"name": "Anna"}, pa.struct([("name", pa.string())])),
    ([("name", "Anna")], pa.map_(pa.string(), pa.string())),
]


@pytest.mark.parametrize(("value", "type_"), OF_EVERY_TYPE)
def test_full_shows_of_every_type_only_whether_there_is_a_value(value: Any, type_: pa.DataType) -> None:
    assert masked(FullMask(None, key=None), [value, None], type_) == ["***", None]


@pytest.mark.parametrize(("value", "type_"), OF_EVERY_TYPE)
def test_null_leaves_nothing_of_any_type_and_keeps_the_type(value: Any, type_: pa.DataType) -> None:
    assert NullMask(None, key=None).output_type(type_) == type_
    assert masked(NullMask(None, key=None), [value, None], type_) == [None, None]


def partial(**options: Any) -> PartialMask:
    return PartialMask(PartialMask.Options(**options), key=None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"keep_first": 1}, ["J***", "***", "***", None, "A***"]),
        ({"keep_last": 2}, ["***en", "***", "***", None, "***éé"]),
        ({"keep_first": 1, "keep_last": 1}, ["J***n", "***", "***", None, "A***é"]),
    ],
)
def test_partial_keeps_the_ends_of_values_that_are_long_enough(options: dict[str, int], expected: list[Any]) -> None:
    assert masked(partial(**options), ["Jansen", "J", "", None, "Aéé" + "é"]) == expected


@settings(deadline=None)
@given(st.text(ASSIGNED, max_size=12), st.integers(0, 3), st.integers(1, 3))
def test_f12_partial_never_shows_more_than_the_policy_nor_more_than_half(value: str, first: int, last: int) -> None:
    (shown,) = masked(partial(keep_first=first, keep_last=last), [value])
    before, _, after = shown.partition("***") if "*" not in value else ("", "", "")
    assert "***" in shown
    assert len(before) <= first
    assert len(after) <= last
    assert len(before + after) <= len(value.strip()) / 2


@pytest.mark.parametrize("value", ["", "A", "Al", "Ali", "      ", "Al              ", "\u00a0Al\u2003\u2003\u2003"])
def test_f12_short_values_are_masked_whole_whatever_surrounds_them(value: str) -> None:
    assert masked(partial(keep_first=1, keep_last=1), [value]) == ["***"]
    assert masked(partial(keep_last=2), [value]) == ["***"]


@pytest.mark.parametrize("repeats", [1, 50])
def test_partial_of_an_address_shows_its_domain_only_where_there_is_one(repeats: int) -> None:
    addresses = {
        "anna@example.org": "a***@example.org",
        " anna@münchen.example.org ": "a***@münchen.example.org",
        "a@example.org": "***@example.org",
        "@example.org": "***@example.org",
        "no address": "***",
        "a@b@c.nl": "***",
        "call me @ 06-12345678": "***",
        "anna@localhost": "***",
        "anna@Jan Jansen.nl": "***",
        "anna@example.org, jan@example.org": "***",
        "<anna@example.org>": "***",
        None: None,
    }
    assert masked(partial(keep_first=1, email=True), [*addresses] * repeats) == [*addresses.values()] * repeats


def test_partial_takes_integers() -> None:
    assert masked(partial(keep_last=3), [123456789, 12, None]) == ["***789", "***", None]


@pytest.mark.parametrize(
    "options", [{}, {"keep_first": 0}, {"keep_first": MOST_SHOWN, "keep_last": 1}, {"keep_first": -1, "keep_last": 3}]
)
def test_partial_refuses_to_show_nothing_or_too_much(options: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        PartialMask.Options(**options)


@pytest.mark.parametrize("type_", [pa.float64(), pa.date32(), pa.list_(pa.string())])
def test_partial_refuses_types_it_cannot_shorten(type_: pa.DataType) -> None:
    with pytest.raises(ValueError, match="use mask full"):
        partial(keep_first=1).output_type(type_)
    with pytest.raises(ValueError, match="use mask full"):
        partial(keep_first=1, email=True).output_type(pa.int64())
