"""The right to load one table, and the table as it is once nobody else may load it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from platform_core.control.loads import Ticket
from platform_core.faults import FaultPoint, reach
from platform_core.lake.bronze import source_columns
from platform_core.lake.delta import batch_of, fence_of, open_table, table_schema
from platform_core.lake.freshness import is_newest
from platform_core.operations.platform import Platform
from platform_core.specs.ingestion import IngestionSpec

if TYPE_CHECKING:
    from deltalake import DeltaTable

_WAITED_LEASES = 2
"""How many lifetimes of a lease a load waits for its table: a holder that died on another machine is waited out."""


@dataclass(frozen=True)
class TableLease:
    """A table that only this process may load.

    Args:
        table: as of the begin of the load; None: there is none yet.
        columns: the source's own columns of bronze; None: there is no table yet.
        held_batch: the newest batch of bronze when the lease began; 0: none.
    """

    ticket: Ticket
    table: DeltaTable | None
    columns: pa.Schema | None
    held_batch: int

    @property
    def batch_id(self) -> int:
        """Id of the batch that this lease may commit."""
        return self.ticket.batch_id


@contextmanager
def leased(
    spec: IngestionSpec, *, platform: Platform, mode: str, run_id: str | None, past_fence: bool = False
) -> Iterator[TableLease]:
    """Take the lease of a table for one batch, and a row of the load log with it.

    Whoever takes over from a holder that never let go first makes bronze refuse that holder's commits. The block calls
    ``ticket.finish``, or is left with an error, which the log then tells.

    Args:
        mode: as it stands in the log.
        past_fence: let the batch's id be larger than the table's fence, too. Else an id below it shows that the control
            database was lost, or that this process was overtaken.

    Raises:
        LeaseError: somebody else loads the table.
        ControlError: the control database cannot be reached: without a lease nothing is loaded.
    """
    uri, options = platform.lake.table(spec.ref), platform.lake.storage_options
    table = open_table(uri, storage_options=options)
    held = batch_of(table)
    reach(FaultPoint.PLAN_READ)
    ticket = platform.loads.begin(
        spec.ref,
        mode=mode,
        above=max(held, fence_of(table) if past_fence else 0),
        run_id=run_id,
        wait=platform.environment.control.lease * _WAITED_LEASES,
        log=platform.log,
        cancelled=platform.cancelled,
    )
    with ticket:
        if ticket.taken_over:
            platform.engine.fence(uri, storage_options=options, epoch=ticket.batch_id - 1)
        # What was read before the lease may have changed until it began.
        if table is None or not is_newest(table, uri, storage_options=options):
            table = open_table(uri, storage_options=options)
            held = batch_of(table)
        yield TableLease(ticket, table, None if table is None else source_columns(table_schema(table)), held)
