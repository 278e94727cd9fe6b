"""Search every byte of a folder for values that must not be there, inside containers too.

A value can hide from a plain byte search: Parquet compresses and encodes its pages, DuckDB compresses texts,
SQLite spreads a long text over pages, archives deflate. So each file is searched raw, and what is recognised by
its first bytes (never by its name) is opened and searched again; a container that cannot be opened is an error.

Numbers, dates and times are searched as the texts that people and logs write, and as the eight bytes in which files
and memory hold them; in containers, columns of such types are read as text.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import sqlite3
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

CHUNK_BYTES = 8 * 1024 * 1024
Value = str | bytes | int | Decimal | dt.date | dt.datetime
_ZSTD = b"\x28\xb5\x2f\xfd"
_SHORTEST_PARQUET = 12
_GZIP = b"\x1f\x8b\x08"
_SHORTEST_GZIP = 18
"""A row hash is shorter, and one in 65,536 begins with the two bytes that files of gzip begin with."""
_PIECE_BYTES = 512
_NESTED_LIMIT = 5
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SEPARATOR = "\n"


class UnreadableError(Exception):
    """A container could not be opened, so that it is not known what is in it."""


def hits(
    folder: Path, values: Iterable[Value], *, exclude: Sequence[str] = ("sources",), torn: bool = False
) -> list[tuple[Path, int]]:
    """Every file that holds one of the values, in whatever letter case.

    Args:
        folder: searched with all that is below it.
        values: texts, bytes, numbers and dates; a hit names one by its index in ``sorted(values, key=str)``, so that no
            value is ever shown.
        exclude: paths below ``folder`` that are left out with all that is below them.
        torn: whether a writer was killed, so that a Parquet file may lack its end; its pages are then looked for by
            their first bytes.

    Returns:
        File and index of the value, each pair once, sorted.

    Raises:
        UnreadableError: a file looks like a container, but cannot be opened.
        ValueError: a value is too short to mean anything, or none is given.
    """
    search = _Search(sorted(values, key=str))
    left_out = [folder / path for path in exclude]
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or not file.is_file() or any(file.is_relative_to(path) for path in left_out):
            continue
        search.add(file, io.BytesIO(str(file.relative_to(folder)).encode("utf-8", "surrogateescape")))
        with file.open("rb") as stream:
            search.add(file, stream)
        for content in _pages(file) if torn and _is_torn(file) else _contents(file):
            search.add(file, content)
    return sorted(search.found())


def found_in(text: str, values: Iterable[Value]) -> list[int]:
    """Indices in ``sorted(values, key=str)`` of the values that a text holds."""
    search = _Search(sorted(values, key=str))
    search.add(Path(), io.BytesIO(text.encode("utf-8", "surrogateescape")))
    return sorted(index for _, index in search.found())


class _Search:
    """All values as one Aho-Corasick automaton, over bytes read as latin-1: one character is one byte.

    Making the automaton takes longer than searching a small file; so pieces are gathered and searched together.
    """

    def __init__(self, values: Sequence[Value]) -> None:
        if not values or min(len(value if isinstance(value, bytes) else str(value)) for value in values) < 5:
            raise ValueError("give at least one value, each of five characters or more")
        self._needles: dict[str, int] = {}
        for index, value in enumerate(values):
            for form in _forms(value):
                self._needles.setdefault(form.lower().decode("latin-1"), index)
        self._overlap = max(map(len, self._needles)) - 1
        self._pieces: list[tuple[Path, str]] = []
        self._waiting = 0
        self._found: set[tuple[Path, int]] = set()

    def add(self, file: Path, stream: io.BufferedIOBase) -> None:
        """Search a stream of bytes that belongs to a file."""
        tail = b""
        while chunk := stream.read(CHUNK_BYTES):
            self._pieces.append((file, (tail + chunk).decode("latin-1")))
            self._waiting += len(tail) + len(chunk)
            tail = chunk[-self._overlap :]
            if self._waiting >= 4 * CHUNK_BYTES:
                self._search()

    def found(self) -> set[tuple[Path, int]]:
        """File and index of the value, of all that was added."""
        self._search()
        return self._found

    def _search(self) -> None:
        texts = pl.Series([text for _, text in self._pieces], dtype=pl.String)
        needles = list(self._needles)
        # Whether there is any comes first: that is all that clean pieces cost.
        suspects = texts.str.contains_any(needles, ascii_case_insensitive=True).arg_true()
        matches = texts.gather(suspects).str.extract_many(needles, ascii_case_insensitive=True, overlapping=True)
        for position, matched in zip(suspects, matches, strict=True):
            file, _ = self._pieces[position]
            self._found.update((file, self._needles[_ascii_lower(match)]) for match in matched)
        self._pieces, self._waiting = [], 0


def _ascii_lower(text: str) -> str:
    return text.encode("latin-1").lower().decode("latin-1")


def _forms(value: Value) -> set[bytes]:
    """The ways in which programs write the same value."""
    match value:
        case bytes():
            return {value, value.hex().encode()}
        case int():
            return {str(value).encode(), *_packed(value)}
        case Decimal():
            return {str(value).encode(), *_packed(int(value.scaleb(-int(value.as_tuple().exponent))))}
        case dt.datetime():
            moment = value.replace(tzinfo=value.tzinfo or dt.UTC)
            texts = {value.isoformat(separator, "microseconds") for separator in "T "}
            return {text.encode() for text in texts} | _packed((moment - _EPOCH) // dt.timedelta(microseconds=1))
        case dt.date():
            # The four bytes of a date are too few to mean anything in a search of all bytes.
            return {value.isoformat().encode(), value.strftime("%d-%m-%Y").encode(), value.strftime("%Y%m%d").encode()}
        case _:
            escaped = json.dumps(value)[1:-1]
            return {value.encode(), escaped.encode(), value.encode("utf-16-le"), value.replace(" ", "%20").encode()}


def _packed(number: int) -> set[bytes]:
    """An integer in eight bytes; small ones look like anything."""
    return {struct.pack(order + "q", number) for order in "<>"} if 2**40 <= abs(number) < 2**63 else set()


def _contents(file: Path) -> Iterator[io.BufferedIOBase]:
    """What is inside a file, where it is a container."""
    with file.open("rb") as stream:
        head = stream.read(32)
    try:
        if head.startswith(b"SQLite format 3\0"):
            yield from _sqlite(file)
        elif head[8:12] == b"DUCK":
            yield from _duckdb(file)
        else:
            yield from _unpacked(head, file.read_bytes, depth=0)
    except (sqlite3.Error, duckdb.Error, pa.ArrowException, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # Only the class: the text of an engine's error can hold the very value that is searched for.
        raise UnreadableError(f"{file}: cannot be opened to look inside ({type(error).__name__})") from None


def _is_torn(file: Path) -> bool:
    """Whether a Parquet file lacks its end; of one that was just begun the beginning is all there is."""
    with file.open("rb") as stream:
        if stream.read(4) != b"PAR1":
            return False
        length = stream.seek(0, 2)
        stream.seek(-4, 2)
        return length < _SHORTEST_PARQUET or stream.read() != b"PAR1"


def _pages(file: Path) -> Iterator[io.BufferedIOBase]:
    """What is in each zstd frame of a file, as far as it goes."""
    data = file.read_bytes()
    at = data.find(_ZSTD)
    while at >= 0:
        page = bytearray()
        try:
            with pa.CompressedInputStream(pa.BufferReader(data[at:]), "zstd") as stream:
                while some := stream.read(_PIECE_BYTES):
                    page += some
        except (pa.ArrowException, OSError):
            # What follows the frame is no frame, or the frame is torn itself; what it gave until then counts.
            at = data.find(_ZSTD, at + len(_ZSTD))
        else:
            at = -1
        yield io.BytesIO(bytes(page))


def _unpacked(head: bytes, read: Any, *, depth: int) -> Iterator[io.BufferedIOBase]:
    """What is inside some bytes, and inside that."""
    inner: bytes | None = None
    if head.startswith(b"PAR1"):
        yield from _parquet(read())
    elif head.startswith(b"ARROW1"):
        yield from _arrow(read())
    elif head.startswith(_GZIP) and len(head) >= _SHORTEST_GZIP:
        inner = gzip.decompress(read())
    elif head.startswith(_ZSTD):
        with pa.CompressedInputStream(pa.BufferReader(read()), "zstd") as stream:
            inner = stream.read()
    elif head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(read())) as archive:
            for name in archive.namelist():
                yield from _with_inner(archive.read(name), depth=depth)
    elif head[:2] in (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"):
        try:
            inner = zlib.decompress(read())
        except zlib.error:
            return  # two letters that plain text may well begin with
    if inner is not None:
        yield from _with_inner(inner, depth=depth)


def _with_inner(inner: bytes, *, depth: int) -> Iterator[io.BufferedIOBase]:
    yield io.BytesIO(inner)
    if depth >= _NESTED_LIMIT:
        raise UnreadableError(f"containers are nested more than {_NESTED_LIMIT} deep")
    if inner.startswith(b"SQLite format 3\0") or inner[8:12] == b"DUCK":
        with tempfile.NamedTemporaryFile(suffix=".inner") as copy:
            copy.write(inner)
            copy.flush()
            yield from _contents(Path(copy.name))
        return
    yield from _unpacked(inner[:32], lambda: inner, depth=depth + 1)


def _parquet(data: bytes) -> Iterator[io.BufferedIOBase]:
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        for batch in file.iter_batches():
            yield from _arrow_batch(batch)


def _as_text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _arrow(data: bytes) -> Iterator[io.BufferedIOBase]:
    with pa.ipc.open_file(pa.BufferReader(data)) as file:
        for index in range(file.num_record_batches):
            yield from _arrow_batch(file.get_batch(index))


def _arrow_batch(batch: pa.RecordBatch) -> Iterator[io.BufferedIOBase]:
    for column in batch.columns:
        type_ = column.type
        if pa.types.is_dictionary(type_):
            column, type_ = column.dictionary, type_.value_type
        if pa.types.is_nested(type_):
            yield _stream(json.dumps(row, default=_as_text, ensure_ascii=False) for row in column.to_pylist())
        elif pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
            yield from _blobs(pc.unique(column.drop_null()).to_pylist())
        elif pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
            yield _stream(pc.unique(column.drop_null()).to_pylist())
        else:
            yield _stream(str(value) for value in pc.unique(column.drop_null()).to_pylist())


def _sqlite(file: Path) -> Iterator[io.BufferedIOBase]:
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes  # whatever was stored, valid UTF-8 or not
        names = connection.execute("select name from sqlite_schema where type = 'table'").fetchall()
        for (name,) in names:
            quoted = name.decode().replace('"', '""')
            rows = connection.execute(f'select * from "{quoted}"')
            while some := rows.fetchmany(2_000):
                yield from _blobs(value for row in some for value in row if isinstance(value, bytes))
                yield _stream(str(value) for row in some for value in row if isinstance(value, (int, float)))


def _duckdb(file: Path) -> Iterator[io.BufferedIOBase]:
    with closing(duckdb.connect(str(file), read_only=True)) as connection:
        tables = connection.execute(
            "select database_name, schema_name, table_name from duckdb_tables() where not internal"
        ).fetchall()
        for parts in tables:
            name = ".".join('"' + part.replace('"', '""') + '"' for part in parts)
            for batch in connection.sql(f"select columns(*)::varchar from {name}").to_arrow_reader():
                yield from _arrow_batch(batch)


def _blobs(values: Iterable[bytes]) -> Iterator[io.BufferedIOBase]:
    """Stored bytes, joined, and each container among them opened."""
    plain: list[bytes] = []
    for value in values:
        plain.append(value)
        head = value[:32]
        if not head[:1].isalnum() or head.startswith((b"PAR1", b"ARROW1", b"PK\x03\x04", b"SQLite format 3\0", b"x")):
            yield from _unpacked(head, lambda value=value: value, depth=1)
    yield io.BytesIO(_SEPARATOR.encode().join(plain))


def _stream(texts: Iterable[str]) -> io.BytesIO:
    return io.BytesIO(_SEPARATOR.join(texts).encode("utf-8", "surrogateescape"))
