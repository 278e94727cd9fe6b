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
from platform_core.faults import FaultPoint, armed, recorded
from platform_core.lake import batch_sink, landing
from platform_core.lake.batch_sink import BatchSink
from platform_core.lake.landing import LandingWriter, batch_ids, batch_uri, read_batch, remove_batch

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


def test_a8_a_manifest_of_another_number_of_rows_is_noticed(tmp_path: Path) -> None:
    with writer(tmp_path) as open_writer:
        open_writer.write(batch(0))
        written = open_writer.complete()
    manifest = Path(written.uri) / "_manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][0]["rows"] += 1
    manifest.write_text(json.dumps(content))
    with pytest.raises(StorageError, match="expected 1001 rows"):
        read_batch(written.uri, storage_options={})


@pytest.mark.parametrize("offset", [0, 1, 4, 100, -100, -8, -4, -1])
def test_a8_a_file_that_is_cut_anywhere_is_noticed(tmp_path: Path, offset: int) -> None:
    with writer(tmp_path) as open_writer:
        open_writer.write(batch(0))
        written = open_writer.complete()
    file = Path(written.file_uris[0])
    file.write_bytes(file.read_bytes()[:offset])
    with pytest.raises(StorageError, match="not what was landed"):
        read_batch(written.uri, storage_options={})


def test_a9_no_bit_can_be_flipped_unnoticed(tmp_path: Path) -> None:
    with writer(tmp_path) as open_writer:
        open_writer.write(batch(0, 50))
        written = open_writer.complete()
    file = Path(written.file_uris[0])
    whole = file.read_bytes()
    for at in range(0, len(whole), 97):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << (at % 8)
        file.write_bytes(flipped)
        with pytest.raises(StorageError, match="not what was landed"):
            read_batch(written.uri, storage_options={})


def test_batches_are_listed_by_their_ids(tmp_path: Path) -> None:
    for batch_id in (12, 3):
        Path(batch_uri(str(tmp_path), batch_id)).mkdir()
    (tmp_path / "note.txt").touch()
    assert batch_ids(str(tmp_path), storage_options={}) == [3, 12]
    assert batch_ids(str(tmp_path / "nowhere"), storage_options={}) == []


def sink(folder: Path) -> BatchSink:
    uri = batch_uri(str(folder), 7)
    return BatchSink(uri, storage_options={}, schema=SCHEMA, batch_id=7, mode="full", held_batch=6)


def test_few_rows_are_held_until_they_are_landed(tmp_path: Path) -> None:
    with sink(tmp_path) as open_sink:
        open_sink.write(batch(0))
        open_sink.complete(cursor_from=None, cursor_to="9")
        assert open_sink.held is not None
        assert open_sink.held.num_rows == 1000
        assert list(tmp_path.iterdir()) == []
        landed = open_sink.land()
        assert open_sink.land() is landed
        open_sink.keep()
    assert read_batch(landed.uri, storage_options={}) == landed
    assert (landed.rows, landed.held_batch, landed.cursor_to) == (1000, 6, "9")


def test_many_rows_are_landed_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sink, "HELD_BYTES", 30_000)
    with sink(tmp_path) as open_sink:
        for start in range(0, 4000, 1000):
            open_sink.write(batch(start))
        assert open_sink.held is None
        assert open_sink.landed is None
        open_sink.complete(cursor_from=None, cursor_to=None)
        assert open_sink.landed is not None
        found = pa.concat_tables(pq.read_table(uri) for uri in open_sink.landed.file_uris)
        assert found["id"].to_pylist() == list(range(4000))
        open_sink.keep()
    assert batch_ids(str(tmp_path), storage_options={}) == [7]


@pytest.mark.parametrize("held_bytes", [0, 10**9])
@pytest.mark.parametrize("stage", ["writing", "complete", "landed"])
def test_a_batch_that_is_not_kept_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_bytes: int, stage: str
) -> None:
    monkeypatch.setattr(batch_sink, "HELD_BYTES", held_bytes)
    with sink(tmp_path) as open_sink:
        open_sink.write(batch(0))
        if stage != "writing":
            open_sink.complete(cursor_from=None, cursor_to=None)
        if stage == "landed":
            open_sink.land()
    assert list(tmp_path.iterdir()) == []


def test_every_point_of_a_landing_is_named(tmp_path: Path) -> None:
    with recorded() as reached, writer(tmp_path) as open_writer:
        open_writer.write(batch(0))
        written = open_writer.complete()
        remove_batch(written.uri, storage_options={})
    landing_points = {point for point in FaultPoint if point.value.startswith("landing-")}
    assert reached >= landing_points | {FaultPoint.MANIFEST_WRITE}


@pytest.mark.parametrize("point", ["landing-write-tmp", "landing-fsync", "manifest-write", "landing-rename"])
@pytest.mark.parametrize("action", ["enospc", "eio"])
def test_a6_a7_a_disk_that_refuses_is_told_and_no_batch_exists(tmp_path: Path, point: str, action: str) -> None:
    with armed(f"{point}:{action}"), pytest.raises(StorageError), writer(tmp_path) as open_writer:
        open_writer.write(batch(0))
        open_writer.complete()
    assert list(tmp_path.iterdir()) == []
