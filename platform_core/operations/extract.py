"""Reads one object of a source for one load, under the source's own names of its columns."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyarrow as pa

from platform_core.errors import LoadError, PlatformError, SourceError, redacted
from platform_core.faults import FaultPoint, reach
from platform_core.lake.column_names import source_names
from platform_core.lake.columns import lake_schema
from platform_core.lake.prefetch import prefetched
from platform_core.operations.platform import Platform
from platform_core.operations.secret_use import SecretUse
from platform_core.operations.stopwatch import Stopwatch
from platform_core.plugins.interfaces import Changes, Cursor, ReadRequest, Source
from platform_core.plugins.registry import plugin
from platform_core.specs.connection import ConnectionSpec
from platform_core.specs.ingestion import IngestionSpec, LoadMode

T = TypeVar("T")

_PROGRESS_SECONDS = 10
_REPLACED_AT_MOST = 3
"""How many replacements of a secret one read lives through."""

BEFORE_THREAD = 2
"""Batches that are read before a thread reads ahead: a small table has one, and none after it."""

_known_names: dict[tuple[object, ...], dict[str, str]] = {}
"""The source's names of declared columns, remembered for the process, as asking costs a round trip; they are forgotten
when the source cannot be read by them."""


@dataclass
class Extract:
    """A source, opened for one load.

    Args:
        secrets: what the source was given.
        rows: rows read so far.
    """

    spec: IngestionSpec
    connection: ConnectionSpec
    platform: Platform
    source: Source
    secrets: SecretUse
    rows: int = field(default=0, init=False)

    def read(
        self,
        *,
        mode: LoadMode | None = None,
        columns: tuple[str, ...] | None = None,
        since: Cursor | None = None,
        until: Cursor | None = None,
        state: bytes | None = None,
        batch_rows: int | None = None,
        tracked: bool = False,
    ) -> pa.RecordBatchReader:
        """Begin to read.

        Args:
            mode: of the load that reads; None: no load does.
            columns: by either name, in place of those of the declaration.
            since: lowest cursor value, inclusive.
            until: highest cursor value, inclusive.
            state: what the source knew after the last load.
            batch_rows: most rows of one batch; None: the source's choice.
            tracked: :meth:`state` is to tell what a later :meth:`read_changes` needs.

        Raises:
            SourceError: the source cannot be read.
            SchemaError: a declared column is not there.
        """
        self.rows = 0

        def read() -> pa.RecordBatchReader:
            request = self._request(columns, mode=mode, state=state)
            request = replace(request, since=since, until=until, tracked=tracked)
            return self.source.read(request if batch_rows is None else replace(request, batch_rows=batch_rows))

        with self._reading():
            return self._let_in(read)

    def read_changes(self, state: bytes) -> Changes | None:
        """Begin to read what changed since a state, and the keys of all other rows; None: the source cannot tell.

        Raises:
            SourceError: the source cannot be read.
            SchemaError: a declared column is not there.
        """
        self.rows = 0
        spec = self.spec

        def read() -> Changes | None:
            request = self._request(None, mode=spec.mode, state=state)
            names = self._names(spec.key, request)
            key = tuple(names[name] for name in spec.key)
            return self.source.read_changes(replace(request, key=key, tracked=True))

        with self._reading():
            return self._let_in(read)

    def schema(self) -> pa.Schema:
        """The columns that :meth:`read` would give.

        Raises:
            SourceError: the source cannot be read.
            SchemaError: a declared column is not there.
        """
        with self._reading():
            return self._let_in(lambda: self.source.schema(self._request(None)))

    def cursor_type(self) -> pa.DataType:
        """The type of the cursor in the lake.

        Raises:
            SourceError: the source cannot be read.
            SchemaError: there is no such column, or it cannot be kept.
        """
        spec = self.spec
        given = self.schema()
        declared = [spec.cursor] if spec.cursor is not None else []
        (name,) = source_names(declared, given.names, of=f"{spec.ref}: {spec.object}", place=spec.place).values()
        return lake_schema(pa.schema([given.field(name)]), of=str(spec.ref)).field(0).type

    def batches(self, reader: pa.RecordBatchReader, *, watch: Stopwatch) -> Generator[pa.RecordBatch]:
        """The batches of a reader, read ahead in a thread.

        Raises:
            SourceError: the source cannot be read to its end.
            LoadError: the run was cancelled.
        """
        said = time.monotonic()
        point = FaultPoint.EXTRACT_FIRST_BATCH
        with prefetched(iter(reader), after=BEFORE_THREAD) as batches:
            while True:
                self._stop_if_cancelled()
                reach(point)
                with watch.phase("extract"), self._reading():
                    batch = next(batches, None)
                if batch is None:
                    break
                point = FaultPoint.EXTRACT_MID
                self.rows += batch.num_rows
                if time.monotonic() - said > _PROGRESS_SECONDS:
                    said = time.monotonic()
                    self.platform.log.info("%s: %d rows read", self.spec.ref, self.rows)
                yield batch
        reach(FaultPoint.EXTRACT_LAST)
        self._stop_if_cancelled()

    def state(self) -> bytes | None:
        """What the source is to know next time; asked when all batches are read.

        Raises:
            SourceError: the source cannot tell.
        """
        with self._reading():
            return self.source.state()

    def notes(self) -> tuple[str, ...]:
        """What a person should know of what was read; asked when all batches are read."""
        with self._reading():
            return self.source.notes()

    def _let_in(self, ask: Callable[[], T]) -> T:
        """Ask the source; once more where it failed and a secret that it was given has been replaced since."""
        for _ in range(_REPLACED_AT_MOST):
            try:
                return ask()
            except Exception as error:
                if isinstance(error, PlatformError) and not isinstance(error, SourceError):
                    raise
                if not self.secrets.renewed(error):
                    raise
            self.platform.log.info("%s: reading with a secret of %s that was replaced", self.spec.ref, self.spec.source)
            # What a source remembers of the old one, such as a token, goes with it.
            self.source.close()
            self.source = _source(self.connection, self.secrets)
        return ask()

    def _request(
        self, columns: tuple[str, ...] | None, *, mode: LoadMode | None = None, state: bytes | None = None
    ) -> ReadRequest:
        spec = self.spec
        wanted = columns or spec.select
        split_by = split_column(spec)
        # What a source has to read may depend on what it gave before: a folder may be empty of new files.
        bare = ReadRequest(object=spec.object, query=spec.query, options=self._options(), mode=mode, state=state)
        names = self._names(tuple(name for name in (*wanted, spec.cursor, split_by) if name is not None), bare)
        return replace(
            bare,
            filter=spec.filter,
            columns=tuple(names[name] for name in wanted) or None,
            cursor=None if spec.cursor is None else names[spec.cursor],
            parallel=spec.parallel,
            split_by=None if split_by is None else names[split_by],
        )

    def _names(self, declared: tuple[str, ...], bare: ReadRequest) -> dict[str, str]:
        """The source's names of declared columns."""
        if not declared:
            return {}
        known = _known_names.setdefault(self._object, {})
        if unknown := [name for name in declared if name not in known]:
            given = self.source.schema(bare)
            of = f"{self.spec.ref}: {self.spec.object}"
            known |= source_names(unknown, given.names, of=of, place=self.spec.place)
        return known

    @property
    def _object(self) -> tuple[object, ...]:
        spec = self.spec
        return (spec.ref, self.connection.type, self.connection.name, spec.object, spec.query)

    def _options(self) -> Any:
        return type(self.source).ObjectOptions(**self.spec.options)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with cleaned(self.spec, self.connection):
                yield
        except PlatformError:
            _known_names.pop(self._object, None)
            raise

    def _stop_if_cancelled(self) -> None:
        if self.platform.cancelled():
            raise LoadError(f"{self.spec.ref}: the load was cancelled; nothing was applied")


@contextmanager
def opened(spec: IngestionSpec, *, connection: ConnectionSpec, platform: Platform) -> Iterator[Extract]:
    """The source of a table, closed at the end of the block.

    Raises:
        PluginError: the source is not installed.
        SecretError: a secret of the source is missing.
        SourceError: the source cannot be opened or closed.
    """
    secrets = SecretUse(platform)
    with cleaned(spec, connection):
        extract = Extract(spec, connection, platform, _source(connection, secrets), secrets)
    try:
        yield extract
    finally:
        with cleaned(spec, connection):
            extract.source.close()


def _source(connection: ConnectionSpec, secrets: SecretUse) -> Source:
    kind = plugin("source", connection.type)
    source: Source = kind(kind.Options(**connection.options), secret=secrets)
    return source


@contextmanager
def cleaned(spec: IngestionSpec, connection: ConnectionSpec) -> Iterator[None]:
    """Errors of the source's own making pass; those of drivers could quote rows, and are told without their text."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:  # noqa: BLE001 - drivers raise what they like
        raise SourceError(
            f"{spec.ref}: {spec.object} cannot be read from {connection.name} ({connection.type})\n  {redacted(error)}"
        ) from None


def split_column(spec: IngestionSpec) -> str | None:
    """The column by whose ranges parallel readers share the rows."""
    if spec.parallel == 1:
        return None
    return spec.split_by or (spec.key[0] if len(spec.key) == 1 else None)
