"""Values of every type come through a load exactly, or are refused."""

from __future__ import annotations

import datetime as dt
import math
import struct
import tempfile
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from platform_core.errors import SchemaError
from platform_core.lake import bronze
from platform_core.lake.delta import DeltaTableReader
from tests.examples import examples

ZONES = st.sampled_from(["UTC", "Europe/Amsterdam", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]).map(ZoneInfo)
LONG_AGO, FAR_AHEAD = dt.datetime(2, 1, 1), dt.datetime(9998, 12, 31)
EXAMPLES = settings(
    max_examples=examples(8),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def round_trip(riders: Any, values: pa.Array) -> pa.Array:
    """A column after two loads, of which the second changes every row but the values."""
    with tempfile.TemporaryDirectory() as folder:
        table = type(riders)(Path(folder), riders.session)
        ids = pa.array(range(len(values)), pa.int64())
        for i in range(2):
            rows = pa.table({"id": ids, "value": values, "turn": pa.array([i] * len(values), pa.int32())})
            table.load(rows)
        assert table.load(rows).committed is False
        reader = DeltaTableReader.open(table.uri, storage_options={})
        assert reader is not None
        return reader.read().read_all().sort_by("id")["value"].combine_chunks()


@EXAMPLES
@given(
    st.lists(
        st.none()
        | st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999), timezones=st.none())
        | st.sampled_from([dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)]),
        min_size=1,
        max_size=20,
    )
)
def test_b11_naive_timestamps_come_back_to_the_microsecond(riders: Any, moments: list[dt.datetime | None]) -> None:
    values = pa.array(moments, pa.timestamp("us"))
    assert round_trip(riders, values).equals(values)


@EXAMPLES
@given(st.lists(st.datetimes(LONG_AGO, FAR_AHEAD, timezones=ZONES), min_size=1, max_size=20))
def test_b11_moments_of_any_zone_are_kept_in_utc(riders: Any, moments: list[dt.datetime]) -> None:
    # In a fold two moments have one wall clock; in a gap a wall clock has none. As moments they stay apart.
    utc = [moment.astimezone(dt.UTC) for moment in moments]
    values = pa.array(utc, pa.timestamp("us", "UTC"))
    found = round_trip(riders, values)
    assert found.type == pa.timestamp("us", "UTC")
    assert [moment.astimezone(dt.UTC) for moment in found.to_pylist()] == utc


@EXAMPLES
@given(st.lists(st.none() | st.dates(), min_size=1, max_size=20))
def test_b11_dates_from_year_1_to_9999_come_back(riders: Any, days: list[dt.date | None]) -> None:
    values = pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31), *days])
    assert round_trip(riders, values).equals(values)


@EXAMPLES
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_b16_integers_beyond_doubles_come_back(riders: Any, numbers: list[int]) -> None:
    values = pa.array([2**53 + 1, -(2**63), 2**63 - 1, None, *numbers], pa.int64())
    assert round_trip(riders, values).equals(values)


@EXAMPLES
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_b16_doubles_come_back_bit_by_bit(riders: Any, numbers: list[float]) -> None:
    given_ = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, *numbers]
    found = round_trip(riders, pa.array(given_)).to_pylist()
    for one, other in zip(given_, found, strict=True):
        assert struct.pack("<d", one) == struct.pack("<d", other) or (math.isnan(one) and math.isnan(other))


@EXAMPLES
@given(st.lists(st.decimals(-(10**20) + 1, 10**20 - 1, places=18), min_size=1, max_size=20))
def test_b16_decimals_come_back_to_the_last_digit(riders: Any, numbers: list[Decimal]) -> None:
    values = pa.array([Decimal("9" * 20 + "." + "9" * 18), None, *numbers], pa.decimal128(38, 18))
    assert round_trip(riders, values).equals(values)


@EXAMPLES
@given(st.lists(st.none() | st.text() | st.just(""), max_size=20), st.lists(st.none() | st.binary(), max_size=20))
def test_texts_and_bytes_come_back_and_empty_is_not_null(
    riders: Any, texts: list[str | None], contents: list[bytes | None]
) -> None:
    for values in (pa.array(["", None, "\x00", *texts], pa.string()), pa.array([b"", None, *contents], pa.binary())):
        assert round_trip(riders, values).equals(values)


@pytest.mark.parametrize("type_", [pa.decimal256(50, 2), pa.month_day_nano_interval()])
def test_a_type_that_the_lake_cannot_keep_is_refused(riders: Any, type_: pa.DataType) -> None:
    load = riders.landed(pa.table({"id": [1], "value": ["x"]}))
    schema = load.schema.set(1, pa.field("value", type_))
    with pytest.raises(SchemaError, match=r"column 'value' has type .*, which the lake cannot keep"):
        bronze.apply(replace(load, schema=schema), session=riders.session)
