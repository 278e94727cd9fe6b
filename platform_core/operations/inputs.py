"""Opens what a step or dashboard reads: tables of the lake, and views over tables, all as of one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.paths import Lake
from platform_core.lake.views import Opened, ViewReader, open_table_or_view
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.step_kinds import EXTERNAL_LAYER
from platform_core.specs.table import TableRef


@dataclass(frozen=True, kw_only=True)
class OpenInputs:
    """Tables and views as of the moment when they were opened.

    Args:
        readers: of those that are there, in the order in which they were asked for.
        missing: those that are not.
        deferred: what is read from the shared tables, for want of the person's own; also what lies below a view.
    """

    readers: Mapping[TableRef, DeltaTableReader | ViewReader]
    missing: tuple[TableRef, ...] = ()
    deferred: tuple[TableRef, ...] = field(default=())


def open_inputs(refs: Iterable[TableRef], *, platform: Platform) -> OpenInputs:
    """Readers of tables and views as of now.

    Where a person has no table of that name, the shared one is chosen, once: a table that appears while a step works is
    the next one's.

    Raises:
        StorageError: one cannot be read, or a view reads a table that is not there, or itself.
    """

    def select(sql: str, tables: Mapping[TableRef, TableReader]) -> pa.RecordBatchReader:
        return platform.engine.select(sql, tables=tables, variables={}, cancelled=platform.cancelled)

    opened: Opened = {}
    readers = {ref: open_table_or_view(ref, lake=platform.lake, select=select, opened=opened) for ref in refs}
    return OpenInputs(
        readers={ref: reader for ref, reader in readers.items() if reader is not None},
        missing=tuple(ref for ref, reader in readers.items() if reader is None),
        deferred=tuple(sorted(ref for ref, reader in opened.items() if reader.deferred)),
    )


def is_table(ref: TableRef) -> bool:
    """Whether there must be a table of this name: what another system owns may be something else."""
    return ref.layer != EXTERNAL_LAYER


def shown_name(ref: TableRef, reader: DeltaTableReader | ViewReader, lake: Lake) -> str:
    """How it is remembered what was read of a table.

    A person's own table, the shared one that is read in its place, and the same one in an environment of everybody have
    versions and batches that say nothing of each other.
    """
    if lake.shared is None:
        return str(ref)
    return f"{ref} (shared)" if reader.deferred else f"{ref} (own)"


def open_input(ref: TableRef, *, platform: Platform) -> DeltaTableReader | ViewReader | None:
    """A reader of one table or view; None where there is neither. Errors as of :func:`open_inputs`."""
    return open_inputs((ref,), platform=platform).readers.get(ref)
