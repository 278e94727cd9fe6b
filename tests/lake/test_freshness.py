"""Whether an open table is still the newest."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from platform_core.lake import freshness
from platform_core.lake.delta import fence
from platform_core.lake.freshness import NewestLoad, is_newest, newest_load


def test_a_table_is_the_newest_until_a_version_is_committed(tmp_path: Path) -> None:
    uri = str(tmp_path / "a table")
    write_deltalake(uri, pa.table({"id": [1]}))
    table = DeltaTable(uri)
    assert is_newest(table.version(), uri, storage_options={})
    write_deltalake(uri, pa.table({"id": [2]}), mode="append")
    assert not is_newest(table.version(), uri, storage_options={})
    assert is_newest(DeltaTable(uri).version(), uri, storage_options={})


def load(uri: str, batch_id: int, rows: int = 1) -> None:
    properties = CommitProperties(app_transactions=[Transaction("edp", batch_id)])
    write_deltalake(uri, pa.table({"id": [*range(rows)]}), mode="append", commit_properties=properties)


def test_the_newest_load_is_told_by_its_commit_alone(tmp_path: Path) -> None:
    uri = str(tmp_path / "a table")
    assert newest_load(uri) is None
    load(uri, 7)
    assert newest_load(uri) == newest_load(f"file://{uri}") == NewestLoad(version=0, batch_id=7)
    load(uri, 9)
    assert newest_load(uri) == NewestLoad(version=1, batch_id=9)


def test_a_commit_of_somebody_else_tells_no_load(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    load(uri, 7)
    fence(uri, storage_options={}, epoch=8)
    assert newest_load(uri) is None
    write_deltalake(uri, pa.table({"id": [2]}), mode="append")
    assert newest_load(uri) is None
    load(uri, 9)
    assert newest_load(uri) == NewestLoad(version=3, batch_id=9)


def test_a_log_that_was_cut_down_to_its_checkpoint_tells_no_load(tmp_path: Path) -> None:
    uri = str(tmp_path / "t")
    for batch_id in (1, 2):
        load(uri, batch_id)
    DeltaTable(uri).create_checkpoint()
    assert newest_load(uri) == NewestLoad(version=1, batch_id=2)
    (tmp_path / "t" / "_delta_log" / f"{1:020d}.json").unlink()
    assert newest_load(uri) is None


def test_a_commit_of_many_files_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "t")
    load(uri, 1)
    monkeypatch.setattr(freshness, "_LARGEST_COMMIT", 100)
    assert newest_load(uri) is None


def test_it_is_told_through_any_store(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/t"
    write_deltalake(uri, pa.table({"id": [1]}))
    table = DeltaTable(uri)
    assert is_newest(table.version(), uri, storage_options={})
    write_deltalake(uri, pa.table({"id": [2]}), mode="append")
    assert not is_newest(table.version(), uri, storage_options={})
