"""Looks at the table of all versions that a load keeps beside its bronze table."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from platform_core.errors import LoadError
from platform_core.lake.delta import batch_of, open_table, table_schema
from platform_core.operations.platform import Platform
from platform_core.specs.ingestion import IngestionSpec


@dataclass(frozen=True, kw_only=True)
class Versions:
    """The history of a bronze table as it is.

    Args:
        version: Delta version of the history.
        batch: newest batch of bronze that it holds.
        schema: its columns.
    """

    version: int
    batch: int
    schema: pa.Schema


def versions(spec: IngestionSpec, *, platform: Platform) -> Versions:
    """What a history holds; the load of its bronze table writes it.

    Raises:
        LoadError: there is none yet.
        StorageError: it cannot be read.
    """
    uri = platform.lake.table(spec.history_ref)
    table = open_table(uri, storage_options=platform.lake.storage_options)
    if table is None:
        raise LoadError(f"{spec.history_ref}: there is no history yet\n  looked at {uri}\n  load {spec.ref} first")
    return Versions(version=table.version(), batch=batch_of(table), schema=table_schema(table))
