"""Which columns the lake takes."""

from __future__ import annotations

import datetime as dt
from decimal import Context, Decimal

import pyarrow as pa
import pytest

from platform_core.errors import SchemaError
from platform_core.lake.columns import conform, lake_schema, lake_type, refuse_reserved, widened


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (pa.uint32(), pa.int64()),
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.timestamp("s"), pa.timestamp("us")),
        (pa.timestamp("ns", "Asia/Tokyo"), pa.timestamp("us", "UTC")),
        (pa.date64(), pa.date32()),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string()),
        (pa.decimal256(20, 2), pa.decimal128(20, 2)),
        (pa.decimal128(5, -2), None),
        (pa.decimal256(50, 2), None),
        (pa.month_day_nano_interval(), None),
        (pa.large_list(pa.uint8()), pa.list_(pa.field("element", pa.int16()))),
        (pa.struct([("a", pa.month_day_nano_interval())]), None),
        (pa.struct([]), None),
        (pa.json_(), pa.string()),
        (pa.uuid(), pa.binary()),
    ],
)
def test_every_type_is_kept_as_one_that_delta_knows_or_refused(given: pa.DataType, kept: pa.DataType | None) -> None:
    assert lake_type(given) == kept


def test_a_type_that_cannot_be_kept_is_named_with_its_column() -> None:
    with pytest.raises(SchemaError, match="column 'span' has type month_day_nano_interval, which the lake cannot keep"):
        lake_schema(pa.schema([("span", pa.month_day_nano_interval())]), of="t")


def test_a_column_without_a_type_takes_the_one_the_table_has() -> None:
    existing = pa.schema([("a", pa.int64())])
    assert lake_schema(pa.schema([("a", pa.null())]), of="t", existing=existing).field("a").type == pa.int64()
    assert lake_schema(pa.schema([("a", pa.null())]), of="t").field("a").type == pa.string()


@pytest.mark.parametrize("names", [("Name", "name"), ("a", "a")])
def test_names_that_differ_in_nothing_but_case_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(SchemaError, match="differ in nothing but case"):
        lake_schema(pa.schema([(name, pa.int64()) for name in names]), of="t")


def test_a_column_without_a_name_is_refused() -> None:
    with pytest.raises(SchemaError, match="a column has no name"):
        lake_schema(pa.schema([("", pa.int64())]), of="t")


def test_names_of_ours_are_refused_in_any_case() -> None:
    with pytest.raises(SchemaError, match="the platform needs: _Is_Current"):
        refuse_reserved(pa.schema([("_Is_Current", pa.bool_())]), of="t")


def test_a_value_that_does_not_fit_is_an_error_and_never_cut() -> None:
    batch = pa.RecordBatch.from_pydict({"a": pa.array([2**40])})
    with pytest.raises(pa.ArrowInvalid):
        conform(batch, pa.schema([("a", pa.int32())]))


_KEPT = [
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
    pa.decimal128(5, 0),
    pa.decimal128(12, 2),
    pa.decimal128(38, 10),
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.string(),
    pa.binary(),
    pa.bool_(),
    pa.list_(pa.field("element", pa.int64())),
]


@pytest.mark.parametrize("old", _KEPT, ids=str)
@pytest.mark.parametrize("new", _KEPT, ids=str)
def test_b5_a_wider_type_holds_every_value_of_both(old: pa.DataType, new: pa.DataType) -> None:
    wider = widened(old, new)
    assert wider == widened(new, old)
    if wider is None:
        assert old != new
        return
    assert widened(old, wider) == wider
    assert lake_type(wider) == wider
    for type_ in (old, new):
        extremes = _extremes(type_)
        assert extremes.cast(wider).cast(type_) == extremes


def _extremes(type_: pa.DataType) -> pa.Array:
    if pa.types.is_integer(type_):
        return pa.array([-(2 ** (type_.bit_width - 1)), 2 ** (type_.bit_width - 1) - 1, None], type_)
    if pa.types.is_decimal(type_):
        largest = Decimal(10**type_.precision - 1).scaleb(-type_.scale, Context(prec=40))
        return pa.array([largest, largest.copy_negate(), None], type_)
    if pa.types.is_floating(type_):
        return pa.array([0.1, -1e30, float("inf"), None]).cast(type_)
    if pa.types.is_date(type_):
        return pa.array([dt.date.min, dt.date.max, None], type_)
    return pa.nulls(2, type_)
