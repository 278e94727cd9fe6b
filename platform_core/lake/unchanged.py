"""Whether a small batch changes nothing, told without a query: most loads of small tables are such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.lake.delta import DataFile
from platform_core.lake.row_hash import HASH_COLUMN
from platform_core.lake.storage import filesystem
from platform_core.plugins.interfaces import BronzeLoad
from platform_core.specs.ingestion import LoadMode

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

MOST_BYTES = 32 * 1024 * 1024
"""A larger table is compared by the engine, which reads it with all cores and in bounded memory."""

MOST_FILES = 16


def is_small(load: BronzeLoad, files: Sequence[DataFile]) -> bool:
    """Whether a batch and its table can be compared here: by key, all of it in memory."""
    comparable = load.rows is not None and load.mode is not LoadMode.APPEND and not load.keys_only
    return comparable and 0 < len(files) <= MOST_FILES and sum(file.size for file in files) <= MOST_BYTES


def changes_nothing(load: BronzeLoad, rows: pa.Table, files: Sequence[DataFile]) -> bool:
    """Whether bronze has every row of the batch as it is, and for a full load no other current row.

    A row's hash covers its key, so equal hashes mean one key and equal values. A batch with null or doubled keys
    always changes something: bronze has no such rows. False may also mean that it is not known.

    Raises:
        ArrowException, OSError: a file cannot be read.
    """
    given = rows[HASH_COLUMN].combine_chunks()
    if len(pc.unique(given)) < len(given):
        return False
    folder = filesystem(load.uri, load.storage_options)
    # One file may promise that it holds no null where another does not.
    held = pa.concat_tables([_flags(folder, file.path) for file in files], promote_options="default")
    hashes, current = held[HASH_COLUMN], held["_is_current"]
    if load.deleted_flag is None:
        here, gone = given, given.slice(0, 0)
    else:
        flags = rows[load.deleted_flag].combine_chunks().cast(pa.bool_()).fill_null(False)
        here, gone = given.filter(pc.invert(flags)), given.filter(flags)
    if load.mode is LoadMode.FULL and pc.sum(current).as_py() != len(here):
        return False
    return _all_in(here, hashes.filter(current)) and _all_in(gone, hashes.filter(pc.invert(current)))


def _flags(folder: FileSystem, path: str) -> pa.Table:
    import pyarrow.parquet as pq

    with folder.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
        return file.read(columns=[HASH_COLUMN, "_is_current"], use_threads=False)


def _all_in(given: pa.Array, held: pa.ChunkedArray) -> bool:
    if len(given) == 0:
        return True
    found: bool = pc.all(pc.is_in(given, value_set=held.combine_chunks())).as_py()
    return found
