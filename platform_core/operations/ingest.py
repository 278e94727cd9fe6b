"""Load one object of a source into its bronze table, whatever has to be done before and after it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from platform_core.control.loads import StoppedLoad
from platform_core.errors import LoadError, Overtaken, RowsUnknown, SchemaError, SourceError
from platform_core.lake.delta import file_sizes
from platform_core.lake.freshness import is_as_loaded
from platform_core.lake.landing import batch_ids, batch_uri, remove_batch
from platform_core.lake.source_state import read_state
from platform_core.lake.storage import local_path
from platform_core.lake.watermark import watermark
from platform_core.operations.applying import KEYS, lake_name
from platform_core.operations.extract import Extract, opened
from platform_core.operations.key_comparison import COMPARED_AT, is_due, last_compared
from platform_core.operations.known_rows import KnownRows, terms_of
from platform_core.operations.load_result import LoadResult
from platform_core.operations.masking import Masking, open_masking
from platform_core.operations.platform import Platform
from platform_core.operations.reload import Reload, check_reload, cursor_value
from platform_core.operations.replay import Pending, apply_landed, pending_approval
from platform_core.operations.stopwatch import Stopwatch
from platform_core.operations.table_lease import TableLease, leased
from platform_core.operations.transfer import Transfer
from platform_core.plugins.interfaces import Cursor
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import IngestionSpec, LoadMode
from platform_core.specs.table import TableRef

ATTEMPTS = 3
"""How often a load begins, where somebody else loads the table each time before it can commit."""

PHASES = ("lease", "extract", "mask", "hash", "land", "apply")


def ingest(
    spec: IngestionSpec,
    *,
    connection: ConnectionSpec,
    platform: Platform,
    started_at: dt.datetime | None = None,
    run_id: str | None = None,
    reload: Reload | None = None,
) -> LoadResult:
    """Load one object of a source into its bronze table.

    Nothing is applied unless the whole extract was read, and no byte of a masked column reaches a disk unmasked. A load
    that ended in an error or a crash is repeated from the beginning, with the same effect. What was stopped for its
    deletes and then approved is applied first; where the comparison of keys is due, it follows.

    What is read: ``full`` everything, or where the source detects changes, what changed and the keys of all other rows;
    ``incremental`` rows from the watermark on, less the lookback, or everything the
    first time; ``append`` rows above the watermark, or everything the first time. So an append's cursor must grow from
    row to row (an identity, not a date): a row that arrives later with a value at or below the watermark is not
    read. An append without a cursor loads once, and is refused from then on, because it would double every row; not so
    where the source keeps state, and knows by itself what is new. Rows whose cursor is null are read by the first load
    only.

    Timestamps are kept to the microsecond: what is finer is cut. A value that its column's type cannot hold stops the
    load; the years 1 to 9999 all fit.

    Args:
        connection: where the source is.
        started_at: what ``_modified_at`` becomes for the rows that change; None: now.
        run_id: the Dagster run, for the load log.
        reload: read again what bronze may hold already.

    Raises:
        SourceError: the source cannot be read.
        SchemaError: its columns are not what was declared, or may not become those of bronze.
        SecretError: a secret of the source or the masking key is missing.
        DeletesStopped: too many rows would be flagged deleted; it says how to let them pass.
        LoadError: the load was stopped or cancelled, or somebody else loads the table; nothing was applied.
        ControlError: the control database cannot be reached; without a lease nothing is loaded.
        StorageError: the lake refused.
    """
    check_reload(spec, reload)
    attempt = 1
    replaced = False
    while True:
        load = _Load(
            spec=spec,
            connection=connection,
            platform=platform,
            started_at=started_at or dt.datetime.now(dt.UTC),
            run_id=run_id,
            reload=reload,
            overtaken=attempt > 1,
        )
        try:
            with load.resources:
                return load.run()
        except Overtaken as error:
            if attempt == ATTEMPTS:
                raise
            platform.log.warning("%s: overtaken by another load, beginning anew\n%s", spec.ref, error)
            attempt += 1
        except SourceError as error:
            # A source that was let in with the old secret may refuse it on the way.
            if replaced or not load.secrets_renewed(error):
                raise
            platform.log.warning("%s: a secret was replaced meanwhile, beginning anew\n%s", spec.ref, error)
            replaced = True


@dataclass(kw_only=True)
class _Load:
    """One load under way, with what comes before and after it; the source is opened once for all of it."""

    spec: IngestionSpec
    connection: ConnectionSpec
    platform: Platform
    started_at: dt.datetime
    run_id: str | None
    reload: Reload | None
    overtaken: bool
    resources: ExitStack = field(default_factory=ExitStack)
    _stopped: StoppedLoad | None = field(default=None, init=False)

    def run(self) -> LoadResult:
        approved: LoadResult | None = None
        with self._leased(str(self.spec.mode)) as (lease, watch):
            self._stopped = self._stopped_before(lease)
            # Where nothing was stopped, nothing can be approved.
            pending = (
                None if self._stopped is None else pending_approval(self.spec, platform=self.platform, lease=lease)
            )
            if pending is None or pending.landed is None:
                result = self._load(lease, watch, void=pending)
            else:
                approved = apply_landed(self.spec, pending.landed, platform=self.platform, lease=lease, approved=True)
                self._finish(lease, approved, used_approval=pending.batch_id, mode=pending.landed.mode)
        if approved is not None:
            with self._leased(str(self.spec.mode)) as (lease, watch):
                result = self._load(lease, watch, void=None)
        return replace(result, approved=approved, keys=self._compare_keys())

    def secrets_renewed(self, failure: SourceError) -> bool:
        """Whether a secret that the source was given has been replaced since."""
        return "_extract" in vars(self) and self._extract.secrets.renewed(failure)

    def _load(self, lease: TableLease, watch: Stopwatch, *, void: Pending | None) -> LoadResult:
        """The load itself."""
        spec = self.spec
        if void is not None:
            self.platform.log.warning("%s: approval of batch %d ends: %s", spec.ref, void.batch_id, void.fault)
        mark = self._watermark(lease)
        state = self._state(lease)
        since, until = self._span(lease, mark)
        terms = None if spec.detect_changes is None else terms_of(spec, self.connection, self._masking)
        transfer = Transfer(
            spec=spec,
            platform=self.platform,
            extract=self._extract,
            lease=lease,
            masking=self._masking,
            watch=watch,
            started_at=self.started_at,
            mark=mark,
            since=since,
            until=until,
            stateful=self._stateful,
            terms=terms,
            known=None if self.reload else self._known(lease, state, terms),
            state=state,
            read_state=None if self.reload or terms else state,
            anew=self.reload is not None,
        )
        try:
            result = transfer.run()
        except RowsUnknown as error:
            if transfer.known is None:
                raise
            self.platform.log.warning("%s: reading all rows\n%s", spec.ref, error)
            transfer = replace(transfer, known=None)
            result = transfer.run()
        self._remove_superfluous(lease)
        # The first load has read every key there is.
        compared = self._compared_at if lease.exists else self.started_at
        used = None if void is None else void.batch_id
        self._finish(lease, result, compared=compared, used_approval=used, seen=transfer.seen)
        return result

    def _compare_keys(self) -> LoadResult | None:
        """Find rows that are gone, where that is due."""
        spec = self.spec
        forced = self.reload is not None and self.reload.detect_deletes
        if not forced and not is_due(spec, self._compared_at, now=self.started_at):
            return None
        with self._leased(KEYS) as (lease, watch):
            result = Transfer(
                spec=spec,
                platform=self.platform,
                extract=self._extract,
                lease=lease,
                masking=self._masking,
                watch=watch,
                started_at=self.started_at,
                keys_only=True,
                stateful=self._stateful,
                state=self._state(lease),
            ).run()
            self._remove_superfluous(lease)
            self._finish(lease, result, compared=self.started_at)
        return result

    @contextmanager
    def _leased(self, mode: str) -> Iterator[tuple[TableLease, Stopwatch]]:
        """The lease, and the watch of what is done under it."""
        watch = Stopwatch(*PHASES)
        with ExitStack() as held:
            with watch.phase("lease"):
                lease = held.enter_context(
                    leased(self.spec, platform=self.platform, mode=mode, run_id=self.run_id, past_fence=self.overtaken)
                )
            yield lease, watch

    def _finish(
        self,
        lease: TableLease,
        result: LoadResult,
        *,
        compared: dt.datetime | None = None,
        used_approval: int | None = None,
        mode: str | None = None,
        seen: str | None = None,
    ) -> None:
        figures: dict[str, Any] = result.figures()
        if compared is not None:
            figures[COMPARED_AT] = compared.isoformat()
        lease.ticket.finish(status="succeeded", figures=figures, used_approval=used_approval, mode=mode, seen=seen)
        self.platform.log.info("%s", result.line())

    @cached_property
    def _extract(self) -> Extract:
        return self.resources.enter_context(opened(self.spec, connection=self.connection, platform=self.platform))

    @cached_property
    def _masking(self) -> Masking:
        return open_masking(self.spec, secrets=self.platform.secrets)

    @cached_property
    def _stateful(self) -> bool:
        if self.spec.mode is LoadMode.FULL:
            return self.spec.detect_changes is not None
        return self._extract.source.keeps_state

    @cached_property
    def _compared_at(self) -> dt.datetime | None:
        """When the keys were last compared, before this load."""
        if self.spec.detect_deletes is None:
            return None
        return last_compared(self.platform.loads, self.spec.ref)

    def _watermark(self, lease: TableLease) -> Cursor | None:
        spec = self.spec
        if spec.mode is LoadMode.APPEND and spec.lookback:
            raise LoadError(
                f"{spec.ref}: mode append cannot look back: rows read twice would be there twice\n"
                "  remove 'lookback', or use mode incremental with a key"
            )
        cursor = lake_name(spec.cursor)
        if cursor is None and spec.mode is not LoadMode.APPEND:
            return None
        table = lease.table
        if table is None or lease.columns is None:
            return None
        if cursor is not None and cursor in lease.columns.names:
            return watermark(table, cursor, storage_options=self.platform.lake.storage_options)
        if spec.mode is not LoadMode.APPEND or not file_sizes(table):
            return None
        if cursor is not None:
            raise SchemaError(
                f"{spec.ref}: bronze has no column '{cursor}', so nobody can tell which rows it holds\n"
                f"  columns: {', '.join(lease.columns.names)}\n  load into a new table"
            )
        if not self._stateful:
            raise LoadError(
                f"{spec.ref}: an append without a cursor can be loaded once only: every row would be there twice\n"
                "  declare 'cursor', a column that grows from row to row, or use mode full with a key"
            )
        return None

    def _state(self, lease: TableLease) -> bytes | None:
        """What the source knew after the batch that bronze holds."""
        spec, lake = self.spec, self.platform.lake
        if not self._stateful or lease.table is None:
            return None
        folder = lake.source_state(spec.ref)
        state = read_state(folder, lease.held_batch, storage_options=lake.storage_options)
        if state is None and spec.mode is LoadMode.APPEND and spec.cursor is None and file_sizes(lease.table):
            raise LoadError(
                f"{spec.ref}: what the source remembers of batch {lease.held_batch} is lost, so every row would be "
                f"there twice\n  looked at {folder}\n  restore it, or load into a new table"
            )
        return state

    def _known(self, lease: TableLease, state: bytes | None, terms: str | None) -> KnownRows | None:
        """What the source may count on where it tells what changed; None: all rows are to be read."""
        if state is None or terms is None or lease.table is None:
            return None
        known = KnownRows.unpacked(state, of=str(self.spec.ref))
        if known is None or not known.serves(self.spec, terms=terms, now=self.started_at):
            return None
        return known if is_as_loaded(lease.table, lease.held_batch) else None

    def _span(self, lease: TableLease, mark: Cursor | None) -> tuple[Cursor | None, Cursor | None]:
        """Lowest and highest cursor value that are read."""
        spec, reload = self.spec, self.reload
        if reload is None:
            return (None if mark is None else earlier(mark, spec.lookback, of=spec.ref)), None
        cursor = lake_name(spec.cursor)
        if cursor is None or not (reload.since or reload.until):
            return None, None
        type_ = self._extract.cursor_type()
        since, until = (
            None if text is None else cursor_value(text, type_, of=spec.ref) for text in (reload.since, reload.until)
        )
        return since, until

    def _stopped_before(self, lease: TableLease) -> StoppedLoad | None:
        """The newest stopped load, as far as bronze has not been loaded since."""
        landing = self.platform.lake.landing(self.spec.ref)
        if local_path(landing) is not None:
            # A stopped load left its batch there, and a look into a folder costs less than a query.
            ids = batch_ids(landing, storage_options=self.platform.lake.storage_options)
            if not any(batch_id > lease.held_batch for batch_id in ids):
                return None
        return self.platform.loads.stopped(self.spec.ref)

    def _remove_superfluous(self, lease: TableLease) -> None:
        """Remove the landings of stopped loads, which this one has made superfluous.

        What killed loads left is no business of a load: they may live on, and whoever sweeps knows their age.
        """
        lake = self.platform.lake
        if self._stopped is None or self._stopped.batch_id < lease.held_batch:
            return
        folder, options = lake.landing(self.spec.ref), lake.storage_options
        for batch_id in batch_ids(folder, storage_options=options):
            if lease.held_batch < batch_id < lease.batch_id:
                remove_batch(batch_uri(folder, batch_id), storage_options=options)


def earlier(mark: Cursor, lookback: dt.timedelta, *, of: TableRef) -> Cursor:
    """The cursor value from which rows are read again.

    Dates go back by whole days, begun ones included. A number is taken to count seconds.

    Raises:
        LoadError: the cursor is a text, from which nothing can be taken away.
    """
    if not lookback:
        return mark
    if isinstance(mark, str):
        raise LoadError(f"{of}: a text cursor cannot look back\n  remove 'lookback', or use a date, time or number")
    try:
        if isinstance(mark, dt.datetime):
            return mark - lookback
        if isinstance(mark, dt.date):
            return mark - dt.timedelta(days=-(-lookback // dt.timedelta(days=1)))
    except OverflowError:
        # Before the year 1 there is nothing.
        return type(mark).min.replace(tzinfo=mark.tzinfo) if isinstance(mark, dt.datetime) else dt.date.min
    seconds = lookback.total_seconds()
    return mark - (int(seconds) if isinstance(mark, int) else seconds)
