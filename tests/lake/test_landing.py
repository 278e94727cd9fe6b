"""Landed batches: whole or not there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from platform_core.errors import StorageError
from platform_core.lake import landing
from platform_core.lake.landing import LandingWriter, batch_uri, read_batch, remove_batch

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])


def batch(start: int, rows: int = 1000) -> pa.RecordBatch:
    ids = range(start, start + rows)
    return pa.RecordBatch.from_pydict({"id": list(ids), "name": [f"name {i * 7919}" for i in ids]}, schema=SCHEMA)


def writer(folder: Path, **options: Any) -> LandingWriter:
    uri = batch_uri(str(folder), 7)
    return LandingWriter(uri, storage_options={}, schema=SCHEMA, batch_id=7, mode="full", **options)


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "_GROUP_ROWS", 1000)


def test_a_batch_reads_back_as_it_was_written(tmp_path: Path) -> None:
    with writer(tmp_path, file_bytes=10_000) as open_writer:
        for start in range(0, 5000, 1000):
            open_writer.write(batch(start))
        written = open_writer.complete(cursor_from="1", cursor_to="9")
    assert written.uri.endswith("/000000000007")
    assert len(written.files) > 1
    assert read_batch(written.uri, storage_options={}) == written
    found = pa.concat_tables(pq.read_table(uri) for uri in written.file_uris)
    assert found["id"].to_pylist() == list(range(5000))
    manifest = json.loads((Path(written.uri) / "_manifest.json").read_text())
    assert (manifest["rows"], manifest["complete"], manifest["cursor_to"], manifest["mode"]) == (
        5000,
        True,
        "9",
        "full",
    )
    for file in written.files:
        content = (Path(written.uri) / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)


def test_a_batch_without_rows_still_has_its_columns(tmp_path: Path) -> None:
    with writer(tmp_path) as open_writer:
        written = open_writer.complete()
    assert pq.read_schema(written.file_uris[0]).equals(SCHEMA)
    assert written.rows == 0


def test_a_load_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writer(tmp_path) as open_writer:
        open_writer.write(batch(0))
        assert list(Path(batch_uri(str(tmp_path), 7)).iterdir())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_is_no_batch_and_is_replaced(tmp_path: Path) -> None:
    uri = batch_uri(str(tmp_path), 7)
    crashed = writer(tmp_path)
    crashed.write(batch(0))
    (Path(uri) / "part-00099.parquet").write_bytes(b"torn")
    assert read_batch(uri, storage_options={}) is None
    with writer(tmp_path) as open_writer:
        open_writer.complete()
    assert sorted(path.name for path in Path(uri).iterdir()) == ["_manifest.json", "part-00000.parquet"]


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append({path.name for path in self.parent.iterdir()})
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    with writer(tmp_path) as open_writer:
        open_writer.complete()
    assert seen == [{"part-00000.parquet", "_manifest.json.tmp"}]


@pytest.mark.parametrize("damage", ["changed", "missing", "shorter"])
def test_a_damaged_file_is_noticed(tmp_path: Path, damage: str) -> None:
    with writer(tmp_path) as open_writer:
        open_writer.write(batch(0))
        written = open_writer.complete()
    file = Path(written.file_uris[0])
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content if damage == "changed" else content[:-1])
    with pytest.raises(StorageError, match=r"part-00000.parquet: not what was landed"):
        read_batch(written.uri, storage_options={})


def test_a_damaged_manifest_is_noticed(tmp_path: Path) -> None:
    with writer(tmp_path) as open_writer:
        written = open_writer.complete()
    (Path(written.uri) / "_manifest.json").write_text("{")
    with pytest.raises(StorageError, match="cannot be read"):
        read_batch(written.uri, storage_options={})


def test_a_removed_batch_is_gone_and_removing_it_again_is_harmless(tmp_path: Path) -> None:
    with writer(tmp_path) as open_writer:
        written = open_writer.complete()
    remove_batch(written.uri, storage_options={})
    remove_batch(written.uri, storage_options={})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, data: object) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="landing failed"), writer(tmp_path) as open_writer:
        open_writer.write(batch(0, 10))
        monkeypatch.setattr(landing._Fingerprinted, "write", full)
        open_writer.complete()
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
