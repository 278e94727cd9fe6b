"""Brings one batch from a source to bronze: read, mask, hash, compare, land, commit."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.errors import DeletesStopped, RowsUnknown
from platform_core.lake import batch_sink
from platform_core.lake.batch_sink import BatchSink
from platform_core.lake.bronze import bronze_schema
from platform_core.lake.content import Seen, content_of
from platform_core.lake.delta import batch_of, open_table
from platform_core.lake.freshness import is_newest
from platform_core.lake.landing import batch_uri
from platform_core.lake.prefetch import prefetched
from platform_core.lake.row_hash import HASH_FIELD, HASH_VERSION, with_hash
from platform_core.lake.source_state import remove_state, remove_states, write_state
from platform_core.lake.watermark import check_cursor
from platform_core.operations.applying import CHANGES, KEYS, Batch, apply_batch, lake_name, stopped
from platform_core.operations.extract import BEFORE_THREAD, Extract
from platform_core.operations.known_rows import KnownRows, release
from platform_core.operations.load_result import LoadResult, as_text, counted
from platform_core.operations.masking import Masking
from platform_core.operations.platform import Platform
from platform_core.operations.schema_contract import Intake, agree
from platform_core.operations.stopwatch import Stopwatch
from platform_core.operations.table_lease import TableLease
from platform_core.plugins.interfaces import BronzeOutcome, Cursor
from platform_core.specs.column_names import normalised
from platform_core.specs.ingestion import IngestionSpec, LoadMode

Prepare = Callable[[Stopwatch], Generator[pa.RecordBatch]]
"""Reads rows as they land, and notes what that takes."""


@dataclass(kw_only=True)
class Transfer:
    """One batch on its way.

    Args:
        keys_only: read the keys of all rows, to find those that are gone.
        mark: highest cursor value in bronze; an append takes what lies above it.
        since: lowest cursor value that is read.
        until: highest cursor value that is read.
        stateful: the source's memory of this batch is kept.
        terms: under which rows that did not change stay as bronze has them; None: all rows are read, and nothing tells
            the next load which of them changed.
        known: what the source knew under these terms; None: all rows are read.
        state: what the source knew after the batch that bronze holds.
        read_state: what of it the source is given; a reload gives it none.
        anew: look into bronze even where the load before this one read the same rows.
        seen: what tells the next load that it has read the same rows; None: nothing does.
    """

    spec: IngestionSpec
    platform: Platform
    extract: Extract
    lease: TableLease
    masking: Masking
    watch: Stopwatch
    started_at: dt.datetime
    keys_only: bool = False
    mark: Cursor | None = None
    since: Cursor | None = None
    until: Cursor | None = None
    stateful: bool = False
    terms: str | None = None
    known: KnownRows | None = None
    state: bytes | None = field(default=None, repr=False)
    read_state: bytes | None = field(default=None, repr=False)
    anew: bool = False
    largest: Any = field(default=None, init=False)
    seen: str | None = field(default=None, init=False)
    _content: str | None = field(default=None, init=False)
    _same: BronzeOutcome | None = field(default=None, init=False)
    _partial: bool = field(default=False, init=False)
    _told_unchanged: int = field(default=0, init=False)
    _state_written: bool = field(default=False, init=False)

    def run(self) -> LoadResult:
        """Read the batch to its end, then apply it.

        Raises:
            DeletesStopped: the batch stays in the landing, and the load log knows of it.
            RowsUnknown: not all rows were read, and what is left out is not in bronze.
            PlatformError: nothing was applied, and nothing stays in the landing.
        """
        spec, lease = self.spec, self.lease
        with self.watch.phase("extract"):
            changes = None if self.known is None else self.extract.read_changes(self.known.state)
            reader = self._reader() if changes is None else changes.changed
        self._partial = changes is not None
        intake = self._intake(reader.schema, keys_only=self.keys_only)
        if changes is not None and (intake.added or intake.widened):
            raise RowsUnknown(f"{spec.ref}: the table gets other columns, so that every row has to be read")
        sink = BatchSink(
            batch_uri(self.platform.lake.landing(spec.ref), lease.batch_id),
            storage_options=self.platform.lake.storage_options,
            schema=self._landed_schema(intake),
            batch_id=lease.batch_id,
            mode=KEYS if self.keys_only else CHANGES if changes is not None else str(spec.mode),
            held_batch=lease.held_batch,
        )
        with sink:
            self._fill(sink, self._rows(reader, intake))
            if changes is not None:
                self._fill(sink, self._keys(changes.unchanged, intake.schema))
            with self.watch.phase("land"):
                sink.complete(cursor_from=as_text(self.since), cursor_to=as_text(self.largest))
            state = self._new_state()
            notes = self._notes()
            if sink.held is None:
                # Arrow keeps what reading has freed for more to come; the comparison has its own memory.
                pa.default_memory_pool().release_unused()
            try:
                outcome = self._same or self._apply(sink, intake, state)
            except DeletesStopped as error:
                raise self._stopped(error, sink, state) from None
            except BaseException:
                # An error may come from what the engine does behind its commit.
                if sink.landed is not None and self._is_committed():
                    sink.keep()
                raise
            if outcome.committed:
                sink.keep()
        self._tidy_states(outcome)
        left = self._left(outcome)
        self.seen = None if left is None else left.packed()
        return replace(self._result(sink, intake, outcome), notes=notes)

    def _reader(self) -> pa.RecordBatchReader:
        spec = self.spec
        return self.extract.read(
            mode=LoadMode.FULL if self.keys_only else spec.mode,
            columns=spec.key if self.keys_only else None,
            since=self.since,
            until=self.until,
            state=self.read_state,
            tracked=self.terms is not None,
        )

    def _rows(self, reader: pa.RecordBatchReader, intake: Intake) -> Prepare:
        def prepared(watch: Stopwatch) -> Generator[pa.RecordBatch]:
            with closing(self.extract.batches(reader, watch=watch)) as batches:
                yield from self._prepared(batches, intake, watch)

        return prepared

    def _keys(self, reader: pa.RecordBatchReader, schema: pa.Schema) -> Prepare:
        """Rows that did not change, as they land: of all columns but the key they have no value."""
        intake = self._intake(reader.schema, keys_only=True)
        landed = schema.append(HASH_FIELD)

        def prepared(watch: Stopwatch) -> Generator[pa.RecordBatch]:
            with closing(self.extract.batches(reader, watch=watch)) as batches:
                for batch in batches:
                    with watch.phase("mask"):
                        keys = intake.shaped(batch)
                        columns = [
                            keys[item.name] if item.name in keys.schema.names else pa.nulls(keys.num_rows, item.type)
                            for item in landed
                        ]
                    self._told_unchanged += keys.num_rows
                    yield pa.RecordBatch.from_arrays(columns, schema=landed)

        return prepared

    def _fill(self, sink: BatchSink, prepare: Prepare) -> None:
        """Land rows; of a large table three threads read, mask and write side by side."""
        watch, waited = Stopwatch("extract", "mask", "hash"), 0.0
        # Threads end before what they read is closed, and that before the source, also where something fails.
        with (
            closing(prepare(watch)) as rows,
            prefetched(rows, ahead=1, after=BEFORE_THREAD) as prepared,
        ):
            while True:
                begin = time.perf_counter()
                batch = next(prepared, None)
                waited += time.perf_counter() - begin
                if batch is None:
                    break
                with self.watch.phase("land"):
                    sink.write(batch)
        self.watch.share(waited, watch.seconds)

    def _prepared(
        self, batches: Iterator[pa.RecordBatch], intake: Intake, watch: Stopwatch
    ) -> Iterator[pa.RecordBatch]:
        # A small table is one batch, and that is all only once there is no second one.
        first, second = next(batches, None), next(batches, None)
        if first is None:
            self._recognise(None, intake)
        # Of what an append reads only what is new is loaded, which is told later.
        early = second is None and self.spec.mode is not LoadMode.APPEND and self.masking.digest_key is not None
        for batch in chain((each for each in (first, second) if each is not None), batches):
            with watch.phase("mask"):
                conformed = intake.conformed(batch)
            if early:
                with watch.phase("hash"):
                    self._recognise(conformed, intake, key=self.masking.digest_key)
                if self._same is not None:
                    self._new_rows(conformed)
                    return
            with watch.phase("mask"):
                shaped = self._new_rows(intake.masked(conformed))
            with watch.phase("hash"):
                if second is None and not early:
                    self._recognise(shaped, intake)
                    if self._same is not None:
                        return
                # Keys are looked for, and their rows compared with none.
                hashed = shaped if self.keys_only else with_hash(shaped)
            if batch is first:
                self._announce()
            yield hashed

    def _announce(self) -> None:
        """Say what is being loaded. Of rows that are known again the end of the load says enough: each line of a log is
        an event, which takes Dagster as long as a table's digest."""
        spec, batch_id = self.spec, self.lease.batch_id
        if not self.keys_only:
            self.platform.log.info(
                "%s: loading batch %d (%s) from %s",
                spec.ref,
                batch_id,
                spec.mode,
                spec.source,
                extra={"batch": batch_id},
            )

    def _recognise(self, rows: pa.RecordBatch | None, intake: Intake, *, key: bytes | None = None) -> None:
        """Find out whether the load before this one read the same rows, and bronze is as that one left it.

        Args:
            key: of the digest of rows that are not masked; None: they are.
        """
        spec, lease = self.spec, self.lease
        count = 0 if rows is None else rows.num_rows
        # What a source with a memory hands over twice is there twice, and so it is with an append.
        repeats = self.stateful or (spec.mode is LoadMode.APPEND and count > 0)
        large = rows is not None and rows.nbytes > batch_sink.HELD_BYTES
        # A history may lack what a crash kept from it.
        if self.keys_only or repeats or spec.snapshot_history or large:
            return
        self._content = content_of(rows, intake.schema, key=key or b"")
        version = lease.version
        if version is None or lease.seen is None or self.anew:
            return
        unchanged = BronzeOutcome(
            inserted=0,
            updated=0,
            deleted=0,
            unchanged=count,
            late=0,
            version=version,
            committed=False,
            written_bytes=0,
        )
        now = self._left(unchanged)
        if (
            now is not None
            and now.mark == lease.seen.mark
            and is_newest(version, lease.uri, storage_options=lease.storage_options)
        ):
            self._same = unchanged

    def _left(self, outcome: BronzeOutcome) -> Seen | None:
        """What stands for these rows in the version of bronze that has them; None where they are not all in it."""
        if self._content is None or outcome.late or outcome.quarantined:
            return None
        lease = self.lease
        return Seen.of(
            self._content,
            terms=_terms(self.spec),
            version=outcome.version,
            batch_id=lease.batch_id if outcome.committed else lease.held_batch,
            # Of any other version than that of the lease only the table itself tells.
            columns=lease.columns if outcome.version == lease.version else None,
        )

    def _intake(self, given: pa.Schema, *, keys_only: bool) -> Intake:
        spec = self.spec
        only = tuple(normalised(name) for name in spec.key) if keys_only else None
        intake = agree(spec, given, existing=self.lease.columns, masking=self.masking, only=only)
        if not keys_only and (cursor := lake_name(spec.cursor)) is not None:
            check_cursor(intake.schema, cursor, of=str(spec.ref))
        for what, names in (("adding", intake.added), ("widening", intake.widened), ("missing", intake.missing)):
            if names:
                self.platform.log.info("%s: %s columns %s", spec.ref, what, ", ".join(names))
        return intake

    def _landed_schema(self, intake: Intake) -> pa.Schema:
        return intake.schema if self.keys_only else intake.schema.append(HASH_FIELD)

    def _new_rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that are loaded: of an append only those above the watermark."""
        spec = self.spec
        cursor = lake_name(spec.cursor)
        if cursor is None or self.keys_only:
            return batch
        if spec.mode is LoadMode.APPEND and self.mark is not None:
            values = batch[cursor]
            batch = batch.filter(pc.greater(values, pa.scalar(self.mark, values.type)))
        largest = pc.max(batch[cursor]).as_py()
        if largest is not None and (self.largest is None or largest > self.largest):
            self.largest = int(largest) if isinstance(largest, Decimal) else largest
        return batch

    def _notes(self) -> tuple[str, ...]:
        """What the source says of what was read, in the log, too."""
        notes = self.extract.notes()
        for line in notes:
            self.platform.log.warning("%s: %s", self.spec.ref, line)
        return notes

    def _new_state(self) -> bytes | None:
        """What is kept with this batch of what the source knows."""
        if not self.stateful:
            return None
        if self.keys_only:
            return self.state
        state = self.extract.state()
        if state is None or self.terms is None:
            return state
        unread = self.known if self._partial else None
        read_all_at = self.started_at if unread is None else unread.read_all_at
        return KnownRows(terms=self.terms, read_all_at=read_all_at, state=state).packed()

    def _apply(self, sink: BatchSink, intake: Intake, state: bytes | None) -> BronzeOutcome:
        def land() -> tuple[str, ...]:
            with self.watch.phase("land"):
                self._write_state(state)
                return sink.land().file_uris

        held = sink.held
        if held is None:
            self._write_state(state)
        batch = Batch(
            schema=self._landed_schema(intake),
            files=() if sink.landed is None else sink.landed.file_uris,
            rows=held,
            land=None if held is None else land,
            keys_only=self.keys_only,
            partial=self._partial,
            commit_always=state is not None and state != self.state,
            metadata={"rows_read": str(self.extract.rows)},
        )
        with self.watch.phase("apply"):
            return apply_batch(
                batch, spec=self.spec, platform=self.platform, lease=self.lease, modified_at=self.started_at
            )

    def _stopped(self, error: DeletesStopped, sink: BatchSink, state: bytes | None) -> Exception:
        landed = sink.land()
        self._write_state(state)
        sink.keep()
        figures: Mapping[str, Any] = {
            "rows_read": self.extract.rows,
            "bytes_landed": landed.bytes,
            "seconds": self.watch.seconds,
        }
        return stopped(error, spec=self.spec, lease=self.lease, figures=figures)

    def _is_committed(self) -> bool:
        lake = self.platform.lake
        return (
            batch_of(open_table(lake.table(self.spec.ref), storage_options=lake.storage_options)) == self.lease.batch_id
        )

    def _write_state(self, state: bytes | None) -> None:
        if state is not None and not self._state_written:
            lake = self.platform.lake
            folder = lake.source_state(self.spec.ref)
            write_state(folder, self.lease.batch_id, state, storage_options=lake.storage_options)
            self._state_written = True

    def _tidy_states(self, outcome: BronzeOutcome) -> None:
        if not self._state_written:
            return
        lake = self.platform.lake
        folder = lake.source_state(self.spec.ref)
        if outcome.committed:
            remove_states(folder, but=self.lease.batch_id, storage_options=lake.storage_options)
        else:
            remove_state(folder, self.lease.batch_id, storage_options=lake.storage_options)

    def _result(self, sink: BatchSink, intake: Intake, outcome: BronzeOutcome) -> LoadResult:
        seen = [value for value in (self.mark, self.largest) if value is not None]
        return LoadResult(
            table=self.spec.ref,
            mode=self.spec.mode,
            batch_id=self.lease.batch_id,
            keys_only=self.keys_only,
            told_unchanged=self._told_unchanged if self._partial else None,
            rows_read=self.extract.rows,
            bytes_landed=0 if sink.landed is None else sink.landed.bytes,
            seconds=dict(self.watch.seconds),
            watermark_from=self.mark,
            watermark_to=_largest(seen),
            schema=bronze_schema(intake.schema.append(HASH_FIELD)),
            columns=dict(zip(intake.names.lake, intake.names.sources, strict=True)),
            **counted(outcome),
        )


def _terms(spec: IngestionSpec) -> str:
    """All but the rows and the table that decides what a load does: another release may see the same rows otherwise."""
    names = (spec.cursor, spec.sequence_by, spec.deleted_flag)
    masks = sorted((column, rule.mask, sorted(rule.options.items())) for column, rule in spec.masks.items())
    return repr((release(), HASH_VERSION, str(spec.mode), spec.key, names, str(spec.on_bad_key), masks))


def _largest(values: list[Any]) -> Any:
    """The larger of two cursor values, of which a date may have become a time meanwhile."""
    return max(values, key=_comparable) if values else None


def _comparable(value: Any) -> Any:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return dt.datetime.combine(value, dt.time())
    return value
