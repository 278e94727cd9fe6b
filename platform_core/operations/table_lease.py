"""The right to load one table, and the table as it is once nobody else may load it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from platform_core.control.loads import Ticket
from platform_core.faults import FaultPoint, reach
from platform_core.lake.bronze import source_columns
from platform_core.lake.content import Seen
from platform_core.lake.delta import batch_of, fence_of, open_table, table_schema
from platform_core.lake.freshness import NewestLoad, is_newest, newest_load
from platform_core.operations.platform import Platform
from platform_core.specs.ingestion import IngestionSpec

if TYPE_CHECKING:
    from deltalake import DeltaTable

_WAITED_LEASES = 2
"""How many lifetimes of a lease a load waits for its table: a holder that died on another machine is waited out."""


@dataclass(frozen=True)
class TableLease:
    """A table that only this process may load, as it is from the begin of the lease on.

    Args:
        uri: of the table.
        newest: its newest commit, where that told enough; None: the table was opened.
        seen: what the load before this one left; None: nothing, or it left it for another table than this.
    """

    ticket: Ticket
    uri: str
    storage_options: Mapping[str, str]
    newest: NewestLoad | None
    seen: Seen | None
    _opened: DeltaTable | None = None

    @property
    def batch_id(self) -> int:
        """Id of the batch that this lease may commit."""
        return self.ticket.batch_id

    @property
    def exists(self) -> bool:
        """Whether there is a table."""
        return self.newest is not None or self._opened is not None

    @cached_property
    def table(self) -> DeltaTable | None:
        """The table, opened when it is first asked for; None: there is none yet."""
        if self.newest is None:
            return self._opened
        return open_table(self.uri, storage_options=self.storage_options, version=self.newest.version)

    @property
    def version(self) -> int | None:
        """Delta version of the table; None: there is none yet."""
        if self.newest is not None:
            return self.newest.version
        return None if self._opened is None else self._opened.version()

    @cached_property
    def held_batch(self) -> int:
        """The newest batch of bronze; 0: none."""
        return batch_of(self._opened) if self.newest is None else self.newest.batch_id

    @cached_property
    def columns(self) -> pa.Schema | None:
        """The source's own columns of bronze; None: there is no table yet."""
        if self.seen is not None and self.seen.columns is not None:
            return self.seen.columns
        return None if self.table is None else source_columns(table_schema(self.table))


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
    newest = None if past_fence else newest_load(uri)
    table = None if newest is not None else open_table(uri, storage_options=options)
    held = batch_of(table) if newest is None else newest.batch_id
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
        version = newest.version if newest is not None else None if table is None else table.version()
        if version is None or not is_newest(version, uri, storage_options=options):
            newest, table = None, open_table(uri, storage_options=options)
        lease = TableLease(ticket, uri, options, newest, Seen.unpacked(ticket.seen), table)
        if lease.seen is not None and (lease.seen.version, lease.seen.batch_id) != (lease.version, lease.held_batch):
            lease = replace(lease, seen=None)
        yield lease
