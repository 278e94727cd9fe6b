"""The history of a table holds every version of every row, and catches up after a crash."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_core.errors import LoadError, SchemaError, StorageError
from platform_core.faults import InjectedFault, armed
from platform_core.lake import bronze, commit, history
from platform_core.lake.delta import batch_of, data_files, open_table

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def people(*rows: tuple[int, str]) -> pa.Table:
    names = pa.array([row[1] for row in rows], pa.string())
    return pa.table({"id": pa.array([row[0] for row in rows], pa.int64()), "name": names})


@pytest.fixture
def kept(riders: Any, tmp_path: Path) -> Any:
    """An empty table whose history is kept."""
    riders.options["history_uri"] = str(tmp_path / "history lake" / "riders_history")
    return riders


def table_of(kept: Any) -> Any:
    return open_table(kept.options["history_uri"], storage_options={})


def versions(kept: Any) -> list[tuple[Any, ...]]:
    """Key, name, day of begin and end, deleted, batch."""
    return [
        (
            row["id"],
            row["name"],
            (row["_valid_from"] - DAY).days,
            None if row["_valid_to"] is None else (row["_valid_to"] - DAY).days,
            row["_is_deleted"],
            row["_batch_id"],
        )
        for row in kept.history()
    ]


def test_rows_open_and_close_versions_as_they_come_change_go_and_return(kept: Any) -> None:
    kept.load(people((1, "a"), (2, "b")))
    kept.load(people((1, "x"), (2, "b")))
    kept.load(people((2, "b")))
    kept.load(people((1, "x"), (2, "b")))
    assert versions(kept) == [
        (1, "a", 1, 2, False, 2),
        (1, "x", 2, 3, True, 3),
        (1, "x", 4, None, False, 4),
        (2, "b", 1, None, False, 1),
    ]
    assert batch_of(table_of(kept)) == 4


def test_a_load_without_changes_makes_no_commit_in_the_history(kept: Any) -> None:
    kept.load(people((1, "a")))
    for held in (False, True):
        kept.load(people((1, "a")), held=held)
    assert table_of(kept).version() == 0


def test_an_empty_first_load_makes_the_history_too(kept: Any) -> None:
    kept.load(people())
    assert kept.history() == []
    kept.load(people((1, "a")))
    assert versions(kept) == [(1, "a", 2, None, False, 2)]


def test_the_versions_of_a_moment_are_those_that_bronze_had(kept: Any) -> None:
    snapshots = [[(1, "a"), (2, "b")], [(1, "x"), (3, "c")], [(3, "d")], [(1, "x"), (2, "b"), (3, "d")]]
    for rows in snapshots:
        kept.load(people(*rows))
    for day, rows in enumerate(snapshots, start=1):
        moment = DAY + dt.timedelta(days=day)
        then = [
            (row["id"], row["name"])
            for row in kept.history()
            if row["_valid_from"] <= moment and (row["_valid_to"] is None or moment < row["_valid_to"])
        ]
        assert then == rows


@pytest.mark.parametrize("point", ["bronze-after-commit", "history-commit"])
@pytest.mark.parametrize("next_rows", [[(1, "x"), (3, "c")], [(1, "x"), (2, "b")]])
def test_what_a_crash_kept_from_the_history_is_made_up_for(kept: Any, point: str, next_rows: list[Any]) -> None:
    kept.load(people((1, "a"), (2, "b")))
    with armed(f"{point}:raise"), pytest.raises(InjectedFault):
        kept.load(people((1, "x"), (2, "b")))
    assert (batch_of(kept.table), batch_of(table_of(kept))) == (2, 1)
    kept.load(people(*next_rows))
    assert versions(kept)[:2] == [(1, "a", 1, 2, False, 2), (1, "x", 2, None, False, 2)]
    assert batch_of(table_of(kept)) == batch_of(kept.table)
    gone = next_rows[1][0] == 3
    assert versions(kept)[2] == (2, "b", 1, 3 if gone else None, gone, 3 if gone else 1)


def test_a_replayed_batch_repairs_the_history(kept: Any) -> None:
    load = kept.landed(people((1, "a")))
    with armed("history-commit:raise"), pytest.raises(InjectedFault):
        bronze.apply(load, session=kept.session)
    assert table_of(kept) is None
    assert bronze.apply(load, session=kept.session).committed is False
    assert versions(kept) == [(1, "a", 1, None, False, 1)]


def test_a_history_that_begins_late_begins_with_what_is_current(kept: Any) -> None:
    uri = kept.options.pop("history_uri")
    kept.load(people((1, "a"), (2, "b")))
    kept.load(people((1, "x")))
    kept.options["history_uri"] = uri
    kept.load(people((1, "x"), (3, "c")))
    assert versions(kept) == [(1, "x", 2, None, False, 2), (3, "c", 3, None, False, 3)]


def test_a_clock_that_runs_backwards_makes_no_overlap(kept: Any) -> None:
    kept.load(people((1, "a")))
    kept.load(people((1, "b")), modified_at=DAY - dt.timedelta(hours=1))
    kept.load(people((1, "c")), modified_at=DAY + dt.timedelta(days=9))
    assert versions(kept) == [(1, "a", 1, 1, False, 2), (1, "b", 1, 9, False, 3), (1, "c", 9, None, False, 3)]
    assert (
        kept.history()[0]["_valid_to"] == kept.history()[1]["_valid_from"] == DAY + dt.timedelta(days=1, milliseconds=1)
    )


def test_a_row_that_comes_as_gone_has_no_version(kept: Any) -> None:
    flag = pa.array([True, False])
    rows = people((1, "a"), (2, "b")).append_column("gone", flag)
    kept.load(rows, "incremental", deleted_flag="gone")
    assert [(row["id"], row["_valid_to"]) for row in kept.history()] == [(2, None)]
    kept.load(rows.slice(1).set_column(2, "gone", pa.array([True])), "incremental", deleted_flag="gone")
    assert versions(kept) == [(2, "b", 1, 2, True, 2)]


def test_a_comparison_of_keys_closes_versions(kept: Any) -> None:
    kept.load(people((1, "a"), (2, "b")), "incremental")
    kept.load(pa.table({"id": [1]}), "incremental", keys_only=True)
    assert versions(kept) == [(1, "a", 1, None, False, 1), (2, "b", 1, 2, True, 2)]


def test_only_files_with_open_versions_of_changed_rows_are_rewritten(
    kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SMALL_FILE_BYTES", 0)
    kept.load(people((1, "a"), (2, "b")), "incremental")
    kept.load(people((3, "c")), "incremental")
    kept.load(people((1, "x")), "incremental")
    before = {file.path for file in data_files(table_of(kept))}
    kept.load(people((3, "y")), "incremental")
    after = {file.path for file in data_files(table_of(kept))}
    assert len(before & after) == 3
    assert [version[:4] for version in versions(kept)] == [
        (1, "a", 1, 3),
        (1, "x", 3, None),
        (2, "b", 1, None),
        (3, "c", 2, 4),
        (3, "y", 4, None),
    ]


def test_small_files_of_the_history_are_merged(kept: Any) -> None:
    for i in range(6):
        kept.load(people((1, f"v{i}")))
    assert len(data_files(table_of(kept))) <= 2
    assert len(versions(kept)) == 6


def test_new_columns_and_wider_types_reach_the_history(kept: Any) -> None:
    kept.load(people((1, "a"), (2, "b")))
    kept.load(people((1, "a"), (2, "x")))
    wide = people((1, "a"), (2, "x")).append_column("score", pa.array([None, 0.5]))
    kept.load(wide)
    decimals = pa.array([1, 2], pa.int64()).cast(pa.decimal128(19, 0))
    kept.load(wide.set_column(0, "id", decimals))
    kept.load(wide.set_column(0, "id", decimals).set_column(1, "name", pa.array(["a", "z"])))
    assert [(int(row["id"]), row["name"], row["score"]) for row in kept.history()] == [
        (1, "a", None),
        (2, "b", None),
        (2, "x", None),
        (2, "x", 0.5),
        (2, "z", 0.5),
    ]
    files = [Path(kept.options["history_uri"]) / file.path for file in data_files(table_of(kept))]
    assert {pq.read_schema(file).field("id").type for file in files} == {pa.decimal128(19, 0)}
    found = duckdb.read_parquet([str(file) for file in files], union_by_name=True).to_arrow_table()
    assert found.num_rows == 5
    assert kept.history()[0]["_batch_id"] == 1


def test_a_history_that_somebody_else_brought_up_is_left_alone(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.load(people((1, "a")))
    committing, calls = commit.NewFiles.commit, []

    def overtaken(self: Any, table: Any, **options: Any) -> Any:
        if "riders_history" in self.uri and not calls:
            calls.append(1)
            history.catch_up(load, session=kept.session)
        return committing(self, table, **options)

    load = kept.landed(people((1, "b")))
    monkeypatch.setattr(commit.NewFiles, "commit", overtaken)
    assert bronze.apply(load, session=kept.session).committed
    assert versions(kept) == [(1, "a", 1, 2, False, 2), (1, "b", 2, None, False, 2)]
    assert table_of(kept).version() == 1


def test_a_history_that_others_keep_committing_to_is_given_up_and_bronze_stays(
    kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing = commit.NewFiles.commit

    def moved(self: Any, *arguments: Any, **options: Any) -> Any:
        if "riders_history" in self.uri:
            raise commit.TableMoved
        return committing(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(commit.NewFiles, "commit", moved)
        with pytest.raises(LoadError, match="committed to its history first 3 times\n  bronze is loaded"):
            kept.load(people((1, "a")))
    assert batch_of(kept.table) == 1
    kept.load(people((1, "a")))
    assert versions(kept) == [(1, "a", 1, None, False, 1)]


def test_a_source_column_with_a_name_of_the_history_is_refused_before_bronze_is_loaded(kept: Any) -> None:
    rows = people((1, "a")).append_column("_Valid_To", pa.array(["x"]))
    with pytest.raises(SchemaError, match="whose names the history needs: _Valid_To"):
        kept.load(rows)
    assert kept.table is None
    assert kept.load(rows, history_uri=None).inserted == 1


def test_an_error_of_the_engine_shows_no_row_value(kept: Any) -> None:
    kept.load(people((1, "Anna")))
    (file,) = Path(kept.options["history_uri"]).glob("*.parquet")
    file.write_bytes(b"Anna is not Parquet")
    with pytest.raises(StorageError) as caught:
        kept.load(people((1, "Bob")))
    assert "Anna" not in str(caught.value)
    assert batch_of(kept.table) == 2


def test_a_table_without_history_has_none(riders: Any, tmp_path: Path) -> None:
    load = riders.landed(people((1, "a")))
    history.catch_up(replace(load, history_uri=None), session=riders.session)
    history.catch_up(replace(load, history_uri=str(tmp_path / "h")), session=riders.session)
    assert not (tmp_path / "h").exists()
