"""Files that cannot hold a row of a batch are not read."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from platform_core.lake import attempt, pruning
from platform_core.lake.attempt import Attempt
from platform_core.lake.delta import DataFile


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Positions of the files that each load compared; no file is too small to be pruned or kept."""
    monkeypatch.setattr(attempt, "SMALL_FILE_BYTES", 0)
    monkeypatch.setattr(pruning, "FEW_BYTES", 0)
    seen: list[list[int]] = []
    choosing = Attempt._compared_files

    def watched(self: Any) -> Any:
        found = choosing(self)
        seen.append(list(found))
        return found

    monkeypatch.setattr(Attempt, "_compared_files", watched)
    return seen


def table(keys: pa.Array, value: str) -> pa.Table:
    return pa.table({"id": keys, "name": pa.array([value] * len(keys), pa.string())})


KEYS = {
    "integer": lambda i: pa.array([i], pa.int64()),
    "text": lambda i: pa.array([f"key {i:05d}"]),
    "date": lambda i: pa.array([dt.date(2026, 1, 1) + dt.timedelta(days=i)]),
    "timestamp": lambda i: pa.array(
        [dt.datetime(2026, 1, 1, microsecond=999) + dt.timedelta(hours=i)], pa.timestamp("us", "UTC")
    ),
}


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("kind", KEYS)
def test_only_files_whose_keys_reach_the_batch_are_compared(
    riders: Any, compared: list[list[int]], kind: str, held: bool
) -> None:
    key = KEYS[kind]
    for i in range(5):
        riders.load(table(key(10 * i), "a"), "incremental")
    compared.clear()
    outcome = riders.load(table(pa.concat_arrays([key(20), key(45)]), "b"), "incremental", held=held)
    assert [len(found) for found in compared] == [1]
    assert (outcome.updated, outcome.inserted) == (1, 1)
    assert [row["name"] for row in riders.rows()] == ["a", "a", "b", "a", "a", "b"]
    assert riders.load(table(key(20), "b"), "incremental").unchanged == 1


def test_a_batch_beyond_all_files_compares_none(riders: Any, compared: list[list[int]]) -> None:
    for i in range(3):
        riders.load(table(pa.array([i]), "a"), "incremental")
    compared.clear()
    outcome = riders.load(table(pa.array([7, 8]), "b"), "incremental", sequence_by="name", deleted_flag=None)
    assert (compared, outcome.inserted) == ([[]], 2)
    assert len(riders.data_files()) == 4


def test_a_snapshot_compares_every_file(riders: Any, compared: list[list[int]]) -> None:
    for i in range(3):
        riders.load(table(pa.array([i]), "a"), "incremental")
    compared.clear()
    assert riders.load(table(pa.array([2]), "b"), "full").deleted == 2
    assert compared == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("low", "high"), [(None, None), (None, "b"), ("a", None), ("a", "z" * 40)], ids=["none", "no low", "no high", "cut"]
)
def test_a_file_whose_range_is_not_known_is_compared(
    riders: Any, monkeypatch: pytest.MonkeyPatch, low: str | None, high: str | None
) -> None:
    monkeypatch.setattr(pruning, "FEW_BYTES", 0)

    def file(path: str, low: str | None, high: str | None) -> DataFile:
        lowest = {} if low is None else {"id": low}
        highest = {} if high is None else {"id": high}
        return DataFile(path=path, size=10, rows=1, lowest=lowest, highest=highest, nulls={})

    load = riders.landed(table(pa.array(["m"]), "x"), "incremental")
    with riders.session.cursor() as connection:
        found = pruning.files_with_keys(
            connection,
            [file("a", "a", "b"), file("b", low, high), file("c", "m", "m")],
            key="id",
            type_=pa.string(),
            landed=attempt.LandedRows(load).as_read,
            landing={"landed": list(load.files)},
        )
    assert found == [1, 2]
