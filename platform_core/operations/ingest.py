"""Load one object of a source into its bronze table: extract, mask, land, apply."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from platform_core.errors import LoadError, PlatformError, SchemaError, SourceError, redacted
from platform_core.lake.bronze import bronze_schema, source_columns
from platform_core.lake.columns import conform, lake_schema, refuse_drift, refuse_reserved
from platform_core.lake.delta import batch_of, open_table, table_schema
from platform_core.lake.landing import LandedBatch, LandingWriter, batch_uri, remove_batch
from platform_core.lake.prefetch import prefetched
from platform_core.lake.row_hash import HASH_FIELD, HASH_VERSION, with_hash
from platform_core.lake.watermark import check_cursor, watermark
from platform_core.operations.masking import Masking, open_masking
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import BronzeLoad, BronzeOutcome, Cursor, ReadRequest, Source
from platform_core.plugins.registry import plugin
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import IngestionSpec, LoadMode
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from deltalake import DeltaTable

_PROGRESS_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What a load did; counts are rows.

    Args:
        batch_id: id of the batch; the next load has it again where this one changed nothing.
        rows_read: rows that the source handed over.
        late: rows left out because bronze holds a newer one of the same key.
        bytes_landed: size of the landed files.
        bytes_written: size of the files written to bronze.
        seconds: by phase: extract (waiting for the source, which is read ahead in a thread), mask, land, apply.
        watermark_from: highest cursor value in bronze before the load; None: none.
        watermark_to: the same after it.
        version: Delta version of bronze after the load.
        committed: whether the load changed bronze.
        schema: columns of bronze.
    """

    table: TableRef
    mode: LoadMode
    batch_id: int
    rows_read: int
    inserted: int
    updated: int
    deleted: int
    unchanged: int
    late: int
    bytes_landed: int
    bytes_written: int
    seconds: Mapping[str, float]
    watermark_from: Cursor | None
    watermark_to: Cursor | None
    version: int
    committed: bool
    schema: pa.Schema


def ingest(
    spec: IngestionSpec,
    *,
    connection: ConnectionSpec,
    platform: Platform,
    started_at: dt.datetime | None = None,
) -> LoadResult:
    """Load one object of a source into its bronze table.

    Nothing is applied unless the whole extract was read, and no byte of a masked column reaches a disk unmasked. A load
    that ended in an error or a crash is repeated from the beginning, with the same effect.

    What is read: ``full`` everything; ``incremental`` rows from the watermark on, less the lookback, or everything the
    first time; ``append`` rows above the watermark, or everything the first time. So an append's cursor must grow from
    row to row (an identity, not a date): a row that arrives later with a value at or below the watermark is not
    read. An append without a cursor loads once; the next load is refused, because it would double every row. Rows
    whose cursor is null are read by the first load only.

    Args:
        connection: where the source is.
        started_at: what ``_modified_at`` becomes for the rows that change; None: now.

    Raises:
        SourceError: the source cannot be read.
        SchemaError: its columns are not what was declared, or not those of bronze.
        SecretError: a secret of the source or the masking key is missing.
        LoadError: the load was stopped or cancelled; nothing was applied.
        StorageError: the lake refused.
    """
    lake = platform.lake
    table = open_table(lake.table(spec.ref), storage_options=lake.storage_options)
    load = _Load(spec, connection, platform, table, started_at or dt.datetime.now(dt.UTC))
    return load.run()


def next_batch(table: DeltaTable | None) -> int:
    """The id of the next batch of a table; a lease will hand it out once there are leases."""
    return batch_of(table) + 1


class _Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(("extract", "mask", "land", "apply"), 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begin


@dataclass
class _Load:
    """One load under way."""

    spec: IngestionSpec
    connection: ConnectionSpec
    platform: Platform
    table: DeltaTable | None
    started_at: dt.datetime
    watch: _Stopwatch = field(default_factory=_Stopwatch)
    rows: int = 0
    largest: Any = None

    def run(self) -> LoadResult:
        spec, lake = self.spec, self.platform.lake
        batch_id = next_batch(self.table)
        mark = self._watermark()
        self.platform.log.info("%s: loading batch %d (%s) from %s", spec.ref, batch_id, spec.mode, spec.source)
        uri = batch_uri(lake.landing(spec.ref), batch_id)
        landed = self._land(uri, batch_id=batch_id, mark=mark)
        with self.watch.phase("apply"):
            outcome = self.platform.engine.apply(self._bronze_load(landed))
        if not outcome.committed:
            remove_batch(uri, storage_options=lake.storage_options)
        result = self._result(landed, outcome, mark=mark)
        self.platform.log.info(
            "%s: read %d, inserted %d, updated %d, deleted %d, unchanged %d, late %d in %.1f s",
            *(result.table, result.rows_read, result.inserted, result.updated, result.deleted, result.unchanged),
            *(result.late, sum(result.seconds.values())),
        )
        return result

    def _watermark(self) -> Cursor | None:
        spec, table = self.spec, self.table
        if spec.mode is LoadMode.APPEND and spec.lookback:
            raise LoadError(
                f"{spec.ref}: mode append cannot look back: rows read twice would be there twice\n"
                "  remove 'lookback', or use mode incremental with a key"
            )
        if table is None:
            return None
        if spec.cursor is not None:
            return watermark(table, spec.cursor, storage_options=self.platform.lake.storage_options)
        if spec.mode is LoadMode.APPEND and table.file_uris():
            raise LoadError(
                f"{spec.ref}: an append without a cursor can be loaded once only: every row would be there twice\n"
                "  declare 'cursor', a column that grows from row to row, or use mode full with a key"
            )
        return None

    def _land(self, uri: str, *, batch_id: int, mark: Cursor | None) -> LandedBatch:
        spec = self.spec
        since = None if mark is None else earlier(mark, spec.lookback, of=spec.ref)
        with self._opened() as source:
            request = ReadRequest(
                object=spec.object,
                cursor=spec.cursor,
                since=since,
                options=type(source).ObjectOptions(**spec.options),
            )
            with self.watch.phase("extract"), self._reading():
                reader = source.read(request)
            masking, plain, schema = self._schemas(reader.schema)
            writer = LandingWriter(
                uri,
                storage_options=self.platform.lake.storage_options,
                schema=schema.append(HASH_FIELD),
                batch_id=batch_id,
                mode=str(spec.mode),
            )
            with writer, prefetched(iter(reader)) as batches:
                for batch in self._batches(batches):
                    masked = self._masked(masking, batch, plain=plain, above=mark)
                    with self.watch.phase("land"):
                        writer.write(with_hash(masked))
                self._stop_if_cancelled()
                with self.watch.phase("land"):
                    return writer.complete(cursor_from=_text(since), cursor_to=_text(self.largest))

    @contextmanager
    def _opened(self) -> Iterator[Source]:
        with self._reading():
            kind = plugin("source", self.connection.type)
            source: Source = kind(kind.Options(**self.connection.options), secret=self.platform.secrets.get)
        try:
            yield source
        finally:
            with self._reading():
                source.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Errors of the source's own making pass; those of drivers could quote rows."""
        try:
            yield
        except PlatformError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            raise SourceError(
                f"{self.spec.ref}: {self.spec.object} cannot be read from {self.connection.name} "
                f"({self.connection.type})\n  {redacted(error)}"
            ) from None

    def _schemas(self, given: pa.Schema) -> tuple[Masking, pa.Schema, pa.Schema]:
        """The masks, and the columns before and after them, in types of the lake."""
        spec, of = self.spec, str(self.spec.ref)
        refuse_reserved(given, of=of)
        self._require_columns(given)
        existing = None if self.table is None else source_columns(table_schema(self.table))
        plain = lake_schema(given, of=of, existing=existing)
        masking = open_masking(spec, secrets=self.platform.secrets)
        schema = masking.schema(plain)
        if spec.cursor is not None:
            check_cursor(schema, spec.cursor, of=of)
        if existing is not None:
            refuse_drift(of=of, expected=existing, given=schema)
        return masking, plain, schema

    def _require_columns(self, given: pa.Schema) -> None:
        spec = self.spec
        declared = [*spec.columns, *spec.key, spec.cursor, spec.sequence_by, spec.deleted_flag]
        if missing := sorted({name for name in declared if name is not None and name not in given.names}):
            close = [get_close_matches(name, given.names, n=1) for name in missing]
            raise SchemaError(
                f"{spec.ref}: {spec.object} has no column {', '.join(missing)}\n  columns: {', '.join(given.names)}"
                + "".join(f"\n  did you mean '{found[0]}'?" for found in close if found)
                + (f"\n  declared at {spec.place}" if spec.place else "")
            )

    def _batches(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        said = time.monotonic()
        while True:
            self._stop_if_cancelled()
            with self.watch.phase("extract"), self._reading():
                batch = next(batches, None)
            if batch is None:
                return
            self.rows += batch.num_rows
            if time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                self.platform.log.info("%s: %d rows read", self.spec.ref, self.rows)
            yield batch

    def _masked(
        self, masking: Masking, batch: pa.RecordBatch, *, plain: pa.Schema, above: Cursor | None
    ) -> pa.RecordBatch:
        """The batch in types of the lake, masked; of an append only the rows above the watermark."""
        spec = self.spec
        with self.watch.phase("mask"):
            try:
                conformed = conform(batch, plain)
            except pa.ArrowException as error:
                raise SchemaError(
                    f"{spec.ref}: a value does not fit its column's type in the lake\n  {redacted(error)}"
                ) from None
            masked = masking.apply(conformed)
        if spec.cursor is None:
            return masked
        if spec.mode is LoadMode.APPEND and above is not None:
            values = masked[spec.cursor]
            masked = masked.filter(pc.greater(values, pa.scalar(above, values.type)))
        largest = pc.max(masked[spec.cursor]).as_py()
        if largest is not None and (self.largest is None or largest > self.largest):
            self.largest = int(largest) if isinstance(largest, Decimal) else largest
        return masked

    def _stop_if_cancelled(self) -> None:
        if self.platform.cancelled():
            raise LoadError(f"{self.spec.ref}: the load was cancelled; nothing was applied")

    def _bronze_load(self, landed: LandedBatch) -> BronzeLoad:
        spec, lake = self.spec, self.platform.lake
        return BronzeLoad(
            table=spec.ref,
            uri=lake.table(spec.ref),
            storage_options=lake.storage_options,
            files=landed.file_uris,
            schema=landed.schema,
            batch_id=landed.batch_id,
            mode=spec.mode,
            key=spec.key,
            sequence_by=spec.sequence_column(),
            deleted_flag=spec.deleted_flag,
            max_delete_ratio=spec.max_delete_ratio,
            modified_at=self.started_at,
            cursor=spec.cursor,
            metadata={"hash_version": HASH_VERSION, "rows_read": str(self.rows)},
        )

    def _result(self, landed: LandedBatch, outcome: BronzeOutcome, *, mark: Cursor | None) -> LoadResult:
        spec = self.spec
        seen = [value for value in (mark, self.largest) if value is not None]
        return LoadResult(
            table=spec.ref,
            mode=spec.mode,
            batch_id=landed.batch_id,
            rows_read=self.rows,
            inserted=outcome.inserted,
            updated=outcome.updated,
            deleted=outcome.deleted,
            unchanged=outcome.unchanged,
            late=outcome.late,
            bytes_landed=landed.bytes,
            bytes_written=outcome.written_bytes,
            seconds=dict(self.watch.seconds),
            watermark_from=mark,
            watermark_to=max(seen) if seen else None,
            version=outcome.version,
            committed=outcome.committed,
            schema=bronze_schema(landed.schema),
        )


def earlier(mark: Cursor, lookback: dt.timedelta, *, of: TableRef) -> Cursor:
    """The cursor value from which rows are read again.

    Dates go back by whole days, begun ones included. A number is taken to count seconds.

    Raises:
        LoadError: the cursor is a text, from which nothing can be taken away.
    """
    if not lookback:
        return mark
    if isinstance(mark, dt.datetime):
        return mark - lookback
    if isinstance(mark, dt.date):
        return mark - dt.timedelta(days=-(-lookback // dt.timedelta(days=1)))
    if isinstance(mark, str):
        raise LoadError(f"{of}: a text cursor cannot look back\n  remove 'lookback', or use a date, time or number")
    seconds = lookback.total_seconds()
    return mark - (int(seconds) if isinstance(mark, int) else seconds)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value.isoformat() if isinstance(value, dt.date) else str(value)
