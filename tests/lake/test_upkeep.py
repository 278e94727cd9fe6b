"""What upkeep does to tables and landed batches, on a disk and on Azure storage."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from platform_core.lake import upkeep
from platform_core.lake.landing import LandingWriter, batch_uri, read_batch
from platform_core.lake.paths import Lake
from platform_core.lake.row_hash import HASH_FIELD, with_hash
from platform_core.lake.storage import filesystem, local_path
from platform_core.lake.upkeep import Busy, Freed
from platform_core.specs.table import TableRef

REF = TableRef("crm", "bronze", "customers")
HOUR = dt.timedelta(hours=1)
NOW = dt.timedelta(0)


def append(lake: Lake, *, times: int, ref: TableRef = REF) -> str:
    uri = lake.table(ref)
    for number in range(times):
        rows = pa.table({"id": list(range(number * 10, number * 10 + 10)), "name": ["x"] * 10})
        write_deltalake(uri, rows, mode="append", storage_options=dict(lake.storage_options))
    return uri


def opened(lake: Lake, uri: str) -> DeltaTable:
    return DeltaTable(uri, storage_options=dict(lake.storage_options))


def ids(lake: Lake, uri: str) -> list[int]:
    found: list[int] = pa.table(opened(lake, uri).scan(columns=["id"]))["id"].to_pylist()
    return sorted(found)


def land(lake: Lake, batch: int) -> str:
    rows = with_hash(pa.RecordBatch.from_pydict({"id": [batch]}))
    uri = batch_uri(lake.landing(REF), batch)
    schema = pa.schema([("id", pa.int64())]).append(HASH_FIELD)
    with LandingWriter(uri, storage_options=lake.storage_options, schema=schema, batch_id=batch, mode="full") as writer:
        writer.write(rows)
        writer.complete()
    return uri


def leave(lake: Lake, uri: str, name: str, content: bytes = b"left") -> None:
    if (folder := local_path(uri)) is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with filesystem(uri, lake.storage_options).open_output_stream(name) as stream:
        stream.write(content)


def exists(lake: Lake, uri: str, name: str) -> bool:
    found: bool = filesystem(uri, lake.storage_options).get_file_info(name).is_file
    return found


def test_every_table_of_the_lake_is_found_and_nothing_else(any_lake: Lake) -> None:
    append(any_lake, times=1)
    append(any_lake, times=1, ref=TableRef("crm", "gold", "daily"))
    append(any_lake, times=1, ref=TableRef("ops", "bronze", "stops"))
    land(any_lake, 1)
    leave(any_lake, any_lake.table(TableRef("crm", "dashboard", "sales")), "index.html")
    assert [str(ref) for ref in upkeep.tables(any_lake)] == [
        "crm.bronze.customers",
        "crm.gold.daily",
        "ops.bronze.stops",
    ]
    assert list(upkeep.landed_tables(any_lake)) == [REF]


def test_a_lake_without_a_folder_has_no_tables(tmp_path: Path) -> None:
    assert list(upkeep.tables(Lake(str(tmp_path / "none")))) == []


def test_small_files_become_one_and_no_row_is_lost(any_lake: Lake) -> None:
    uri = append(any_lake, times=12)
    done = upkeep.compact(uri, storage_options=any_lake.storage_options, target_bytes=1 << 20, small_files=4)
    assert done is not None
    assert (done.files_before, done.files_after, done.committed) == (12, 1, True)
    assert len(opened(any_lake, uri).file_uris()) == 1
    assert ids(any_lake, uri) == list(range(120))


def test_a_table_with_few_small_files_is_left_alone(any_lake: Lake) -> None:
    uri = append(any_lake, times=3)
    done = upkeep.compact(uri, storage_options=any_lake.storage_options, target_bytes=1 << 20, small_files=3)
    assert done is not None
    assert not done.committed
    assert opened(any_lake, uri).version() == 2


def test_z_order_clusters_rows_by_the_given_columns(any_lake: Lake) -> None:
    uri = any_lake.table(REF)
    for number in range(6):
        rows = pa.table({"id": [number, 100 - number], "name": ["a", "b"]})
        write_deltalake(uri, rows, mode="append", storage_options=dict(any_lake.storage_options))
    upkeep.compact(uri, storage_options=any_lake.storage_options, target_bytes=1 << 20, small_files=2, z_order=("id",))
    (file,) = opened(any_lake, uri).file_uris()
    order = pa.table(opened(any_lake, uri).scan(columns=["id"]))["id"].to_pylist()
    assert order == sorted(order), file


def test_compaction_gives_way_to_another_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path / "lake"))
    uri = append(lake, times=6)
    stale = opened(lake, uri)
    append(lake, times=1)
    # Somebody's delete, not a mere append, is what a rewrite of the same files conflicts with.
    opened(lake, uri).delete("id = 1")
    monkeypatch.setattr(upkeep, "open_table", lambda *_, **__: stale)
    with pytest.raises(Busy):
        upkeep.compact(uri, storage_options={}, target_bytes=1 << 20, small_files=2)
    assert 1 not in ids(lake, uri)


def test_vacuum_removes_what_left_the_table_and_says_how_much(any_lake: Lake) -> None:
    uri = append(any_lake, times=6)
    before = sum(opened(any_lake, uri).get_add_actions()["size_bytes"].to_pylist())
    upkeep.compact(uri, storage_options=any_lake.storage_options, target_bytes=1 << 20, small_files=2)
    assert upkeep.vacuum(uri, storage_options=any_lake.storage_options, retention=HOUR, untracked=False) == Freed()
    freed = upkeep.vacuum(uri, storage_options=any_lake.storage_options, retention=NOW, untracked=False)
    assert freed == Freed(files=6, bytes=before)
    assert ids(any_lake, uri) == list(range(60))
    again = upkeep.vacuum(uri, storage_options=any_lake.storage_options, retention=NOW, untracked=True)
    assert again == Freed(), "what is gone is not counted twice"


def test_a16_a_reader_of_an_older_version_reads_on_within_the_retention(any_lake: Lake) -> None:
    uri = append(any_lake, times=6)
    reader = opened(any_lake, uri)
    upkeep.compact(uri, storage_options=any_lake.storage_options, target_bytes=1 << 20, small_files=2)
    upkeep.vacuum(uri, storage_options=any_lake.storage_options, retention=HOUR, untracked=True)
    assert pa.table(reader.scan(columns=["id"])).num_rows == 60


def test_a10_files_of_a_killed_writer_go_once_they_are_old(any_lake: Lake) -> None:
    uri = append(any_lake, times=2)
    leave(any_lake, uri, "part-dead-0.parquet")
    options = any_lake.storage_options
    assert upkeep.vacuum(uri, storage_options=options, retention=HOUR, untracked=True) == Freed()
    assert exists(any_lake, uri, "part-dead-0.parquet")
    time.sleep(1.1)
    assert upkeep.vacuum(uri, storage_options=options, retention=NOW, untracked=True) == Freed(files=1, bytes=4)
    assert not exists(any_lake, uri, "part-dead-0.parquet")
    assert ids(any_lake, uri) == list(range(20))


def test_the_log_is_shortened_and_the_table_still_reads(any_lake: Lake) -> None:
    uri = append(any_lake, times=12)
    # Log files are older than "now" only once the clock of the store moved on.
    time.sleep(1.1)
    freed = upkeep.truncate_log(uri, storage_options=any_lake.storage_options, retention=NOW)
    assert freed.files >= 10
    assert freed.bytes > 0
    assert ids(any_lake, uri) == list(range(120))
    append(any_lake, times=1, ref=REF)
    assert len(ids(any_lake, uri)) == 130


def test_within_the_usual_retention_the_log_stays_and_no_commit_is_made(any_lake: Lake) -> None:
    uri = append(any_lake, times=3)
    freed = upkeep.truncate_log(uri, storage_options=any_lake.storage_options, retention=dt.timedelta(days=30))
    assert freed == Freed()
    assert opened(any_lake, uri).version() == 2


def sweep(lake: Lake, *, retention: dt.timedelta, keep: int | None, kept: frozenset[int] = frozenset()) -> Freed:
    return upkeep.sweep_landing(
        lake.landing(REF),
        storage_options=lake.storage_options,
        retention=retention,
        now=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2),
        keep=keep,
        kept=kept.__contains__,
    )


def whole(lake: Lake) -> list[int]:
    uris = [(number, batch_uri(lake.landing(REF), number)) for number in range(1, 7)]
    return [number for number, uri in uris if read_batch(uri, storage_options=lake.storage_options) is not None]


def test_landed_batches_go_by_age_but_the_newest_and_the_waiting_stay(any_lake: Lake) -> None:
    for number in range(1, 6):
        land(any_lake, number)
    assert sweep(any_lake, retention=HOUR, keep=0) == Freed()
    freed = sweep(any_lake, retention=NOW, keep=2, kept=frozenset({2}))
    assert freed.files == 4, "two batches of one file and one manifest"
    assert whole(any_lake) == [2, 4, 5]


def test_a10_unfinished_batches_go_and_whole_ones_stay(any_lake: Lake) -> None:
    land(any_lake, 1)
    leave(any_lake, batch_uri(any_lake.landing(REF), 2), "part-00000.parquet")
    assert sweep(any_lake, retention=HOUR, keep=None) == Freed()
    assert sweep(any_lake, retention=NOW, keep=None) == Freed(files=1, bytes=4)
    assert whole(any_lake) == [1]


def test_an_empty_folder_of_a_killed_load_goes_too(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    folder = Path(batch_uri(lake.landing(REF), 7))
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    sweep(lake, retention=HOUR, keep=None)
    assert not folder.exists()
