"""Writing the result of a step or model, and reading tables back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.errors import LoadError, SchemaError, StepError, StorageError
from platform_core.lake import delta
from platform_core.lake.delta import APPLICATION, DeltaTableReader, batch_of, commit_properties, open_table, write
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

TABLE = TableRef("demo", "gold", "daily")
ROWS = pa.table({"day": [1, 2], 'am"ount': [1.5, None]})


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    return {"table": TABLE, "uri": str(tmp_path / "my lake" / "daily"), "storage_options": {}}


def read(place: dict[str, Any]) -> list[dict[str, Any]]:
    reader = DeltaTableReader.open(place["uri"], storage_options={})
    assert reader is not None
    return sorted(reader.read().read_all().to_pylist(), key=lambda row: row["day"])


def put(place: dict[str, Any], rows: pa.Table = ROWS, mode: str = "overwrite", **options: Any) -> Any:
    return write(rows.to_reader(), mode=WriteMode(mode), **place, **options)


def test_a_table_that_is_not_there_opens_as_none(place: dict[str, Any]) -> None:
    assert open_table(place["uri"], storage_options={}) is None
    assert DeltaTableReader.open(place["uri"], storage_options={}) is None
    assert batch_of(None) == 0


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("overwrite", [(2, None), (3, 9.0)]),
        ("append", [(1, 1.5), (2, None), (2, None), (3, 9.0)]),
        ("merge", [(1, 1.5), (2, None), (3, 9.0)]),
    ],
)
def test_each_mode_is_one_commit(place: dict[str, Any], mode: str, expected: list[Any]) -> None:
    first = put(place, mode=mode, key=("day",))
    assert (first.version, first.rows, first.committed) == (0, 2, True)
    second = put(place, pa.table({"day": [2, 3], 'am"ount': [None, 9.0]}), mode, key=("day",))
    assert second.version == 1
    assert second.bytes > 0
    assert sorted([tuple(row.values()) for row in read(place)], key=str) == sorted(expected, key=str)


def test_merge_updates_by_a_key_of_odd_names(place: dict[str, Any]) -> None:
    rows = pa.table({'a "b"': [1, 2], "c`d": ["x", "x"], "day": [1, 2]})
    put(place, rows, "merge", key=('a "b"', "c`d"))
    put(place, rows.slice(1).set_column(2, "day", pa.array([7])), "merge", key=('a "b"', "c`d"))
    assert [row["day"] for row in read(place)] == [1, 7]


def test_a_batch_that_the_table_holds_is_not_written_again(place: dict[str, Any]) -> None:
    assert put(place, mode="append", batch=5).committed
    again = put(place, mode="append", batch=5)
    assert (again.committed, again.version, again.rows) == (False, 0, 0)
    assert not put(place, mode="append", batch=4).committed
    assert put(place, mode="append").version == 1
    assert DeltaTable(place["uri"]).transaction_version(APPLICATION) == 6


def test_texts_are_committed_with_the_data(place: dict[str, Any]) -> None:
    put(place, metadata={"run": "abc"})
    assert DeltaTable(place["uri"]).history(1)[0]["edp.run"] == "abc"


def test_null_and_doubled_keys_stop_a_merge_with_counts(place: dict[str, Any]) -> None:
    rows = pa.table({"day": [None, None, 7, 7], 'am"ount': [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(LoadError, match="2 rows with a null key and 2 rows with a key that another row has, of 4"):
        put(place, rows, "merge", key=("day",))
    assert open_table(place["uri"], storage_options={}) is None


def test_columns_that_do_not_fit_are_listed(place: dict[str, Any]) -> None:
    put(place)
    with pytest.raises(SchemaError, match='added: extra\n  missing: am"ount\n  changed type: day'):
        put(place, pa.table({"day": ["x"], "extra": [1]}), "append")
    assert put(place, pa.table({"day": ["x"], "extra": [1]})).version == 1
    assert read(place) == [{"day": "x", "extra": 1}]


@pytest.mark.parametrize("mode", ["overwrite", "append", "merge"])
@pytest.mark.parametrize("exists", [True, False])
def test_an_error_of_ours_in_the_stream_passes_and_nothing_is_committed(
    place: dict[str, Any], mode: str, exists: bool
) -> None:
    if exists:
        put(place)

    def rows() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise StepError("the query failed")

    with pytest.raises(StepError, match="the query failed"):
        write(pa.RecordBatchReader.from_batches(ROWS.schema, rows()), mode=WriteMode(mode), key=("day",), **place)
    table = open_table(place["uri"], storage_options={})
    assert (table is None) if not exists else (table is not None and table.version() == 0)


def test_a_foreign_error_in_the_stream_shows_no_value(place: dict[str, Any]) -> None:
    def rows() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise ValueError("Anna is no number")

    with pytest.raises(StorageError) as caught:
        write(pa.RecordBatchReader.from_batches(ROWS.schema, rows()), mode=WriteMode.OVERWRITE, **place)
    assert "Anna" not in str(caught.value)
    assert "ValueError" in str(caught.value)


def test_a_writer_that_commits_in_between_stops_the_write(place: dict[str, Any]) -> None:
    put(place)

    def rows() -> Iterator[pa.RecordBatch]:
        put(place, mode="append")
        yield from ROWS.to_batches()

    with pytest.raises(LoadError, match="another writer committed first"):
        write(pa.RecordBatchReader.from_batches(ROWS.schema, rows()), mode=WriteMode.OVERWRITE, **place)
    assert len(read(place)) == 4


def test_a_commit_whose_afterwork_failed_counts_as_written(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place)
    writing = delta._replace_or_add

    def fails_afterwards(*arguments: Any) -> None:
        writing(*arguments)
        raise OSError(5, "the checkpoint could not be written")

    monkeypatch.setattr(delta, "_replace_or_add", fails_afterwards)
    assert put(place, mode="append").version == 1
    assert len(read(place)) == 4


def test_a_write_that_failed_says_that_nothing_was_committed(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(delta, "_replace_or_add", full)
    with pytest.raises(StorageError, match="nothing was committed\n  OSError: No space left on device"):
        put(place, mode="append")


def test_the_same_application_refuses_a_handle_that_became_stale(place: dict[str, Any]) -> None:
    put(place)
    stale = DeltaTable(place["uri"])
    put(place, mode="append")
    with pytest.raises(Exception, match=r"commit|transaction"):
        write_deltalake(stale, ROWS, mode="append", commit_properties=commit_properties(2, {}))


def test_types_that_delta_lacks_get_their_nearest(place: dict[str, Any]) -> None:
    rows = pa.table(
        {
            "day": pa.array([1, 255], pa.uint8()),
            "big": pa.array([2**64 - 1, None], pa.uint64()),
            "word": pa.array(["a", "b"]).dictionary_encode(),
            "nothing": pa.nulls(2),
            "time": pa.array([dt.time(1, 2, 3), None]),
            "fine": pa.array([1_500, None], pa.timestamp("ns", "Europe/Amsterdam")),
            "span": pa.array([dt.timedelta(seconds=1), None]),
        }
    )
    put(place, rows)
    assert read(place)[0] == {
        "day": 1,
        "big": 2**64 - 1,
        "word": "a",
        "nothing": None,
        "time": "01:02:03.000000",
        "fine": dt.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC),
        "span": 1_000_000,
    }


def test_a_reader_stays_on_its_version_and_reads_the_columns_asked_for(place: dict[str, Any]) -> None:
    put(place)
    reader = DeltaTableReader.open(place["uri"], storage_options={})
    assert reader is not None
    put(place, mode="append")
    found = reader.read(columns=('am"ount', "day")).read_all()
    assert found.column_names == ['am"ount', "day"]
    assert (reader.version, reader.batch, found.num_rows) == (0, 1, 2)
    assert all(Path(file).is_file() for file in reader.plain_files or ())
    with pytest.raises(SchemaError, match="no column week\n  columns: day"):
        reader.read(columns=("week",))


def test_a_table_with_deletion_vectors_or_partitions_offers_no_plain_files(place: dict[str, Any]) -> None:
    write_deltalake(place["uri"], ROWS, partition_by=["day"])
    reader = DeltaTableReader.open(place["uri"], storage_options={})
    assert reader is not None
    assert reader.plain_files is None
    assert [row["day"] for row in read(place)] == [1, 2]
    write_deltalake(place["uri"] + "2", ROWS, configuration={"delta.enableDeletionVectors": "true"})
    vectors = DeltaTableReader.open(place["uri"] + "2", storage_options={})
    assert vectors is not None
    assert vectors.plain_files is None
