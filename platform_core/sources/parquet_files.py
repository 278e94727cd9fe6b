"""Parquet files as Arrow, all with the columns and types of the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from platform_core.errors import SourceError
from platform_core.sources.decompression import Limits
from platform_core.sources.storage import storage_errors
from platform_core.sources.streaming import Batches
from platform_core.sources.types import UnfitError, convert, type_name, unfit

_BATCH_BYTES = 64 << 20
_PROBE_BYTES = 1 << 16


def schema(file: pa.NativeFile, *, where: str) -> pa.Schema:
    """The columns of a file."""
    with _errors(where), parquet.ParquetFile(file) as opened:
        return _plain(opened.schema_arrow)


def batches(
    file: pa.NativeFile,
    types: Mapping[str, pa.DataType],
    *,
    declared: Mapping[str, pa.DataType],
    batch_rows: int,
    limits: Limits,
    where: str,
) -> Batches:
    """The rows of a file, only the columns named in ``types``.

    A type that is declared is converted to, exactly; any other must be that of the first file.
    """
    with _errors(where), parquet.ParquetFile(file) as opened:
        found = _plain(opened.schema_arrow)
        _check_size(opened.metadata, limits, where)
        for name, type_ in types.items():
            if name not in declared and found.field(name).type != type_:
                raise SourceError(
                    f"{where}: column '{name}' has type {type_name(found.field(name).type)}, "
                    f"but {type_name(type_)} in the first file\n"
                    f"  name its type in the table's options: columns: {{{name}: …}}"
                )
        read = expanded = 0
        for batch in _row_groups(file, opened, found, list(types), batch_rows):
            # Texts that are not UTF-8, and offsets that point anywhere, would only show up in the lake.
            batch.validate(full=True)
            arrays = []
            for name, type_ in types.items():
                try:
                    arrays.append(convert(batch.column(name), type_))
                except UnfitError as error:
                    rows = (read + 1, read + batch.num_rows)
                    raise unfit(where, column=name, type_=type_, count=error.count, rows=rows) from None
            yield pa.record_batch(arrays, names=list(types))
            read += batch.num_rows
            expanded += batch.nbytes
            if expanded > limits.largest_bytes:
                limits.check(expanded, expanded, where=where)


def _plain(found: pa.Schema) -> pa.Schema:
    """A column that is a dictionary only to save space has the type of its values."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in found
    ]
    return pa.schema([field.remove_metadata() for field in fields])


def _check_size(metadata: parquet.FileMetaData, limits: Limits, where: str) -> None:
    """What a file says of itself is checked before anything of it is read."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    packed = sum(chunk.total_compressed_size for chunk in chunks)
    limits.check(sum(chunk.total_uncompressed_size for chunk in chunks), packed, where=where)


def _row_groups(
    file: pa.NativeFile, opened: parquet.ParquetFile, found: pa.Schema, names: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The batches of a file, of fewer rows where a row may be large."""
    groups = range(opened.metadata.num_row_groups)
    rows = {group: min(batch_rows, _safe_rows(file, opened, group, found, names)) for group in groups}
    if not rows or min(rows.values()) == batch_rows:
        yield from opened.iter_batches(batch_size=batch_rows, columns=list(names))
        return
    for group in groups:
        yield from opened.iter_batches(batch_size=rows[group], row_groups=[group], columns=list(names))


def _safe_rows(
    file: pa.NativeFile, opened: parquet.ParquetFile, group: int, found: pa.Schema, names: Sequence[str]
) -> int:
    """Rows of a row group that fit into memory together.

    A value that stands once in the file's dictionary may stand in every row: a few kilobytes then hold terabytes. So
    where that is possible the dictionary is looked at before the rows are read.
    """
    metadata = opened.metadata.row_group(group)
    suspects = []
    for index in range(metadata.num_columns):
        chunk = metadata.column(index)
        name = chunk.path_in_schema
        held = name in names and name in found.names and _varies(found.field(name).type)
        if held and chunk.has_dictionary_page and chunk.num_values * chunk.total_uncompressed_size > _BATCH_BYTES:
            suspects.append(name)
    if not suspects:
        return metadata.num_rows or 1
    with parquet.ParquetFile(
        file, metadata=opened.metadata, read_dictionary=suspects, pre_buffer=False, buffer_size=_PROBE_BYTES
    ) as probe:
        first = next(probe.iter_batches(batch_size=1, row_groups=[group], columns=suspects), None)
    longest = 0
    for column in first.columns if first is not None else ():
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        longest += pc.max(pc.binary_length(values)).as_py() or 0
    return max(1, _BATCH_BYTES // max(longest, 1))


def _varies(type_: pa.DataType) -> bool:
    return any(
        is_a(type_)
        for is_a in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


@contextmanager
def _errors(where: str) -> Iterator[None]:
    with storage_errors(f"{where}: cannot be read"):
        try:
            yield
        except pa.ArrowInvalid:
            raise SourceError(f"{where}: is not a Parquet file, is damaged, or was cut off") from None
