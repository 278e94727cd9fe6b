"""Landed batches: masked Parquet files of one load, and the manifest without which the load does not exist."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from platform_core.errors import StorageError, redacted
from platform_core.faults import FaultPoint, reach
from platform_core.lake.storage import filesystem, local_path, persist

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

MANIFEST = "_manifest.json"
FILE_BYTES = 256 * 1024 * 1024
"""A part file is closed once it has this size."""

_GROUP_ROWS = 122_880
_GROUP_BYTES = 16 * 1024 * 1024
_WRITE_BYTES = 1024 * 1024
_PROBED_ROWS = 8_192


@dataclass(frozen=True, kw_only=True)
class LandedFile:
    """One part file: its name within the batch's folder, and what verifies it."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class LandedBatch:
    """One landed load.

    Args:
        uri: folder of the batch.
        mode: load mode, or ``keys`` where only the key columns were read, of every row.
        held_batch: the batch that bronze held when the extract began; 0: none.
        cursor_from: lowest cursor value that was asked for, as text; None: from the beginning.
        cursor_to: highest cursor value that was read, as text; None where there is none.
    """

    uri: str
    batch_id: int
    mode: str
    schema: pa.Schema
    files: tuple[LandedFile, ...]
    held_batch: int
    cursor_from: str | None
    cursor_to: str | None

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def file_uris(self) -> tuple[str, ...]:
        return tuple(f"{self.uri}/{file.name}" for file in self.files)


def batch_uri(landing: str, batch_id: int) -> str:
    """Folder of one batch below the landing folder of its table; sorts by batch id."""
    return f"{landing}/{batch_id:012d}"


class LandingWriter:
    """Writes one batch's part files, then its manifest.

    What an earlier, unfinished attempt left in the folder is removed first. Use it as a context manager: left without
    :meth:`complete`, it removes the folder.
    """

    def __init__(
        self,
        uri: str,
        *,
        storage_options: Mapping[str, str],
        schema: pa.Schema,
        batch_id: int,
        mode: str,
        held_batch: int = 0,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self._uri = uri
        self._held_batch = held_batch
        self._storage_options = storage_options
        self._schema = schema
        self._batch_id = batch_id
        self._mode = mode
        self._file_bytes = file_bytes
        self._folder = _open_folder(uri, storage_options)
        self._files: list[LandedFile] = []
        self._waiting: list[pa.RecordBatch] = []
        self._repeating: list[str] | None = None
        self._part: _Part | None = None
        self._done = False

    def __enter__(self) -> LandingWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._done:
            if self._part is not None:
                self._part.abandon()
            remove_batch(self._uri, storage_options=self._storage_options)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add one batch; it is buffered until a row group is full.

        Raises:
            StorageError: the disk or store refused.
        """
        self._waiting.append(batch)
        rows = sum(waiting.num_rows for waiting in self._waiting)
        if rows >= _GROUP_ROWS or sum(waiting.nbytes for waiting in self._waiting) >= _GROUP_BYTES:
            self._flush()

    def complete(self, *, cursor_from: str | None = None, cursor_to: str | None = None) -> LandedBatch:
        """Close the last file, then write the manifest: from now on the batch exists.

        Raises:
            StorageError: the disk or store refused.
        """
        if self._waiting or not self._files:
            self._flush()
        self._close_part()
        landed = LandedBatch(
            uri=self._uri,
            batch_id=self._batch_id,
            mode=self._mode,
            schema=self._schema,
            files=tuple(self._files),
            held_batch=self._held_batch,
            cursor_from=cursor_from,
            cursor_to=cursor_to,
        )
        try:
            _put_last(self._folder, self._uri, _to_json(landed))
        except OSError as error:
            raise StorageError(f"{self._uri}: the manifest cannot be written\n  {redacted(error)}") from None
        self._done = True
        return landed

    def _flush(self) -> None:
        try:
            if self._repeating is None:
                self._repeating = _repeating(self._waiting)
            if self._part is None:
                name = f"part-{len(self._files):05d}.parquet"
                self._part = _Part(self._folder, name, self._schema, repeating=self._repeating)
            if self._waiting:
                reach(FaultPoint.LANDING_WRITE_TMP)
                self._part.write(pa.Table.from_batches(self._waiting, schema=self._schema))
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{self._uri}: landing failed\n  {redacted(error)}") from None
        self._waiting = []
        if self._part.bytes >= self._file_bytes:
            self._close_part()

    def _close_part(self) -> None:
        if self._part is None:
            return
        try:
            self._files.append(self._part.close())
            reach(FaultPoint.LANDING_FSYNC)
            if (folder := local_path(self._uri)) is not None:
                persist(folder / self._files[-1].name)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{self._uri}: landing failed\n  {redacted(error)}") from None
        self._part = None


def read_batch(uri: str, *, storage_options: Mapping[str, str]) -> LandedBatch | None:
    """The landed batch in a folder, each file verified against its manifest; None where there is no manifest.

    Raises:
        StorageError: the manifest is damaged, or a file is missing or not what was written.
    """
    folder = filesystem(uri, storage_options)
    try:
        with folder.open_input_stream(MANIFEST) as stream:
            landed = _from_json(uri, stream.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{uri}/{MANIFEST}: cannot be read\n  {redacted(error)}") from None
    for file in landed.files:
        if (_fingerprint(folder, file.name), _rows(folder, file.name)) != ((file.bytes, file.sha256), file.rows):
            raise StorageError(
                f"{uri}/{file.name}: not what was landed (expected {file.rows} rows in {file.bytes} bytes, "
                f"SHA-256 {file.sha256})\n  remove the batch's folder and load again"
            )
    return landed


def batch_ids(landing: str, *, storage_options: Mapping[str, str]) -> list[int]:
    """Ids of the batches below the landing folder of a table, whole or not, oldest first.

    Raises:
        StorageError: the store cannot be read.
    """
    import pyarrow.fs

    try:
        if (local := local_path(landing)) is not None:
            names = [path.name for path in local.iterdir()] if local.exists() else []
        else:
            selector = pyarrow.fs.FileSelector("", allow_not_found=True)
            names = [info.base_name for info in filesystem(landing, storage_options).get_file_info(selector)]
    except OSError as error:
        raise StorageError(f"{landing}: cannot be listed\n  {redacted(error)}") from None
    return sorted(int(name) for name in names if name.isdecimal())


def remove_batch(uri: str, *, storage_options: Mapping[str, str]) -> None:
    """Remove a batch, its manifest first; nothing happens where there is none.

    Raises:
        StorageError: the disk or store refused.
    """
    import pyarrow.fs

    try:
        reach(FaultPoint.LANDING_CLEANUP)
        store = filesystem(uri, storage_options)
        found = store.get_file_info(pyarrow.fs.FileSelector("", allow_not_found=True))
        for info in sorted(found, key=lambda info: info.base_name != MANIFEST):
            store.delete_file(info.path)
        if (folder := local_path(uri)) is not None and folder.exists():
            folder.rmdir()
    except OSError as error:
        raise StorageError(f"{uri}: the batch cannot be removed\n  {redacted(error)}") from None


def _open_folder(uri: str, storage_options: Mapping[str, str]) -> FileSystem:
    """A new folder, empty: an id is handed out once, but the control database that counts them may have been lost."""
    folder = local_path(uri)
    if folder is None or folder.exists():
        remove_batch(uri, storage_options=storage_options)
    try:
        if folder is not None:
            folder.mkdir(parents=True)
        return filesystem(uri, storage_options)
    except OSError as error:
        raise StorageError(f"{uri}: the landing folder cannot be made\n  {redacted(error)}") from None


def _repeating(batches: Sequence[pa.RecordBatch]) -> list[str]:
    """Columns whose values repeat, so that a dictionary makes them smaller; for others it is built and thrown away."""
    import pyarrow.compute as pc

    if not batches:
        return []
    probe = batches[0].slice(0, _PROBED_ROWS)
    plain = (field.name for field in probe.schema if not pa.types.is_nested(field.type))
    return [name for name in plain if pc.count_distinct(probe[name]).as_py() * 4 <= probe.num_rows]


class _Part:
    """One Parquet file under way."""

    def __init__(self, folder: FileSystem, name: str, schema: pa.Schema, *, repeating: list[str]) -> None:
        import pyarrow.parquet as pq

        self._name = name
        self._rows = 0
        self._sink = _Fingerprinted(folder.open_output_stream(name))
        # A page is a few kilobytes, and each write that gets through waits for Python's lock.
        self._buffered = pa.BufferedOutputStream(pa.PythonFile(self._sink, mode="w"), _WRITE_BYTES)
        self._writer = pq.ParquetWriter(
            self._buffered,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=repeating,
        )

    @property
    def bytes(self) -> int:
        return int(self._buffered.tell())

    def write(self, rows: pa.Table) -> None:
        self._rows += rows.num_rows
        self._writer.write_table(rows, row_group_size=_GROUP_ROWS)

    def close(self) -> LandedFile:
        self._writer.close()
        self._buffered.close()
        return LandedFile(name=self._name, rows=self._rows, bytes=self._sink.bytes, sha256=self._sink.sha256)

    def abandon(self) -> None:
        """End without a whole file; the writer's last bytes are dropped, as the disk may be what failed."""
        self._sink.dropping = True
        self._writer.close()
        with contextlib.suppress(OSError):
            self._buffered.close()


class _Fingerprinted:
    """A stream that hashes and counts what passes on its way to the disk."""

    closed = False
    dropping = False

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: pa.Buffer) -> int:
        size = memoryview(data).nbytes
        if not self.dropping:
            self._digest.update(data)
            self._stream.write(data)
            self.bytes += size
        return size

    def flush(self) -> None:
        if not self.dropping:
            self._stream.flush()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._stream.close()


def _put_last(folder: FileSystem, uri: str, content: bytes) -> None:
    """Locally a rename makes the manifest appear whole; object stores show an object only once it is whole."""
    reach(FaultPoint.MANIFEST_WRITE)
    if (local := local_path(uri)) is None:
        with folder.open_output_stream(MANIFEST) as stream:
            stream.write(content)
        return
    written = local / f"{MANIFEST}.tmp"
    written.write_bytes(content)
    persist(written)
    reach(FaultPoint.LANDING_RENAME)
    written.rename(local / MANIFEST)
    persist(local)


def _fingerprint(folder: FileSystem, name: str) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with folder.open_input_stream(name) as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        return 0, "missing"
    return size, digest.hexdigest()


def _rows(folder: FileSystem, name: str) -> int:
    import pyarrow.parquet as pq

    try:
        with folder.open_input_file(name) as stream, pq.ParquetFile(stream) as file:
            return int(file.metadata.num_rows)
    except (OSError, pa.ArrowException):
        # Neither is a number of rows, and the fingerprint tells the same.
        return -1


def _to_json(landed: LandedBatch) -> bytes:
    content = {
        "batch_id": landed.batch_id,
        "mode": landed.mode,
        "rows": landed.rows,
        "bytes": landed.bytes,
        "files": [asdict(file) for file in landed.files],
        "columns": [{"name": field.name, "type": str(field.type)} for field in landed.schema],
        "arrow_schema": base64.b64encode(landed.schema.serialize().to_pybytes()).decode(),
        "held_batch": landed.held_batch,
        "cursor_from": landed.cursor_from,
        "cursor_to": landed.cursor_to,
        "complete": True,
    }
    return json.dumps(content, ensure_ascii=False).encode()


def _from_json(uri: str, content: bytes) -> LandedBatch:
    read = json.loads(content)
    if read["complete"] is not True:
        raise ValueError("incomplete")
    return LandedBatch(
        uri=uri,
        batch_id=read["batch_id"],
        mode=read["mode"],
        schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(read["arrow_schema"]))),
        files=tuple(LandedFile(**file) for file in read["files"]),
        held_batch=read["held_batch"],
        cursor_from=read["cursor_from"],
        cursor_to=read["cursor_to"],
    )
