"""What one load does to a bronze table, and what it refuses."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from platform_core.errors import LoadError, SchemaError, StorageError
from platform_core.lake import attempt, bronze, commit
from platform_core.lake.delta import DeltaTableReader, batch_of

ODD = 'we"ird, náme; "x"'


def people(*rows: tuple[int | None, str | None]) -> pa.Table:
    return pa.table(
        {"id": pa.array([row[0] for row in rows], pa.int64()), "name": pa.array([row[1] for row in rows], pa.string())}
    )


def test_a_load_without_changes_commits_nothing_and_touches_no_file(riders: Any) -> None:
    rows = people((1, "a"), (2, None))
    riders.load(rows)
    before = {name: Path(riders.uri, name).stat().st_mtime_ns for name in riders.files()}
    outcome = riders.load(rows)
    assert (outcome.unchanged, outcome.committed, outcome.version, outcome.written_bytes) == (2, False, 0, 0)
    assert {name: Path(riders.uri, name).stat().st_mtime_ns for name in riders.files()} == before


def test_the_first_load_makes_the_table_even_without_rows(riders: Any) -> None:
    outcome = riders.load(people())
    assert (outcome.committed, outcome.version, outcome.inserted) == (True, 0, 0)
    assert riders.rows() == []
    assert riders.load(people((1, "a"))).inserted == 1


def test_a_deleted_row_keeps_its_last_values_and_returns_with_a_new_date(riders: Any) -> None:
    riders.load(people((1, "a"), (2, "b")))
    assert riders.load(people((1, "a"))).deleted == 1
    gone = riders.rows()[1]
    assert (gone["name"], gone["_is_current"], gone["_is_deleted"], gone["_batch_id"]) == ("b", False, True, 2)
    assert riders.load(people((1, "a"))).committed is False
    back = riders.load(people((1, "a"), (2, "b")))
    assert (back.updated, back.inserted) == (1, 0)
    assert riders.rows()[1]["_is_current"] is True
    assert riders.rows()[1]["_modified_at"] == dt.datetime(2026, 1, 4, tzinfo=dt.UTC)


@pytest.mark.parametrize("mode", ["full", "incremental"])
@pytest.mark.parametrize("first", [True, False])
def test_null_and_doubled_keys_are_counted_and_nothing_is_written(riders: Any, mode: str, first: bool) -> None:
    if not first:
        riders.load(people((1, "a")))
    with pytest.raises(LoadError, match="2 rows have a null key and 1 rows a key that another row") as caught:
        riders.load(people((None, "Anna"), (None, "Anna"), (7, "Bob"), (7, "Bob")), mode)
    assert "Anna" not in str(caught.value)
    assert "Bob" not in str(caught.value)
    assert (riders.table is None) if first else (len(riders.files()) == 2)


def test_a_full_load_that_lost_too_much_is_stopped_with_the_figures(riders: Any) -> None:
    riders.load(people(*((i, "x") for i in range(40))))
    short = people(*((i, "x") for i in range(15)))
    with pytest.raises(LoadError, match=r"flag 25 of 40 current rows deleted \(62%, allowed 50%\); nothing"):
        riders.load(short, max_delete_ratio=0.5)
    assert len(riders.files()) == 2
    assert riders.load(short, max_delete_ratio=1).deleted == 25


def test_nine_deletes_are_never_too_many(riders: Any) -> None:
    riders.load(people(*((i, "x") for i in range(9))))
    assert riders.load(people(), max_delete_ratio=0.0).deleted == 9


def test_an_append_inserts_equal_rows_and_applies_a_batch_once(riders: Any) -> None:
    rows = people((1, "a"), (1, "a"))
    load = riders.landed(rows, "append")
    assert bronze.apply(load, session=riders.session).inserted == 2
    again = bronze.apply(load, session=riders.session)
    assert (again.committed, again.inserted, again.version) == (False, 0, 0)
    riders.load(rows, "append")
    assert len(riders.rows()) == 4


def test_columns_of_any_name_and_type_come_back_the_same_from_every_reader(riders: Any) -> None:
    riders.key = (ODD,)
    now = dt.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)
    rows = pa.table(
        {
            ODD: pa.array([1, 2, 3], pa.int64()),
            "filename": ["x", None, "z"],
            "action": pa.array([1, None, 3], pa.int8()),
            "gone": pa.array([1.5, None, 3], pa.float32()),
            "new_file.old": pa.array([Decimal("1.10"), None, Decimal("-3.30")], pa.decimal128(12, 2)),
            "select": pa.array([now, None, now], pa.timestamp("us", "UTC")),
            "clock": pa.array([now.replace(tzinfo=None), None, None], pa.timestamp("us")),
            "day": pa.array([dt.date(2026, 1, 1), None, None]),
            "blob": pa.array([b"\x00\xff", b"", None]),
            "list": pa.array([[1, None], [], None], pa.list_(pa.field("element", pa.int64()))),
            "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": None}]),
            "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
            "truth": [True, None, False],
        }
    )
    riders.load(rows)
    changed = rows.set_column(1, "filename", pa.array(["x", "new", "z"]))
    assert riders.load(changed).updated == 1
    assert riders.load(changed).committed is False
    names = rows.column_names
    expected = changed.to_pylist(maps_as_pydicts="strict")

    def same(found: pa.Table) -> bool:
        return sorted(found.select(names).to_pylist(maps_as_pydicts="strict"), key=lambda row: row[ODD]) == expected

    reader = DeltaTableReader.open(riders.uri, storage_options={})
    assert reader is not None
    assert same(reader.read().read_all())
    assert reader.schema.field("select").type == pa.timestamp("us", "UTC")
    assert same(riders.table.to_pyarrow_table())
    with riders.session.cursor() as connection:
        files = list(reader.plain_files or ())
        assert same(connection.read_parquet(files).to_arrow_table())


@pytest.mark.parametrize("name", ["_row_hash", "_Batch_ID", "file_row_number", "FILE_INDEX"])
def test_a_source_column_with_a_name_of_ours_is_refused(riders: Any, name: str) -> None:
    load = riders.landed(people((1, "a")))
    own = pa.schema([*load.schema, pa.field(name, pa.int64())]) if name != "_row_hash" else None
    if own is None:
        with pytest.raises(SchemaError, match="no column _row_hash"):
            bronze.apply(replace(load, schema=load.schema.remove(2)), session=riders.session)
        return
    with pytest.raises(SchemaError, match=f"names the platform needs: {name}"):
        bronze.apply(replace(load, schema=own), session=riders.session)


def test_changed_columns_are_listed_and_nothing_is_written(riders: Any) -> None:
    riders.load(people((1, "a")))
    other = pa.table({"id": pa.array([1], pa.int32()), "nickname": ["a"]})
    with pytest.raises(SchemaError) as caught:
        riders.load(other)
    assert "added: nickname" in str(caught.value)
    assert "missing: name" in str(caught.value)
    assert "changed type: id (int64 in the table, int32 now)" in str(caught.value)
    assert len(riders.files()) == 2


def test_the_order_of_columns_does_not_matter(riders: Any) -> None:
    riders.load(people((1, "a")))
    assert riders.load(people((1, "a")).select(["name", "id"])).committed is False


def test_only_files_with_changes_are_rewritten(riders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "SMALL_FILE_BYTES", 0)
    riders.load(people(*((i, "a") for i in range(100))), "incremental")
    riders.load(people(*((i, "a") for i in range(100, 200))), "incremental")
    first, second = riders.data_files()
    riders.load(people((150, "b")), "incremental")
    assert first in riders.data_files()
    assert second not in riders.data_files()
    assert len(riders.rows()) == 200


def test_small_files_are_merged_by_the_next_change(riders: Any) -> None:
    for i in range(5):
        riders.load(people((i, "a")), "incremental")
    assert len(riders.table.file_uris()) == 1
    assert [row["_batch_id"] for row in riders.rows()] == [1, 2, 3, 4, 5]


def test_a_writer_that_commits_in_between_makes_the_comparison_begin_anew(
    riders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    riders.load(people((1, "a"), (2, "a")))
    theirs = riders.landed(people((1, "b"), (2, "a")))
    later = riders.landed(people((1, "a"), (2, "c")), batch_id=3)
    commit_files, calls = commit.NewFiles.commit, []

    def interrupted(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(options["batch"])
        if len(calls) == 1:
            bronze.apply(theirs, session=riders.session)
        return commit_files(self, *arguments, **options)

    monkeypatch.setattr(commit.NewFiles, "commit", interrupted)
    outcome = bronze.apply(later, session=riders.session)
    assert calls == [3, 2, 3]
    assert (outcome.updated, outcome.version, batch_of(riders.table)) == (2, 2, 3)
    assert [row["name"] for row in riders.rows()] == ["a", "c"]
    assert all(file.is_file() for file in riders.data_files())


def test_a_foreign_append_in_between_is_not_overlooked(riders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    riders.load(people((1, "a")))
    foreign = riders.table.to_pyarrow_table().set_column(0, "id", pa.array([9], pa.int64()))
    commit_files, calls = commit.NewFiles.commit, []

    def interrupted(self: Any, *arguments: Any, **options: Any) -> Any:
        if not calls:
            write_deltalake(riders.uri, foreign, mode="append")
        calls.append(1)
        return commit_files(self, *arguments, **options)

    monkeypatch.setattr(commit.NewFiles, "commit", interrupted)
    assert riders.load(people((1, "b"))).deleted == 1
    assert len(calls) == 2
    assert [(row["id"], row["_is_current"]) for row in riders.rows()] == [(1, True), (9, False)]


def test_a_load_that_is_overtaken_again_and_again_gives_up(riders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    riders.load(people((1, "a")))

    def overtaken(*_: Any, **__: Any) -> Any:
        raise commit.TableMoved

    monkeypatch.setattr(commit.NewFiles, "commit", overtaken)
    before = riders.files()
    with pytest.raises(LoadError, match="other writers committed first 3 times"):
        riders.load(people((1, "b")))
    assert riders.files() == before


def test_two_threads_that_apply_one_batch_apply_it_once(riders: Any) -> None:
    riders.load(people(*((i, "a") for i in range(50))))
    load = riders.landed(people(*((i, "b") for i in range(50))))
    outcomes: list[Any] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(bronze.apply(load, session=riders.session))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.committed for outcome in outcomes) == [False, False, False, True]
    assert riders.table.version() == 1
    assert len(riders.rows()) == 50


def test_a_commit_whose_afterwork_failed_counts_as_committed(riders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    riders.load(people((1, "a")))
    committing = commit.NewFiles._commit

    def fails_afterwards(self: Any, *arguments: Any, **options: Any) -> None:
        committing(self, *arguments, **options)
        raise OSError(5, "the checkpoint could not be written")

    monkeypatch.setattr(commit.NewFiles, "_commit", fails_afterwards)
    outcome = riders.load(people((1, "b")))
    assert (outcome.committed, outcome.version) == (True, 1)
    assert riders.rows()[0]["name"] == "b"


def test_a_failed_write_leaves_the_table_and_no_file_behind(riders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    riders.load(people((1, "a")))
    before = riders.files()

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(commit.NewFiles, "_commit", refused)
    with pytest.raises(StorageError, match="nothing was committed\n  OSError: No space left"):
        riders.load(people((1, "b")))
    assert riders.files() == before


def test_an_engine_error_shows_no_row_value(riders: Any) -> None:
    load = riders.landed(people((1, "Anna")))
    Path(load.files[0]).write_bytes(b"Anna is not Parquet")
    with pytest.raises(StorageError) as caught:
        bronze.apply(load, session=riders.session)
    assert "Anna" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_table_with_other_row_hashes_is_refused(riders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    riders.load(people((1, "a")))
    monkeypatch.setattr("platform_core.lake.row_hash.HASH_VERSION", "xxh3-128/9")
    with pytest.raises(LoadError, match="of version xxh3-128/2, this release makes xxh3-128/9"):
        riders.load(people((1, "b")))


def test_the_log_holds_statistics_and_what_the_load_did(riders: Any) -> None:
    riders.load(people((1, "a"), (5, None)))
    actions = pa.table(riders.table.get_add_actions(flatten=True)).to_pylist()[0]
    assert (actions["num_records"], actions["min.id"], actions["max.id"], actions["null_count.name"]) == (2, 1, 5, 1)
    assert actions["max._batch_id"] == 1
    newest = riders.table.history(1)[0]
    assert (newest["edp.batch"], newest["edp.inserted"], newest["edp.mode"]) == ("1", "2", "full")


def test_a_late_row_is_left_out_and_counted(riders: Any) -> None:
    def changes(*rows: tuple[int, int | None, str]) -> pa.Table:
        return pa.table(
            {"id": [r[0] for r in rows], "at": pa.array([r[1] for r in rows], pa.int64()), "name": [r[2] for r in rows]}
        )

    riders.load(changes((1, 10, "new"), (2, None, "null")), "incremental", sequence_by="at")
    outcome = riders.load(changes((1, 9, "old"), (2, None, "same age")), "incremental", sequence_by="at")
    assert (outcome.late, outcome.updated) == (1, 1)
    assert [row["name"] for row in riders.rows()] == ["new", "same age"]
    assert riders.load(changes((2, None, "same age")), "incremental", sequence_by="at").committed is False


def test_an_integer_may_flag_deleted_rows_and_a_text_may_not(riders: Any) -> None:
    def flagged(flag: pa.Array) -> pa.Table:
        return people((1, "a"), (2, "b")).append_column("gone", flag)

    outcome = riders.load(flagged(pa.array([0, 1])), "incremental", deleted_flag="gone")
    assert outcome.inserted == 2
    assert [row["_is_deleted"] for row in riders.rows()] == [False, True]
    with pytest.raises(SchemaError, match="'gone' of type string cannot flag deleted rows"):
        riders.load(flagged(pa.array(["no", "yes"])), "incremental", deleted_flag="gone")
