"""In large tables what a load changed lies in files of its own, so that a step reads it without the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from platform_core.lake import attempt, bronze
from platform_core.lake.delta import DeltaTableReader, data_files
from platform_core.operations.step_context import InputTable
from platform_core.specs.table import TableRef

RIDERS = TableRef("demo", "bronze", "riders")


@pytest.fixture(autouse=True)
def every_table_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bronze, "LARGE_BYTES", 0)


def people(*ids: int, name: str = "a", **named: str) -> pa.Table:
    """Riders of these ids; ``_3="b"`` gives one of them another name."""
    names = [named.get(f"_{id}", name) for id in ids]
    return pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array(names)})


def changed(riders: Any, *, since: int) -> list[tuple[int, str, bool]]:
    """What a step gets that had read up to a batch; files without newer rows are damaged before."""
    for file in data_files(riders.table, columns=("_batch_id",)):
        if file.highest["_batch_id"] <= since:
            Path(riders.uri, file.path).write_bytes(b"not parquet")
    reader = DeltaTableReader.open(riders.uri, storage_options={})
    assert reader is not None
    table = InputTable(RIDERS, reader, lambda: pytest.fail("no relation is asked for"))
    found = table.newer_than(since).read_all().to_pylist()
    return sorted((row["id"], row["name"], row["_is_deleted"]) for row in found)


def batches_by_file(riders: Any) -> list[tuple[int, int]]:
    files = data_files(riders.table, columns=("_batch_id",))
    return sorted((file.lowest["_batch_id"], file.highest["_batch_id"]) for file in files)


def test_updated_inserted_and_vanished_rows_are_read_alone(riders: Any) -> None:
    riders.load(people(*range(1, 9)))
    outcome = riders.load(people(1, 3, 4, 5, 7, 8, 9, _3="b"), max_delete_ratio=1.0)
    assert (outcome.inserted, outcome.updated, outcome.deleted, outcome.unchanged) == (1, 1, 2, 5)
    assert {*batches_by_file(riders)} == {(1, 1), (2, 2)}
    assert len(riders.rows()) == 9
    assert changed(riders, since=1) == [(2, "a", True), (3, "b", False), (6, "a", True), (9, "a", False)]


def test_a_batch_without_changes_is_told_so_after_rows_have_vanished(riders: Any) -> None:
    riders.load(people(*range(1, 9)))
    riders.load(people(1, 3, 4, 5, 7, 8, 9, _3="b"), max_delete_ratio=1.0)
    outcome = riders.load(people(1, 3, 4, 5, 7, 8, 9, _3="b"), held=True)
    assert (outcome.committed, outcome.unchanged) == (False, 7)


def test_vanished_rows_are_read_alone_where_nothing_else_changed(riders: Any) -> None:
    riders.load(people(*range(1, 9)))
    assert riders.load(people(1, 2, 3, 4, 5, 7, 8)).deleted == 1
    assert {*batches_by_file(riders)} == {(1, 1), (2, 2)}
    assert changed(riders, since=1) == [(6, "a", True)]


def test_rows_that_a_comparison_of_keys_alone_flags_are_read_alone(riders: Any) -> None:
    riders.load(people(*range(1, 9)), "incremental")
    keys = people(1, 2, 3, 5, 7, 8).select(["id"])
    outcome = riders.load(keys, "incremental", keys_only=True, schema=keys.schema, max_delete_ratio=1.0)
    assert (outcome.deleted, outcome.unchanged) == (2, 6)
    assert {*batches_by_file(riders)} == {(1, 1), (2, 2)}
    assert changed(riders, since=1) == [(4, "a", True), (6, "a", True)]


def test_rows_that_came_back_are_read_alone(riders: Any) -> None:
    riders.load(people(1, 2, 3))
    riders.load(people(1, 3))
    assert riders.load(people(1, 2, 3)).updated == 1
    assert changed(riders, since=2) == [(2, "a", False)]


def test_a_step_that_stayed_behind_gets_the_changes_of_all_loads_since(
    riders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "SMALL_FILE_BYTES", 0)
    riders.load(people(*range(1, 9)), "incremental")
    for id in (2, 4, 6):
        riders.load(people(id, name="b"), "incremental")
    assert {*batches_by_file(riders)} == {(1, 1), (2, 2), (3, 3), (4, 4)}
    assert changed(riders, since=1) == [(2, "b", False), (4, "b", False), (6, "b", False)]
