"""The search for personal values finds what is planted, in every kind of container, and shows no value."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import sqlite3
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from tests.scenarios import taint

PLANTED = "Quillon Abernathy-Vogt"
CLEAN = {"Never There", "nobody@example.com"}
WANTED = CLEAN | {PLANTED}
ROWS = [f"row {number}" for number in range(5_000)]


def _table() -> pa.Table:
    return pa.table({"name": [*ROWS, PLANTED, *ROWS]})


def _plain(file: Path) -> None:
    file.write_bytes(b"\xff\x00" * 100 + PLANTED.encode() + b"\x00")


def _on_a_chunk_border(file: Path) -> None:
    file.write_bytes(b" " * (taint.CHUNK_BYTES - 7) + PLANTED.encode())


def _parquet_dictionary(file: Path) -> None:
    pq.write_table(_table(), file, compression="zstd")


def _parquet_delta_encoded(file: Path) -> None:
    pq.write_table(_table(), file, compression="snappy", use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")


def _parquet_nested(file: Path) -> None:
    rows = pa.table({"person": [{"names": ["x", PLANTED]}]})
    pq.write_table(rows, file, compression="zstd")


def _arrow_file(file: Path) -> None:
    with pa.ipc.new_file(file, _table().schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(_table())


def _sqlite_over_many_pages(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute('create table "odd ""name" (id integer, body text)')
        connection.execute('insert into "odd ""name" values (1, ?)', ("x" * 4_070 + PLANTED + "x" * 9_000,))


def _sqlite_deflated_blob(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("create table snapshots (body blob)")
        connection.execute("insert into snapshots values (?)", (zlib.compress(f"[{PLANTED!r}]".encode()),))


def _duckdb_compressed(file: Path) -> None:
    with closing(duckdb.connect(str(file))) as connection:
        connection.execute("create schema staging")
        connection.register("names", _table())
        connection.execute("create table staging.people as select name, {'inner': name} as nested from names")


def _gzip(file: Path) -> None:
    file.write_bytes(gzip.compress(PLANTED.encode() * 3))


def _gzipped_gzip(file: Path) -> None:
    file.write_bytes(gzip.compress(gzip.compress(PLANTED.encode() * 3)))


def _zstd(file: Path) -> None:
    with pa.CompressedOutputStream(str(file), "zstd") as stream:
        stream.write(("\n".join(ROWS) + PLANTED).encode())


def _zip_of_sqlite(file: Path) -> None:
    inner = file.with_suffix(".inner")
    _sqlite_over_many_pages(inner)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, "backup.db")
    inner.unlink()


def _json_escaped(file: Path) -> None:
    file.write_text(json.dumps({"name": PLANTED}))


def _other_letter_case(file: Path) -> None:
    file.write_text(PLANTED.upper())


def _utf_16(file: Path) -> None:
    file.write_bytes(PLANTED.encode("utf-16-le"))


PLANTS = [
    _plain,
    _on_a_chunk_border,
    _parquet_dictionary,
    _parquet_delta_encoded,
    _parquet_nested,
    _arrow_file,
    _sqlite_over_many_pages,
    _sqlite_deflated_blob,
    _duckdb_compressed,
    _gzip,
    _gzipped_gzip,
    _zstd,
    _zip_of_sqlite,
    _json_escaped,
    _other_letter_case,
    _utf_16,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__.strip("_"))
def test_planted_value_is_found(plant: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / "lake" / "part-0"
    file.parent.mkdir()
    plant(file)
    assert taint.hits(tmp_path, WANTED) == [(file, sorted(WANTED).index(PLANTED))]


def test_planted_value_in_a_file_name_is_found(tmp_path: Path) -> None:
    file = tmp_path / f"{PLANTED}.txt"
    file.touch()
    assert taint.hits(tmp_path, WANTED) == [(file, sorted(WANTED).index(PLANTED))]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__.strip("_"))
def test_values_that_are_not_there_are_not_found(plant: Callable[[Path], None], tmp_path: Path) -> None:
    plant(tmp_path / "part-0")
    assert taint.hits(tmp_path, CLEAN) == []


def test_two_values_of_which_one_begins_the_other_are_both_found(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("sent to nobody@example.com.invalid")
    values = {"nobody@example.com", "nobody@example.com.invalid"}
    assert [index for _, index in taint.hits(tmp_path, values)] == [0, 1]


def test_sources_are_left_out(tmp_path: Path) -> None:
    for name in ("sources", "sources_of_truth"):
        (tmp_path / name).mkdir()
        _plain(tmp_path / name / "rides.db")
    assert [file for file, _ in taint.hits(tmp_path, WANTED)] == [tmp_path / "sources_of_truth" / "rides.db"]


@pytest.mark.parametrize("head", [b"PAR1", b"SQLite format 3\0", b"\x1f\x8b\x08", b"PK\x03\x04", b"12345678DUCK"])
def test_container_that_cannot_be_opened_is_an_error_that_shows_no_value(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(head + b"\xff" * 5_000 + PLANTED.encode())
    with pytest.raises(taint.UnreadableError) as raised:
        taint.hits(tmp_path, WANTED)
    assert "broken" in str(raised.value)
    assert PLANTED not in str(raised.value)


def test_a_hash_that_begins_as_a_container_does_is_none(tmp_path: Path) -> None:
    hashes = [b"\x1f\x8b\x08" + bytes(13), b"\x1f\x8b" + b"\xff" * 30]
    pq.write_table(pa.table({"hash": pa.array(hashes, pa.binary()), "name": ["a", PLANTED]}), tmp_path / "rows.parquet")
    assert [file.name for file, _ in taint.hits(tmp_path, WANTED)] == ["rows.parquet"]


def test_short_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="five characters"):
        taint.hits(tmp_path, {"Al"})


TYPED: list[tuple[taint.Value, pa.DataType]] = [
    (9_182_736_455_463_728, pa.int64()),
    (Decimal("73516284.91"), pa.decimal128(18, 2)),
    (dt.date(1871, 3, 29), pa.date32()),
    (dt.datetime(1871, 3, 29, 17, 43, 21, 987654), pa.timestamp("us")),
    (b"\x00canary-bytes\xff", pa.binary()),
]
CLEAN_OF_TYPE: list[taint.Value] = [
    9_182_736_455_463_729,
    Decimal("73516284.92"),
    dt.date(1871, 3, 30),
    dt.datetime(1871, 3, 29, 17, 43, 21, 987655),
    b"\x00canary-bytes\xfe",
]


@pytest.mark.parametrize("codec", ["zstd", "none"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("value", "type_"), TYPED)
def test_planted_value_of_a_type_is_found_in_parquet(
    value: taint.Value, type_: pa.DataType, codec: str, nested: bool, tmp_path: Path
) -> None:
    held = pa.array([[value]] if nested else [value], pa.list_(type_) if nested else type_)
    pq.write_table(pa.table({"a": held}), tmp_path / "part-0", compression=codec)
    assert [index for _, index in taint.hits(tmp_path, [value])] == [0]
    assert taint.hits(tmp_path, CLEAN_OF_TYPE) == []


@pytest.mark.parametrize(("value", "type_"), TYPED)
def test_planted_value_of_a_type_is_found_in_a_log_and_in_sqlite(
    value: taint.Value, type_: pa.DataType, tmp_path: Path
) -> None:
    (tmp_path / "log").write_bytes(value if isinstance(value, bytes) else f"row ({value!s})".encode())
    with closing(sqlite3.connect(tmp_path / "base")) as connection, connection:
        connection.execute("create table t (a)")
        connection.execute("insert into t values (?)", [value if isinstance(value, int | bytes) else str(value)])
    assert [file.name for file, _ in taint.hits(tmp_path, [value])] == ["base", "log"]
    assert taint.hits(tmp_path, CLEAN_OF_TYPE) == []


def test_planted_value_in_the_log_before_a_checkpoint_of_sqlite_is_found(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "base")) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table t (a)")
        connection.execute("insert into t values (?)", [PLANTED])
        connection.commit()
        found = [file.name for file, _ in taint.hits(tmp_path, WANTED)]
    assert "base-wal" in found


def test_values_are_found_in_what_a_process_printed() -> None:
    assert taint.found_in(f"refused: {PLANTED.upper()}", WANTED) == [sorted(WANTED).index(PLANTED)]
    assert taint.found_in("refused", WANTED) == []


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_planted_value_in_a_parquet_file_without_its_end_is_found(share: float, tmp_path: Path) -> None:
    file = tmp_path / "part-0"
    rows = pa.table({"a": [PLANTED] * 3, "b": ROWS[:3]})
    pq.write_table(rows, file, compression="zstd", use_dictionary=False, write_statistics=False)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(taint.UnreadableError):
        taint.hits(tmp_path, WANTED)
    assert [index for _, index in taint.hits(tmp_path, WANTED, torn=True)] == [sorted(WANTED).index(PLANTED)]
    assert taint.hits(tmp_path, CLEAN, torn=True) == []
