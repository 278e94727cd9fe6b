"""Keys of every type identify rows exactly."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from platform_core.errors import DeletesStopped, LoadError, SchemaError
from platform_core.specs.ingestion import OnBadKey

MOMENT = dt.datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=dt.UTC)
KEYS = {
    "integer": pa.array([1, -(2**63), 2**63 - 1, 2**53 + 1, 2**53]),
    "small integer": pa.array([1, 2, 3, 4, 5], pa.int8()),
    "text": pa.array(["", "a", "A", "ä", "a\u0308"]),
    "text with blanks": pa.array(["x", "x ", " x", "x\u00a0", "x\x00"]),
    "text that looks like numbers": pa.array(["1", "01", "1.0", "1e0", "١"]),
    "decimal": pa.array([Decimal(f"{i}.01") for i in range(5)], pa.decimal128(38, 2)),
    "date": pa.array([dt.date(2026, 1, day) for day in range(1, 5)] + [dt.date(1, 1, 1)]),
    "timestamp": pa.array([MOMENT + dt.timedelta(microseconds=i) for i in range(5)], pa.timestamp("us", "UTC")),
    "timestamp without zone": pa.array([dt.datetime(9999, 12, 31, 23, 59, 59, i) for i in range(5)]),
    "binary": pa.array([b"", b"\x00", b"\x00\x00", b"\xff", b"a"]),
    "float": pa.array([0.0, 1.5, float("inf"), float("-inf"), 5e-324]),
}


def table(keys: pa.Array, value: str = "a") -> pa.Table:
    return pa.table({"id": keys, "name": pa.array([value] * len(keys), pa.string())})


@pytest.mark.parametrize("mode", ["full", "incremental"])
@pytest.mark.parametrize("kind", KEYS)
def test_b8_keys_of_every_type_are_told_apart_and_found_again(riders: Any, kind: str, mode: str) -> None:
    keys = KEYS[kind]
    assert riders.load(table(keys), mode).inserted == 5
    assert riders.load(table(keys), mode).unchanged == 5
    assert riders.load(table(keys), mode, held=True).committed is False
    outcome = riders.load(table(keys.take(pa.array([4, 2])), "b"), mode)
    assert (outcome.updated, outcome.inserted, outcome.deleted) == (2, 0, 3 if mode == "full" else 0)
    found = {row["id"]: row["name"] for row in riders.rows()}
    assert found == dict(zip(keys.to_pylist(), ["a", "a", "b", "a", "b"], strict=True))


def test_a_boolean_may_be_part_of_a_key(riders: Any) -> None:
    riders.key = ("id", "part")
    rows = pa.table({"id": [1, 1, 2], "part": [True, False, True], "name": ["a", "b", "c"]})
    assert riders.load(rows).inserted == 3
    assert riders.load(rows).unchanged == 3
    assert riders.load(rows.slice(0, 2)).deleted == 1


def test_parts_of_a_composite_key_do_not_run_together(riders: Any) -> None:
    riders.key = ("id", "part")
    rows = pa.table({"id": ["a", "ab", ""], "part": ["bc", "c", "abc"], "name": ["x", "y", "z"]})
    assert riders.load(rows).inserted == 3
    assert riders.load(rows.set_column(2, "name", pa.array(["x", "new", "z"]))).updated == 1


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_b8_a_key_that_is_not_a_number_is_no_key(riders: Any, mode: str) -> None:
    keys = pa.array([1.0, float("nan")])
    with pytest.raises(LoadError, match="1 rows have a null key and 0 rows"):
        riders.load(table(keys), mode)
    outcome = riders.load(table(keys), mode, on_bad_key=OnBadKey.QUARANTINE)
    assert (outcome.inserted, outcome.quarantined) == (1, 1)
    with pytest.raises(LoadError, match="1 rows have a null key"):
        riders.load(table(keys), mode)


def test_minus_zero_and_zero_are_one_key(riders: Any) -> None:
    riders.load(table(pa.array([0.0])))
    assert riders.load(table(pa.array([-0.0]))).unchanged == 1


def test_doubled_keys_in_bronze_itself_are_reported(riders: Any) -> None:
    riders.load(table(pa.array([1, 2])))
    write_deltalake(riders.uri, riders.table.to_pyarrow_table().slice(0, 1), mode="append")
    with pytest.raises(LoadError, match="1 rows of bronze have a key that another row of it has"):
        riders.load(table(pa.array([1, 2]), "b"))


def test_a_new_column_cannot_become_the_key(riders: Any) -> None:
    riders.load(table(pa.array([1])))
    riders.key = ("code",)
    with pytest.raises(SchemaError, match="key column code is new: rows of the table have no value there"):
        riders.load(table(pa.array([1])).append_column("code", pa.array(["x"])))


def keys_of(*values: int) -> pa.Table:
    return pa.table({"id": pa.array(values, pa.int64())})


@pytest.mark.parametrize("held", [True, False])
def test_a_comparison_of_keys_flags_what_is_gone_and_touches_nothing_else(riders: Any, held: bool) -> None:
    riders.load(table(pa.array([1, 2, 3])), "incremental")
    before = {row["id"]: row for row in riders.rows()}
    outcome = riders.load(keys_of(3, 1, 3, 8), "incremental", keys_only=True, held=held)
    assert (outcome.deleted, outcome.inserted, outcome.updated, outcome.committed) == (1, 0, 0, True)
    after = {row["id"]: row for row in riders.rows()}
    assert (after[1], after[3]) == (before[1], before[3])
    assert after[2] == before[2] | {
        "_is_current": False,
        "_is_deleted": True,
        "_modified_at": dt.datetime(2026, 1, 3, tzinfo=dt.UTC),
        "_batch_id": 2,
    }
    assert riders.load(keys_of(1, 3), "incremental", keys_only=True, held=held).committed is False
    assert riders.load(table(pa.array([2])), "incremental").updated == 1


def test_a_comparison_of_keys_is_stopped_where_too_many_are_gone(riders: Any) -> None:
    riders.load(table(pa.array(range(40))), "incremental")
    with pytest.raises(
        DeletesStopped, match=r"would flag 25 of 40 current rows deleted \(62%, allowed 50%\)"
    ) as caught:
        riders.load(keys_of(*range(15)), "incremental", keys_only=True, max_delete_ratio=0.5)
    assert (caught.value.deletes, caught.value.current) == (25, 40)
    assert (
        riders.load(keys_of(*range(15)), "incremental", keys_only=True, delete_floor=26, max_delete_ratio=0.5).deleted
        == 25
    )


def test_a_comparison_of_keys_needs_no_hash_and_makes_no_table(riders: Any) -> None:
    outcome = riders.load(keys_of(1), "incremental", keys_only=True)
    assert (outcome.committed, riders.table) == (False, None)


def test_a_wider_key_is_compared_by_its_value(riders: Any) -> None:
    riders.load(table(pa.array([1, 2], pa.int32())), "incremental")
    assert riders.load(keys_of(2), "incremental", keys_only=True).deleted == 1


def test_the_floor_says_how_few_deletes_never_stop_a_load(riders: Any) -> None:
    riders.load(table(pa.array(range(8))))
    with pytest.raises(DeletesStopped):
        riders.load(table(pa.array([], pa.int64())), max_delete_ratio=0.5, delete_floor=0)
    with pytest.raises(DeletesStopped):
        riders.load(table(pa.array([0])), max_delete_ratio=0.5, delete_floor=7)
    assert riders.load(table(pa.array([0])), max_delete_ratio=0.5, delete_floor=8).deleted == 7
