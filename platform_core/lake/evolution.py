"""Columns that a batch adds to its table, and types that it makes wider."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from platform_core.errors import SchemaError
from platform_core.lake.columns import widened
from platform_core.lake.commit import NewFiles, NewSchema
from platform_core.lake.row_hash import HASH_COLUMN, row_hashes
from platform_core.lake.storage import filesystem

_BATCH_ROWS = 65_536


def schema_change(held: pa.Schema, given: pa.Schema, *, own: Sequence[str], of: str) -> NewSchema | None:
    """What a batch changes in the columns of its table; None where it has exactly these.

    Args:
        held: all columns of the table, with their metadata.
        given: the source's columns of the batch.
        own: the source's columns of the table.
        of: the table, for messages.

    Raises:
        SchemaError: a column of the table is missing, or has a type that does not hold all values of the old one; both
            are settled before a batch lands.
    """
    missing = [name for name in own if name not in given.names]
    common = [name for name in own if name in given.names]
    types = {name: (held.field(name).type, given.field(name).type) for name in common}
    wider = {name for name, (old, new) in types.items() if old != new}
    narrowed = [name for name in sorted(wider) if widened(*types[name]) != types[name][1]]
    added = tuple(pa.field(field.name, field.type) for field in given if field.name not in own)
    if missing or narrowed:
        changes = ("{} ({} in the table, {} now)".format(name, *types[name]) for name in narrowed)
        lines = [
            f"{of}: the columns are not those of the table; nothing was written",
            *([f"  added: {', '.join(field.name for field in added)}"] if added else []),
            *([f"  missing: {', '.join(missing)}"] if missing else []),
            *([f"  changed type: {', '.join(changes)}"] if narrowed else []),
            "  undo the change at the source, or load into a new table",
        ]
        raise SchemaError("\n".join(lines))
    if not wider:
        return NewSchema(added=added) if added else None
    fields = [field.with_type(given.field(field.name).type) if field.name in wider else field for field in held]
    return NewSchema(added=added, whole=pa.schema([*fields, *added]))


def rewrite_wider(files: NewFiles, paths: Sequence[str], *, schema: pa.Schema, own: Sequence[str]) -> dict[str, int]:
    """Write data files again in wider types, row hashes included; returns the new files' sizes by name.

    Args:
        files: takes the new files.
        paths: files of the table.
        schema: columns that the new files get; those that a file lacks are null.
        own: columns that the row hash covers.

    Raises:
        ArrowException, OSError: a file cannot be read or written.
    """
    import pyarrow.parquet as pq

    folder = filesystem(files.uri, files.storage_options)
    plain = schema.remove_metadata()
    sizes = {}
    for number, path in enumerate(paths):
        name = f"{files.prefix}wider{number}.parquet"
        with (
            folder.open_input_file(path) as stream,
            pq.ParquetFile(stream) as old,
            folder.open_output_stream(name) as sink,
            pq.ParquetWriter(sink, plain, compression="zstd", compression_level=1) as writer,
        ):
            for batch in old.iter_batches(_BATCH_ROWS):
                writer.write_batch(_wider(batch, plain, own=own))
        sizes[name] = folder.get_file_info(name).size
    return sizes


def _wider(batch: pa.RecordBatch, schema: pa.Schema, *, own: Sequence[str]) -> pa.RecordBatch:
    columns = {
        field.name: batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    }
    columns[HASH_COLUMN] = row_hashes(pa.RecordBatch.from_pydict({name: columns[name] for name in own}))
    return pa.RecordBatch.from_pydict(columns, schema=schema)
