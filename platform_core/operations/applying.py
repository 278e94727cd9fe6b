"""Applies one batch of a table under its lease, and tells the load log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from platform_core.errors import DeletesStopped
from platform_core.lake.landing import batch_uri
from platform_core.lake.row_hash import HASH_VERSION
from platform_core.operations.platform import Platform
from platform_core.operations.table_lease import TableLease
from platform_core.plugins.interfaces import BronzeLoad, BronzeOutcome
from platform_core.specs.column_names import normalised
from platform_core.specs.ingestion import IngestionSpec, OnBadKey

KEYS = "keys"
"""Mode of a batch that holds the keys of all rows and nothing else, in the load log and in the landing."""

CHANGES = "changes"
"""Mode of a full batch in the landing that holds of unchanged rows the key alone."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows that are to be applied.

    Args:
        schema: of the rows, ``_row_hash`` included.
        files: URIs of their files; empty where the rows are held.
        rows: all of them, where they are held in memory.
        land: brings held rows into the landing; returns the URIs of their files.
        keys_only: the rows are the keys of all rows of the source.
        partial: of rows that are known to be unchanged there is the key alone.
        approved: a person has let their deletes pass.
        commit_always: the batch id is to be committed, whether or not a row changed.
        metadata: texts that are committed with the data.
    """

    schema: pa.Schema
    files: tuple[str, ...] = ()
    rows: pa.Table | None = None
    land: Callable[[], tuple[str, ...]] | None = None
    keys_only: bool = False
    partial: bool = False
    approved: bool = False
    commit_always: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


def apply_batch(
    batch: Batch, *, spec: IngestionSpec, platform: Platform, lease: TableLease, modified_at: dt.datetime
) -> BronzeOutcome:
    """Apply a batch, once it is certain that the lease still holds; where nothing changes it need not.

    Raises:
        LeaseError: the lease was lost.
        RowsUnknown: bronze lacks a row that is said to be unchanged; nothing was applied.
        LoadError: the load was stopped; nothing was applied.
        StorageError: the lake refused.
    """

    def land() -> tuple[str, ...]:
        lease.ticket.confirm()
        return () if batch.land is None else batch.land()

    lake = platform.lake
    ordered = not batch.keys_only
    load = BronzeLoad(
        table=spec.ref,
        uri=lake.table(spec.ref),
        storage_options=lake.storage_options,
        files=batch.files,
        rows=batch.rows,
        land=None if batch.land is None else land,
        handle=lease.table,
        schema=batch.schema,
        batch_id=lease.batch_id,
        held_batch=lease.held_batch,
        mode=spec.mode,
        key=tuple(normalised(name) for name in spec.key),
        sequence_by=lake_name(spec.sequence_column()) if ordered else None,
        deleted_flag=lake_name(spec.deleted_flag) if ordered else None,
        cursor=lake_name(spec.cursor) if ordered else None,
        winner_by=lake_name(spec.sequence_by) if ordered and spec.on_bad_key is OnBadKey.QUARANTINE else None,
        on_bad_key=spec.on_bad_key,
        max_delete_ratio=1.0 if batch.approved else spec.max_delete_ratio,
        delete_floor=spec.delete_floor,
        quarantine_uri=batch_uri(lake.quarantine(spec.ref), lease.batch_id),
        history_uri=lake.table(spec.history_ref) if spec.snapshot_history else None,
        keys_only=batch.keys_only,
        partial=batch.partial,
        commit_always=batch.commit_always,
        modified_at=modified_at,
        metadata={"hash_version": HASH_VERSION, **batch.metadata},
    )
    if batch.land is None:
        lease.ticket.confirm()
    return platform.engine.apply(load)


def lake_name(declared: str | None) -> str | None:
    """A declared column's name in the lake."""
    return None if declared is None else normalised(declared)


def stopped(error: DeletesStopped, *, spec: IngestionSpec, lease: TableLease, figures: Mapping[str, Any]) -> Exception:
    """Note that a load was stopped for its deletes; returns the error that says how it can be let through."""
    ratio = error.deletes / error.current if error.current else 1.0
    lease.ticket.finish(
        status="stopped", figures={**figures, "deletes": error.deletes, "current": error.current, "ratio": ratio}
    )
    return DeletesStopped(
        f"{spec.ref}: this load would flag {error.deletes} of {error.current} current rows deleted ({ratio:.0%}, "
        f"allowed {spec.max_delete_ratio:.0%}); nothing was applied, and the batch stays in the landing\n"
        "  if the source really lost them, let this one load through:\n"
        f'    edp ingest approve {spec.workstream}.{spec.table}@{lease.batch_id} --why "..."\n'
        "  if not, mend the source and load again",
        deletes=error.deletes,
        current=error.current,
    )
