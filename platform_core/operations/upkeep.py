"""Keep the tables of the lake small and quick, one operation over many tables."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from platform_core.errors import LeaseError, PlatformError, StorageError
from platform_core.lake import upkeep as lake_upkeep
from platform_core.lake.delta import batch_of, open_table
from platform_core.lake.upkeep import Busy, Compacted, Freed
from platform_core.operations.platform import Platform
from platform_core.specs.processing import EXTERNAL_LAYER
from platform_core.specs.table import TableRef
from platform_core.specs.upkeep import Operation, UpkeepSpec

_MARGIN = dt.timedelta(hours=1)
"""Clocks differ, and a run reads its first table a little before it is known to have started."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What was done to one table."""

    table: TableRef
    freed: Freed = field(default_factory=Freed)
    compacted: Compacted | None = None
    busy: bool = False


@dataclass(frozen=True, kw_only=True)
class UpkeepResult:
    """What one operation did.

    Args:
        looked_at: tables that were looked at.
        tables: those where something was done or was in the way.
        retention: age from which files were removed; None where nothing is removed by age.
    """

    operation: Operation
    looked_at: int
    tables: tuple[Kept, ...]
    retention: dt.timedelta | None
    seconds: float

    @property
    def freed(self) -> Freed:
        return sum((kept.freed for kept in self.tables), start=Freed())

    @property
    def merged(self) -> int:
        """Files that compaction saves readers."""
        done = [kept.compacted for kept in self.tables if kept.compacted]
        return sum(each.files_before - each.files_after for each in done)

    @property
    def busy(self) -> tuple[TableRef, ...]:
        return tuple(kept.table for kept in self.tables if kept.busy)


def keep_up(
    spec: UpkeepSpec,
    *,
    platform: Platform,
    oldest_reader: dt.datetime | None = None,
    run_id: str | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> UpkeepResult:
    """Run one operation over the tables that it covers.

    A table that is being loaded, or written by somebody else, is left for the next time. A table that fails does not
    keep the others from their turn.

    Args:
        oldest_reader: when the oldest run that still goes on began; nothing is removed that it may read.
        run_id: for the load log.

    Raises:
        StorageError: some tables could not be kept; the message names each.
    """
    began = time.perf_counter()
    work = _Work(spec, platform, _retention(spec, oldest_reader=oldest_reader, now=now()), now(), run_id)
    looked_at = 0
    for ref in work.tables():
        if platform.cancelled():
            raise StorageError(f"{spec.ref}: cancelled after {looked_at} tables; what was done stays done")
        looked_at += 1
        work.keep(ref)
    if work.failed:
        lines = [f"  {ref}: {text}" for ref, text in work.failed.items()]
        raise StorageError(f"{spec.ref}: {len(work.failed)} of {looked_at} tables failed\n" + "\n".join(lines))
    result = UpkeepResult(
        operation=spec.operation,
        looked_at=looked_at,
        tables=tuple(work.done),
        retention=None if spec.operation is Operation.COMPACT else work.retention,
        seconds=time.perf_counter() - began,
    )
    platform.log.info(
        "%s: looked at %d tables, freed %d files (%d bytes), merged away %d files, %d busy",
        *(spec.ref, looked_at, result.freed.files, result.freed.bytes, result.merged, len(result.busy)),
    )
    return result


def _retention(spec: UpkeepSpec, *, oldest_reader: dt.datetime | None, now: dt.datetime) -> dt.timedelta:
    if oldest_reader is None:
        return spec.age()
    return max(spec.age(), now - oldest_reader + _MARGIN)


@dataclass
class _Work:
    spec: UpkeepSpec
    platform: Platform
    retention: dt.timedelta
    now: dt.datetime
    run_id: str | None
    done: list[Kept] = field(default_factory=list)
    failed: dict[TableRef, str] = field(default_factory=dict)

    @property
    def _options(self) -> Mapping[str, str]:
        return self.platform.lake.storage_options

    def tables(self) -> Iterator[TableRef]:
        lake = self.platform.lake
        found = set(lake_upkeep.tables(lake)) if self.spec.operation is not Operation.LANDING else set()
        if self.spec.operation in (Operation.LANDING, Operation.ORPHANS):
            found |= set(lake_upkeep.landed_tables(lake))
        # What another system owns is kept by that system.
        yield from sorted(ref for ref in found if self.spec.covers(ref) and ref.layer != EXTERNAL_LAYER)

    def keep(self, ref: TableRef) -> None:
        try:
            kept = self._keep(ref)
        except Busy:
            kept = Kept(table=ref, busy=True)
        except PlatformError as error:
            self.platform.log.error("%s: %s", ref, error)
            self.failed[ref] = str(error).splitlines()[0]
            return
        if kept.busy:
            self.platform.log.info("%s: is being written; its turn comes next time", ref)
        if kept.busy or kept.freed.files or (kept.compacted and kept.compacted.committed):
            self.done.append(kept)

    def _keep(self, ref: TableRef) -> Kept:
        uri = self.platform.lake.table(ref)
        match self.spec.operation:
            case Operation.COMPACT:
                return self._compact(ref, uri)
            case Operation.VACUUM:
                freed = lake_upkeep.vacuum(
                    uri, storage_options=self._options, retention=self.retention, untracked=False
                )
            case Operation.ORPHANS:
                freed = lake_upkeep.vacuum(uri, storage_options=self._options, retention=self.retention, untracked=True)
                freed += self._sweep(ref, keep=None)
            case Operation.LANDING:
                freed = self._sweep(ref, keep=self.spec.keep)
            case Operation.LOGS:
                freed = lake_upkeep.truncate_log(uri, storage_options=self._options, retention=self.retention)
        return Kept(table=ref, freed=freed)

    def _compact(self, ref: TableRef, uri: str) -> Kept:
        table = open_table(uri, storage_options=self._options)
        policy = {"target_bytes": self.spec.target_size, "small_files": self.spec.small_files}
        if not lake_upkeep.needs_compaction(table, **policy):
            return Kept(table=ref)
        try:
            ticket = self.platform.loads.begin(
                ref,
                mode=str(Operation.COMPACT),
                above=batch_of(table),
                run_id=self.run_id,
                wait=dt.timedelta(0),
                log=self.platform.log,
                cancelled=self.platform.cancelled,
            )
        except LeaseError:
            return Kept(table=ref, busy=True)
        with ticket:
            if ticket.taken_over:
                self.platform.engine.fence(uri, storage_options=self._options, epoch=ticket.batch_id - 1)
            compacted = lake_upkeep.compact(
                uri, storage_options=self._options, z_order=self.spec.z_order.get(str(ref), ()), **policy
            )
            figures = {} if compacted is None else {"version": compacted.version, "committed": compacted.committed}
            ticket.finish(status="succeeded", figures=figures)
        return Kept(table=ref, compacted=compacted)

    def _sweep(self, ref: TableRef, *, keep: int | None) -> Freed:
        waiting: set[int] = set()
        loads = self.platform.loads
        for found in (loads.stopped(ref), loads.approval(ref)):
            if found is not None:
                waiting.add(found.batch_id)
        return lake_upkeep.sweep_landing(
            self.platform.lake.landing(ref),
            storage_options=self._options,
            retention=self.retention,
            now=self.now,
            keep=keep,
            kept=waiting.__contains__,
        )
