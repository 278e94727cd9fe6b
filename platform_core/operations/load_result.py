"""What a load did, as figures for the load log, the run's metadata and the command line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from platform_core.plugins.interfaces import BronzeOutcome, Cursor
from platform_core.specs.ingestion import LoadMode
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What a load did; counts are rows.

    Args:
        batch_id: id of the batch: the epoch of the table's lease.
        keys_only: only keys were read, to find rows that are gone.
        landed_batch: id under which the rows were landed, where they were landed by an earlier load; None: by this one.
        rows_read: rows that the source handed over, or of the landing that was applied.
        told_unchanged: those of them of which the source gave the key alone, as unchanged; None: it gave all rows.
        late: rows left out because bronze holds a newer one of the same key.
        quarantined: rows set aside for their key.
        bytes_landed: size of the landed files; 0 where nothing changed and nothing had to be landed.
        bytes_written: size of the files written to bronze.
        seconds: by phase: lease, extract (waiting for the source, which is read ahead in a thread), mask, land, apply.
        watermark_from: highest cursor value in bronze before the load; None: none.
        watermark_to: the same after it.
        version: Delta version of bronze after the load.
        committed: whether the load changed bronze.
        schema: columns of bronze.
        columns: the source's name of each of its columns that was read, by the name in bronze.
        notes: what the source says of what was read.
        approved: what was applied before, because a person approved it; None: nothing.
        keys: what the comparison of keys after the load did; None: there was none.
    """

    table: TableRef
    mode: LoadMode
    batch_id: int
    keys_only: bool = False
    landed_batch: int | None = None
    rows_read: int
    inserted: int
    updated: int
    deleted: int
    unchanged: int
    late: int
    quarantined: int
    bytes_landed: int
    bytes_written: int
    seconds: Mapping[str, float]
    watermark_from: Cursor | None
    watermark_to: Cursor | None
    version: int
    committed: bool
    schema: pa.Schema
    columns: Mapping[str, str] = field(default_factory=dict)
    told_unchanged: int | None = None
    notes: tuple[str, ...] = ()
    approved: LoadResult | None = None
    keys: LoadResult | None = None

    @property
    def parts(self) -> tuple[LoadResult, ...]:
        """All loads that this one consists of, in their order."""
        return tuple(part for part in (self.approved, self, self.keys) if part is not None)

    def figures(self) -> dict[str, Any]:
        """This load alone, as plain JSON."""
        figures: dict[str, Any] = {
            "rows_read": self.rows_read,
            "inserted": self.inserted,
            "updated": self.updated,
            "deleted": self.deleted,
            "unchanged": self.unchanged,
            "late": self.late,
            "quarantined": self.quarantined,
            "bytes_landed": self.bytes_landed,
            "bytes_written": self.bytes_written,
            "seconds": {phase: round(seconds, 6) for phase, seconds in self.seconds.items()},
            "watermark_from": as_text(self.watermark_from),
            "watermark_to": as_text(self.watermark_to),
            "version": self.version,
            "committed": self.committed,
        }
        if self.landed_batch is not None:
            figures["landed_batch"] = self.landed_batch
        if self.told_unchanged is not None:
            figures["told_unchanged"] = self.told_unchanged
        if self.notes:
            figures["notes"] = list(self.notes)
        return figures

    def as_json(self) -> dict[str, Any]:
        """Everything a person may want to know, as plain JSON."""
        return {
            "table": str(self.table),
            "mode": "keys" if self.keys_only else str(self.mode),
            "batch": self.batch_id,
            **self.figures(),
            "approved": None if self.approved is None else self.approved.as_json(),
            "keys": None if self.keys is None else self.keys.as_json(),
        }

    def line(self) -> str:
        """One line for the log."""
        what = "keys compared" if self.keys_only else f"read {self.rows_read}"
        if self.told_unchanged is not None:
            what += f" ({self.told_unchanged} by key alone)"
        text = (
            f"{self.table}: {what}, inserted {self.inserted}, updated {self.updated}, deleted {self.deleted}, "
            f"unchanged {self.unchanged}, late {self.late}"
        )
        if self.quarantined:
            text += f", set aside {self.quarantined}"
        return f"{text} in {sum(self.seconds.values()):.1f} s"


def counted(outcome: BronzeOutcome) -> dict[str, Any]:
    """The figures of a load that come from applying it, under their names in :class:`LoadResult`."""
    return {
        "inserted": outcome.inserted,
        "updated": outcome.updated,
        "deleted": outcome.deleted,
        "unchanged": outcome.unchanged,
        "late": outcome.late,
        "quarantined": outcome.quarantined,
        "bytes_written": outcome.written_bytes,
        "version": outcome.version,
        "committed": outcome.committed,
    }


def as_text(value: Any) -> str | None:
    """A cursor value as text."""
    if value is None:
        return None
    return value.isoformat() if isinstance(value, dt.date) else str(value)
