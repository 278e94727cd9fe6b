"""Whether an open table is still the newest."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from platform_core.lake.freshness import is_newest


def test_a_table_is_the_newest_until_a_version_is_committed(tmp_path: Path) -> None:
    uri = str(tmp_path / "a table")
    write_deltalake(uri, pa.table({"id": [1]}))
    table = DeltaTable(uri)
    assert is_newest(table, uri, storage_options={})
    write_deltalake(uri, pa.table({"id": [2]}), mode="append")
    assert not is_newest(table, uri, storage_options={})
    assert is_newest(DeltaTable(uri), uri, storage_options={})


def test_it_is_told_through_any_store(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/t"
    write_deltalake(uri, pa.table({"id": [1]}))
    table = DeltaTable(uri)
    assert is_newest(table, uri, storage_options={})
    write_deltalake(uri, pa.table({"id": [2]}), mode="append")
    assert not is_newest(table, uri, storage_options={})
