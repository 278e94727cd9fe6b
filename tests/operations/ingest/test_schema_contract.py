"""What may change in the columns of a source."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from platform_core.errors import SchemaError, SourceError
from platform_core.lake.delta import DeltaTableReader

ROWS = pa.table({"id": [1, 2], "name": ["a", "b"], "amount": pa.array([10, 20], pa.int32())})
PHONE = ROWS.append_column("phone", pa.array(["+31612345678", None]))


def contract(**options: str) -> dict[str, Any]:
    return {"schema": options}


def types(loads: Any) -> dict[str, pa.DataType]:
    reader = DeltaTableReader.open(str(loads.bronze), storage_options={})
    assert reader is not None
    return {item.name: item.type for item in reader.schema if not item.name.startswith("_")}


def unchanged(loads: Any) -> list[str]:
    """Every file of the lake, which a refused load must not have touched."""
    return sorted(str(path) for path in (loads.folder / "lake").rglob("*"))


def test_b3_a_new_column_is_added_and_rows_that_did_not_change_have_null_there(loads: Any) -> None:
    loads.load(ROWS)
    loads.spec |= {"mode": "incremental", "cursor": "id"}
    result = loads.load(PHONE.set_column(3, "phone", pa.array([None, "+31612345678"])).slice(1))
    assert result.updated == 1
    assert "phone" in types(loads)
    assert [row["phone"] for row in loads.rows()] == [None, "+31612345678"]


def test_b3_a_new_column_may_be_left_out(loads: Any) -> None:
    loads.load(ROWS)
    result = loads.load(PHONE, **contract(new_columns="ignore"))
    assert (result.committed, "phone" in types(loads)) == (False, False)


def test_b3_a_new_column_may_be_refused(loads: Any) -> None:
    loads.load(ROWS)
    before = unchanged(loads)
    with pytest.raises(SchemaError, match="riders has columns that are new: phone; nothing was written"):
        loads.load(PHONE, **contract(new_columns="refuse"))
    assert unchanged(loads) == before


@pytest.mark.parametrize("policy", ["evolve", "ignore", "refuse"])
@pytest.mark.parametrize("columns", [{"name": {"mask": "full"}}, {"name": {"personal": True}}])
def test_b3_a_new_column_of_a_table_with_personal_data_is_refused_until_it_is_classified(
    loads: Any, policy: str, columns: dict[str, Any]
) -> None:
    loads.load(ROWS, columns=columns)
    before = unchanged(loads)
    with pytest.raises(SchemaError) as caught:
        loads.load(PHONE.append_column("e-mail", pa.array(["x", "y"])), columns=columns, **contract(new_columns=policy))
    assert str(caught.value) == (
        "crm.bronze.riders: riders has columns that are new: phone, e-mail; nothing was written\n"
        "  the table holds personal data, so each must be classified first:\n"
        "  columns:\n"
        "    phone: {}\n"
        '    "e-mail": {}\n'
        "  {} says that a column is not personal; otherwise write {personal: true}, or {mask: <name>}"
    )
    assert unchanged(loads) == before


def test_b3_a_classified_new_column_is_added_and_masked(loads: Any) -> None:
    columns = {"name": {"mask": "full"}}
    loads.load(ROWS, columns=columns)
    loads.load(PHONE, columns=columns | {"phone": {"mask": "full"}})
    assert [row["phone"] for row in loads.rows()] == ["***", None]


def test_the_first_load_asks_for_no_classification(loads: Any) -> None:
    loads.load(PHONE, columns={"name": {"mask": "full"}})
    assert "phone" in types(loads)


def test_b4_a_missing_column_is_refused_and_nothing_is_silently_null(loads: Any) -> None:
    loads.load(ROWS)
    before = unchanged(loads)
    with pytest.raises(SchemaError, match="missing: name\n  undo the change") as caught:
        loads.load(ROWS.drop_columns(["name"]))
    assert "or declare schema: {missing: null}" in str(caught.value)
    assert unchanged(loads) == before


def test_b4_a_missing_column_is_null_in_rows_of_the_load_where_that_is_declared(loads: Any) -> None:
    loads.load(ROWS, columns={"name": {"mask": "full"}})
    loads.spec |= {"mode": "incremental", "cursor": "id", "columns": {"name": {"mask": "full"}}}
    loads.load(ROWS.drop_columns(["name"]).slice(1), **contract(missing="null"))
    assert [row["name"] for row in loads.rows()] == ["***", None]


@pytest.mark.parametrize("column", ["key", "cursor"])
def test_b4_a_column_that_identifies_or_orders_rows_must_not_be_missing(loads: Any, column: str) -> None:
    rows = pa.table({"key": [1], "cursor": [1]})
    loads.spec = {"mode": "incremental", "key": ("key",), "cursor": "cursor"}
    loads.load(rows)
    with pytest.raises(SchemaError if column == "key" else SourceError):
        loads.load(rows.drop_columns([column]), **contract(missing="null"))


WIDER = [
    (pa.int32(), pa.int64(), pa.int64(), 2**40),
    (pa.int64(), pa.int16(), pa.int64(), 7),
    (pa.float32(), pa.float64(), pa.float64(), 1e300),
    (pa.float64(), pa.float32(), pa.float64(), 0.5),
    (pa.int32(), pa.float64(), pa.float64(), 0.5),
    (pa.int64(), pa.decimal128(12, 2), pa.decimal128(21, 2), Decimal("1.25")),
    (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4), Decimal("1.2345")),
    (pa.decimal128(10, 2), pa.decimal128(8, 4), pa.decimal128(12, 4), Decimal("1.2345")),
    (pa.date32(), pa.timestamp("us"), pa.timestamp("us"), dt.datetime(2026, 1, 1, 12, 30)),
    (pa.timestamp("us"), pa.date32(), pa.timestamp("us"), dt.date(2026, 1, 1)),
]


@pytest.mark.parametrize(("old", "new", "expected", "value"), WIDER)
def test_b5_a_type_that_holds_all_values_of_both_is_taken_over(
    loads: Any, old: pa.DataType, new: pa.DataType, expected: pa.DataType, value: Any
) -> None:
    day = pa.array([dt.date(2020, 1, 1)], pa.date32())
    first = (day if isinstance(value, dt.date) else pa.array([5], pa.int8())).cast(old)
    loads.load(pa.table({"id": [1], "value": first}))
    loads.spec |= {"mode": "incremental", "cursor": "id"}
    loads.load(pa.table({"id": [2], "value": pa.array([value], new)}))
    assert types(loads)["value"] == expected
    found = pa.array([row["value"] for row in loads.rows()], expected)
    assert found == pa.concat_arrays([first.cast(expected), pa.array([value], new).cast(expected)])


REFUSED = [
    (pa.int64(), pa.string()),
    (pa.string(), pa.int64()),
    (pa.int64(), pa.float64()),
    (pa.timestamp("us", "UTC"), pa.timestamp("us")),
    (pa.decimal128(38, 2), pa.decimal128(10, 6)),
    (pa.int64(), pa.bool_()),
]


@pytest.mark.parametrize(("old", "new"), REFUSED)
def test_b5_any_other_type_is_a_clear_stop_before_anything_is_written(
    loads: Any, old: pa.DataType, new: pa.DataType
) -> None:
    loads.load(pa.table({"id": [1], "value": pa.array([None], old)}))
    before = unchanged(loads)
    with pytest.raises(SchemaError, match=r"changed type: value \(.* in the table, .* now\)"):
        loads.load(pa.table({"id": [1], "value": pa.array([None], new)}))
    assert unchanged(loads) == before


def test_b5_a_change_of_type_may_be_refused(loads: Any) -> None:
    loads.load(ROWS)
    with pytest.raises(SchemaError, match=r"changed type: amount \(int32 in the table, int64 now\)"):
        loads.load(ROWS.set_column(2, "amount", ROWS["amount"].cast(pa.int64())), **contract(type_change="refuse"))


def test_b5_a_value_that_does_not_fit_is_told_without_the_value(loads: Any) -> None:
    beyond = pa.array([2**62], pa.int64()).cast(pa.timestamp("s"), safe=False)
    with pytest.raises(SchemaError, match="a value does not fit its column's type in the lake") as caught:
        loads.load(pa.table({"id": [1], "at": beyond}))
    assert str(2**62) not in str(caught.value)
    assert not (loads.folder / "lake").exists()


def test_b11_times_are_kept_to_the_microsecond_from_the_year_1_to_9999(loads: Any) -> None:
    times = [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999), dt.datetime(2026, 3, 29, 2, 30)]
    aware = pa.array([time.replace(tzinfo=dt.UTC) for time in times], pa.timestamp("us", "UTC"))
    fine = pa.array([1_000_000_001, None, 1_999_999_999], pa.timestamp("ns"))
    loads.load(pa.table({"id": [1, 2, 3], "naive": pa.array(times, pa.timestamp("us")), "aware": aware, "fine": fine}))
    rows = loads.rows()
    assert [row["naive"] for row in rows] == times
    assert [row["aware"] for row in rows] == [time.replace(tzinfo=dt.UTC) for time in times]
    assert [row["fine"] and row["fine"].microsecond for row in rows] == [0, None, 999_999]


NAMED = pa.table({"RiderID": [1, 2], "Full Name": ["Anna", "Bob"], "2ndPhone": ["x", "y"], "_batch_id": [7, 8]})


def test_b6_names_are_normalised_and_may_be_declared_by_either_name(loads: Any, source: Any) -> None:
    masks = {"Full Name": {"mask": "full"}, "_2nd_phone": {"mask": "full"}}
    for key in ("RiderID", "rider_id"):
        result = loads.load(NAMED, key=(key,), columns=masks)
    assert list(types(loads)) == ["rider_id", "full_name"]
    (row, _) = loads.rows()
    assert (row["full_name"], row["_2nd_phone"], row["_batch_id_source"], row["_batch_id"]) == ("***", "***", 7, 1)
    assert result.columns == {
        "rider_id": "RiderID",
        "full_name": "Full Name",
        "_2nd_phone": "2ndPhone",
        "_batch_id_source": "_batch_id",
    }


@pytest.mark.parametrize("names", [("RiderID", "ChangedAt"), ("rider_id", "changed_at")])
def test_b6_the_source_is_asked_by_its_own_names(loads: Any, source: Any, names: tuple[str, str]) -> None:
    loads.spec = {"mode": "incremental", "key": names[:1], "cursor": names[1], "select": names}
    rows = pa.table({"RiderID": [1], "ChangedAt": [5], "Other": [0]})
    loads.load(rows)
    loads.load(pa.table({"RiderID": [2], "ChangedAt": [6], "Other": [0]}))
    request = source.requests[-1]
    assert (request.columns, request.cursor, request.since) == (("RiderID", "ChangedAt"), "ChangedAt", 5)
    assert source.schemas == 1, "the names are asked for once a process"


def test_b6_names_that_would_be_one_are_told_together(loads: Any) -> None:
    with pytest.raises(SchemaError, match="columns 'Name' and 'NAME' would both be 'name' in the lake"):
        loads.load(pa.table({"id": [1], "Name": ["a"], "NAME": ["b"]}))
    assert not (loads.folder / "lake").exists()


def test_b6_a_column_that_is_renamed_in_nothing_but_case_is_the_same_column(loads: Any) -> None:
    loads.load(ROWS)
    result = loads.load(ROWS.rename_columns(["ID", "Name", "AMOUNT"]))
    assert (result.committed, result.unchanged) == (False, 2)


def test_b6_a_source_that_renamed_its_cursor_is_asked_anew(loads: Any, source: Any) -> None:
    loads.spec = {"mode": "incremental", "key": ("id",), "cursor": "changed_at"}
    loads.load(pa.table({"id": [1], "ChangedAt": [5]}))
    renamed = pa.table({"id": [2], "CHANGED_AT": [6]})
    with pytest.raises(SourceError):
        loads.load(renamed)
    assert loads.load(renamed).inserted == 1


def test_b3_a_time_without_zone_that_comes_with_a_wider_type_leaves_a_readable_table(loads: Any) -> None:
    loads.load(ROWS)
    wider = ROWS.set_column(2, "amount", ROWS["amount"].cast(pa.int64()))
    loads.load(wider.append_column("seen", pa.array([dt.datetime(2026, 1, 1)] * 2, pa.timestamp("us"))))
    assert (types(loads)["seen"], types(loads)["amount"]) == (pa.timestamp("us"), pa.int64())
    assert loads.load().committed is False
