"""A table takes over new columns and wider types without a change to rows that did not change."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_core.errors import SchemaError
from platform_core.faults import InjectedFault, armed
from platform_core.lake import attempt, bronze
from platform_core.lake.delta import DeltaTableReader, batch_of


def people(*rows: tuple[int, str], **more: pa.Array) -> pa.Table:
    table = pa.table({"id": pa.array([row[0] for row in rows], pa.int32()), "name": [row[1] for row in rows]})
    for name, values in more.items():
        table = table.append_column(name, values)
    return table


def readings(riders: Any) -> dict[str, list[dict[str, Any]]]:
    """The table as several readers see it."""
    reader = DeltaTableReader.open(riders.uri, storage_options={})
    assert reader is not None
    files = list(reader.plain_files or ())
    by_reader = {
        "scan": reader.read().read_all(),
        "pyarrow": riders.table.to_pyarrow_table(),
        "duckdb": duckdb.read_parquet(files, union_by_name=True).to_arrow_table(),
    }
    return {name: sorted(table.to_pylist(), key=lambda row: row["id"]) for name, table in by_reader.items()}


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("mode", ["full", "incremental", "append"])
def test_an_added_column_is_null_in_old_rows_which_stay_untouched(
    riders: Any, mode: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "SMALL_FILE_BYTES", 0)
    riders.load(people((1, "a"), (2, "b")), mode)
    (old,) = riders.data_files()
    before = {row["id"]: row for row in riders.rows()}
    rows = people((1, "a"), (2, "b"), (3, "c"), score=pa.array([None, None, 0.5]))
    outcome = riders.load(rows if mode != "append" else rows.slice(2), mode, held=held)
    assert (outcome.inserted, outcome.updated, outcome.deleted) == (1, 0, 0)
    assert outcome.unchanged == (0 if mode == "append" else 2)
    after = {row["id"]: row for row in riders.rows()}
    assert [after[i] for i in (1, 2)] == [before[i] | {"score": None} for i in (1, 2)]
    assert after[3]["score"] == 0.5
    assert old in riders.data_files()
    for found in readings(riders).values():
        assert [row["score"] for row in found] == [None, None, 0.5]
    assert outcome.version == riders.table.version() == 2


def test_a_column_without_values_is_added_once(riders: Any) -> None:
    riders.load(people((1, "a")))
    rows = people((1, "a"), note=pa.array([None], pa.string()))
    assert riders.load(rows).committed
    assert riders.load(rows).committed is False
    assert riders.load(rows, held=True).committed is False
    assert riders.rows()[0]["_batch_id"] == 1
    assert [found[0].get("note") for found in readings(riders).values()] == [None] * 3


def test_a_timestamp_without_zone_may_be_added(riders: Any) -> None:
    riders.load(people((1, "a")))
    moment = dt.datetime(2026, 1, 1, 1, 2, 3, 4)
    riders.load(people((1, "a"), (2, "b"), at=pa.array([None, moment], pa.timestamp("us"))))
    for found in readings(riders).values():
        assert [row["at"] for row in found] == [None, moment]
    assert "timestampNtz" in (riders.table.protocol().reader_features or ())


def test_rows_change_when_the_new_column_has_a_value(riders: Any) -> None:
    riders.load(people((1, "a"), (2, "b")))
    outcome = riders.load(people((1, "a"), (2, "b"), score=pa.array([None, 1.5])))
    assert (outcome.updated, outcome.unchanged) == (1, 1)
    assert [(row["score"], row["_batch_id"]) for row in riders.rows()] == [(None, 1), (1.5, 2)]


def test_a_comparison_of_keys_keeps_columns_that_no_file_has(riders: Any) -> None:
    riders.load(people((1, "a"), (2, "b")), "incremental")
    riders.load(people((1, "a"), note=pa.array([None], pa.string())), "incremental")
    riders.load(pa.table({"id": pa.array([2], pa.int32())}), "incremental", keys_only=True)
    assert [(row["name"], row["note"], row["_is_current"]) for row in riders.rows()] == [
        ("a", None, False),
        ("b", None, True),
    ]
    assert riders.load(people((1, "a"), note=pa.array(["n"])), "incremental").updated == 1
    assert [row["note"] for row in riders.rows()] == ["n", None]


def test_an_age_that_old_rows_lack_makes_no_row_late(riders: Any) -> None:
    riders.load(people((1, "a"), (2, "b")), "incremental")
    rows = people((1, "x"), (2, "y"), at=pa.array([5, None], pa.int64()))
    outcome = riders.load(rows, "incremental", sequence_by="at")
    assert (outcome.updated, outcome.late) == (2, 0)
    assert riders.load(people((1, "z"), at=pa.array([4])), "incremental", sequence_by="at").late == 1


WIDER = {
    "integer": (pa.array([1, 2], pa.int32()), pa.array([1, 2**40], pa.int64())),
    "integer to decimal": (pa.array([1, 2], pa.int64()), pa.array([Decimal(1), Decimal("2.5")], pa.decimal128(21, 2))),
    "float": (pa.array([1.5, 0.1], pa.float32()), pa.array([1.5, 0.1], pa.float64())),
    "integer to double": (pa.array([1, 2], pa.int32()), pa.array([1.0, 2.5], pa.float64())),
    "decimal": (
        pa.array([Decimal("1.10"), Decimal(2)], pa.decimal128(5, 2)),
        pa.array([Decimal("1.1000"), Decimal("123456.7890")], pa.decimal128(12, 4)),
    ),
    "date to timestamp": (
        pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2)]),
        pa.array([dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 2, 3, 4, 5, 6)], pa.timestamp("us")),
    ),
}


@pytest.mark.parametrize("mode", ["full", "incremental", "append"])
@pytest.mark.parametrize("kind", WIDER)
def test_a_wider_type_is_taken_over(riders: Any, kind: str, mode: str) -> None:
    old, new = WIDER[kind]
    riders.load(people((1, "a"), (2, "b"), value=old), mode)
    before = riders.rows()
    rows = people((1, "a"), (2, "b"), value=new)
    outcome = riders.load(rows if mode != "append" else rows.slice(1), mode)
    expected = (1, 0, 0) if mode == "append" else (0, 1, 1)
    assert (outcome.inserted, outcome.updated, outcome.unchanged) == expected
    # Timestamps without zone are a feature that the table has to name first.
    assert outcome.version == riders.table.version() == (2 if kind == "date to timestamp" else 1)
    first = riders.rows()[0]
    assert (first["_modified_at"], first["_batch_id"]) == (before[0]["_modified_at"], 1)
    values = [old.to_pylist()[0], old.to_pylist()[1], new.to_pylist()[1]] if mode == "append" else new.to_pylist()
    if mode == "append":
        values[:2] = old.cast(new.type).to_pylist()
    for found in readings(riders).values():
        assert sorted([row["value"] for row in found], key=str) == sorted(values, key=str)
    for file in riders.data_files():
        assert pq.read_schema(file).field("value").type == new.type
    if mode != "append":
        assert riders.load(rows, mode).committed is False
        assert riders.load(rows, mode, held=True).committed is False
    assert riders.table.schema().to_arrow().field("_row_hash").metadata


def test_files_that_do_not_change_are_made_wider_too_and_no_other_is_left(
    riders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "SMALL_FILE_BYTES", 0)
    for i in range(3):
        riders.load(people((2 * i, "a"), (2 * i + 1, "a")), "incremental")
    narrow = {file.name for file in riders.data_files()}
    rows = people((2, "b"), extra=pa.array(["x"]))
    rows = rows.set_column(0, "id", pa.array([2], pa.int64()))
    outcome = riders.load(rows, "incremental")
    assert (outcome.updated, outcome.version) == (1, 3)
    files = riders.data_files()
    assert len(files) == 3
    assert not narrow & {file.name for file in files}
    assert {file.name for file in Path(riders.uri).glob("*.parquet")} == narrow | {file.name for file in files}
    assert [(row["id"], row["name"], row["extra"], row["_batch_id"]) for row in riders.rows()] == [
        (0, "a", None, 1),
        (1, "a", None, 1),
        (2, "b", "x", 4),
        (3, "a", None, 2),
        (4, "a", None, 3),
        (5, "a", None, 3),
    ]


def test_a_wider_type_alone_is_a_commit_without_changed_rows(riders: Any) -> None:
    riders.load(people((1, "a")))
    rows = people((1, "a")).set_column(0, "id", pa.array([1], pa.int64()))
    outcome = riders.load(rows)
    assert (outcome.committed, outcome.unchanged, outcome.updated) == (True, 1, 0)
    assert riders.load(rows).committed is False


def test_a_type_that_became_narrower_or_a_column_that_went_is_refused(riders: Any) -> None:
    riders.load(people((1, "a"), n=pa.array([1], pa.int64())))
    narrower = people((1, "a"), n=pa.array([1], pa.int32()))
    with pytest.raises(SchemaError, match=r"changed type: n \(int64 in the table, int32 now\)"):
        riders.load(narrower)
    with pytest.raises(SchemaError, match="missing: n"):
        riders.load(people((1, "a")))
    with pytest.raises(SchemaError, match=r"changed type: n \(int64 in the table, string now\)"):
        riders.load(people((1, "a"), n=pa.array(["1"])))
    assert riders.table.version() == 0


@pytest.mark.parametrize("change", ["added", "wider"])
def test_a_load_that_fails_at_its_commit_can_be_repeated(riders: Any, change: str) -> None:
    riders.load(people((1, "a"), (2, "b")))
    rows = people((1, "a"), (2, "c"), x=pa.array([None, 1]))
    if change == "wider":
        rows = rows.set_column(0, "id", pa.array([1, 2], pa.int64()))
    load = riders.landed(rows)
    before = riders.files()
    with armed("bronze-before-commit:raise"), pytest.raises(InjectedFault):
        bronze.apply(load, session=riders.session)
    assert riders.files() == before
    assert bronze.apply(load, session=riders.session).updated == 1
    assert batch_of(riders.table) == 2


def test_a_crash_between_the_new_column_and_the_data_loses_nothing(
    riders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    riders.load(people((1, "a")))
    load = riders.landed(people((1, "a"), (2, "b"), x=pa.array([1, 2])))
    with monkeypatch.context() as patch:

        def crash(*_: Any, **__: Any) -> None:
            raise InjectedFault("between the two commits")

        patch.setattr("platform_core.lake.commit.NewFiles._commit", crash)
        with pytest.raises(InjectedFault):
            bronze.apply(load, session=riders.session)
    assert (riders.table.version(), batch_of(riders.table)) == (1, 1)
    assert riders.rows()[0]["x"] is None
    outcome = bronze.apply(load, session=riders.session)
    assert (outcome.updated, outcome.inserted, outcome.version) == (1, 1, 2)
