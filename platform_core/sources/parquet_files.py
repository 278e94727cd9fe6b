"""Parquet files as Arrow, all with the columns and types of the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import parquet

from platform_core.errors import SourceError
from platform_core.sources.storage import storage_errors
from platform_core.sources.streaming import Batches
from platform_core.sources.types import UnfitError, convert, type_name, unfit


def schema(file: pa.NativeFile, *, where: str) -> pa.Schema:
    """The columns of a file."""
    with _errors(where), parquet.ParquetFile(file) as opened:
        return opened.schema_arrow.remove_metadata()


def batches(
    file: pa.NativeFile,
    types: Mapping[str, pa.DataType],
    *,
    declared: Mapping[str, pa.DataType],
    batch_rows: int,
    where: str,
) -> Batches:
    """The rows of a file, only the columns named in ``types``.

    A type that is declared is converted to, exactly; any other must be that of the first file.
    """
    with _errors(where), parquet.ParquetFile(file) as opened:
        found = opened.schema_arrow
        for name, type_ in types.items():
            if name not in declared and found.field(name).type != type_:
                raise SourceError(
                    f"{where}: column '{name}' has type {type_name(found.field(name).type)}, "
                    f"but {type_name(type_)} in the first file\n"
                    f"  name its type in the table's options: columns: {{{name}: …}}"
                )
        read = 0
        for batch in opened.iter_batches(batch_size=batch_rows, columns=list(types)):
            arrays = []
            for name, type_ in types.items():
                try:
                    arrays.append(convert(batch.column(name), type_))
                except UnfitError as error:
                    rows = (read + 1, read + batch.num_rows)
                    raise unfit(where, column=name, type_=type_, count=error.count, rows=rows) from None
            yield pa.record_batch(arrays, names=list(types))
            read += batch.num_rows


@contextmanager
def _errors(where: str) -> Iterator[None]:
    with storage_errors(f"{where}: cannot be read"):
        try:
            yield
        except pa.ArrowInvalid:
            raise SourceError(f"{where}: is not a Parquet file, or was cut off") from None
