"""What a Python step is given: its inputs, what changed in them, variables, a log, and places to leave results."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from platform_core.errors import StepError, StorageError, redacted
from platform_core.lake.delta import DeltaTableReader, data_files
from platform_core.lake.storage import filesystem, local_path
from platform_core.lake.views import ViewReader
from platform_core.operations.inputs import is_table, shown_name
from platform_core.operations.named_inputs import NamedInputs
from platform_core.operations.platform import Platform
from platform_core.operations.run_options import Window
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.sql import quoted
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

BATCH_COLUMN = "_batch_id"
_BRONZE = "bronze"

Figure = int | float | str
"""A value that a step adds to the metadata of its run."""

_LONGEST_FIGURE = 500
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, kw_only=True)
class LastSuccess:
    """What is known of the last successful run of a step.

    Args:
        started_at: when that run of the step began, UTC; not when it ended.
        read_batches: highest batch id that it read, by table in full (``workstream.layer.name``).
    """

    started_at: dt.datetime
    read_batches: Mapping[str, int] = field(default_factory=dict)


class InputTable:
    """One table that a step reads, as of the version that was current when the step began.

    A bronze table of mode ``full`` or ``incremental`` also holds deleted rows: filter by ``_is_current``.
    """

    def __init__(
        self, ref: TableRef, reader: DeltaTableReader | ViewReader, connection: Callable[[], DuckDBPyConnection]
    ) -> None:
        self.ref = ref
        self._reader = reader
        self._connection = connection

    @property
    def deferred(self) -> bool:
        """Whether it is the shared table, read because the person who runs the step has none of this name."""
        return self._reader.deferred

    @property
    def version(self) -> int:
        """Delta version that is read."""
        return self._reader.version

    @property
    def schema(self) -> pa.Schema:
        """Columns of the table."""
        return self._reader.schema

    def arrow(self) -> pa.Table:
        """All rows, in memory."""
        return self._reader.read().read_all()

    def reader(self) -> pa.RecordBatchReader:
        """All rows, streamed; each call begins anew."""
        return self._reader.read()

    def relation(self) -> DuckDBPyRelation:
        """The table as a DuckDB relation: nothing is read before it is asked for.

        All relations of a step share one connection, so they can be joined; it is closed when the step ends.
        """
        return self._connection().table(".".join(quoted(part) for part in self.ref))

    def newer_than(self, batch: int) -> pa.RecordBatchReader:
        """Rows that were written by batches after ``batch``; files that hold none of them are not read."""
        from sqlglot import exp

        if not isinstance(self._reader, DeltaTableReader):
            raise StepError(f"newer rows of {self.ref} cannot be told: it is a view; read the tables below it")
        schema = self.schema
        newer = exp.column(BATCH_COLUMN) > batch
        stream = pa.RecordBatchReader.from_stream(
            self._reader.handle.scan(columns=schema.names, predicate=newer.sql(dialect="postgres"))
        )
        return pa.RecordBatchReader.from_batches(schema, _cast(stream, schema, self.ref))

    @property
    def batch(self) -> int | None:
        """Highest batch id in the version that is read; None for a table without batches and for a view."""
        return newest_batch(self.ref, self._reader)


def newest_batch(ref: TableRef, reader: DeltaTableReader | ViewReader) -> int | None:
    """Highest batch id in a table, as of the version that is read; None for a table without batches and for a view.

    Bronze tells it by its newest commit. A table of a step that keeps the column has commits of its own, which count
    otherwise: there the rows tell.
    """
    if not isinstance(reader, DeltaTableReader) or BATCH_COLUMN not in reader.schema.names:
        return None
    if ref.layer == _BRONZE:
        return reader.batch
    files = data_files(reader.handle, columns=(BATCH_COLUMN,))
    if all(BATCH_COLUMN in file.highest for file in files):
        return max((int(file.highest[BATCH_COLUMN]) for file in files), default=0)
    found = (_largest(batch[BATCH_COLUMN]) for batch in reader.read(columns=(BATCH_COLUMN,)))
    return max((batch for batch in found if batch is not None), default=0)


def _largest(values: pa.Array) -> int | None:
    import pyarrow.compute as pc

    largest: int | None = pc.max(values).as_py()
    return largest


def _cast(stream: pa.RecordBatchReader, schema: pa.Schema, ref: TableRef) -> Iterator[pa.RecordBatch]:
    try:
        # The scan yields view types, which not every library takes.
        for batch in stream:
            yield batch.cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{ref}: the table cannot be read\n  {redacted(error)}") from None


class Inputs(NamedInputs[InputTable]):
    """The input tables of a step."""


class StepContext:
    """What a Python step works with.

    The step's function takes it as its only argument and returns the rows of its table: a ``pa.Table``, a
    ``pa.RecordBatchReader``, an iterable of ``pa.RecordBatch``, a DuckDB relation, anything else that speaks the
    Arrow C stream protocol (a polars frame), or None where it makes no table.
    """

    def __init__(
        self,
        spec: ProcessingSpec,
        *,
        inputs: Mapping[TableRef, DeltaTableReader | ViewReader],
        platform: Platform,
        last: LastSuccess | None,
    ) -> None:
        self._spec = spec
        self._readers = inputs
        self._platform = platform
        self._last = None if platform.run.full_refresh else last
        self._has_asked_for_window = False
        self._figures: dict[str, Figure] = {}
        self.inputs = Inputs(
            {
                name: InputTable(ref, inputs[ref], lambda: self._connection)
                for name, ref in zip(spec.depends_on, spec.inputs, strict=True)
                # What another system owns is a table of the lake or nothing that could be opened.
                if ref in inputs or is_table(ref)
            }
        )

    @cached_property
    def _connection(self) -> DuckDBPyConnection:
        return self._platform.engine.connect(self._readers)

    def close(self) -> None:
        """Close the connection of the step's relations; the platform does this when the step ends."""
        if "_connection" in vars(self):
            self._connection.close()

    @property
    def last_success(self) -> dt.datetime | None:
        """When the last successful run of this step began, UTC; None where there was none, or in a full refresh."""
        return self._last.started_at if self._last else None

    @property
    def full_refresh(self) -> bool:
        """Whether the run makes the table anew: what the step returns is all that it holds afterwards.

        There is no last success then, and every row has changed, so that most steps need not ask.
        """
        return self._platform.run.full_refresh

    @property
    def window(self) -> Window | None:
        """The range of time that a backfill is for; None: the run is none.

        A step that asks for it in a backfill makes rows of that range only, so its table must be of ``write:
        partition`` or ``merge``. Such a run is no last success: what changed outside of the range is the next one's.
        """
        window = self._platform.run.window
        self._has_asked_for_window |= window is not None
        return window

    @property
    def is_backfill(self) -> bool:
        """Whether the step has asked for the range of a backfill, and got one."""
        return self._has_asked_for_window

    @property
    def variables(self) -> Mapping[str, Any]:
        """Values declared under ``variables`` of the step."""
        return self._spec.variables

    @property
    def log(self) -> logging.Logger:
        """The step's log; write no row values into it."""
        return self._platform.log

    @property
    def figures(self) -> Mapping[str, Figure]:
        """What the step has added so far."""
        return dict(self._figures)

    def changed_rows(self, name: str) -> pa.RecordBatchReader:
        """Rows of an input that were written after the last successful run of this step had read it.

        It goes by batch id, not by a clock: a load that was under way while that run read is not missed. All rows
        where there was no such run, and in a full refresh. Rows that the source has deleted since are among them,
        ``_is_deleted`` set. Files without such rows are not read.

        Raises:
            StepError: the table is no input of this step, or its rows carry no batch id.
        """
        table = self.inputs[name]
        if table.batch is None:
            raise StepError(
                f"changed rows of {table.ref} cannot be told: it has no column {BATCH_COLUMN}\n"
                f"  only bronze tables, and tables that keep their {BATCH_COLUMN}, have one; read it whole instead"
            )
        name = shown_name(table.ref, self._readers[table.ref], self._platform.lake)
        read = self._last.read_batches.get(name) if self._last else None
        return table.reader() if read is None else table.newer_than(read)

    def add_figure(self, name: str, value: Figure) -> None:
        """Add a number or short text to the metadata of this run, such as an error measure.

        Raises:
            StepError: the value is neither a number nor a text of at most 500 characters.
        """
        item = getattr(value, "item", None)
        plain = item() if callable(item) else value
        if not isinstance(plain, (bool, int, float, str)):
            raise StepError(f"figure '{name}' must be a number or a text, not {type(value).__name__}")
        if isinstance(plain, str) and len(plain) > _LONGEST_FIGURE:
            raise StepError(f"figure '{name}' is longer than {_LONGEST_FIGURE} characters: write a file instead")
        self._figures[name] = plain

    def write_file(self, name: str, content: bytes) -> str:
        """Write a file beside the step's table, at once or not at all; an older one of that name is replaced.

        Args:
            name: such as ``forecast.json`` or ``charts/daily.svg``.

        Returns:
            Its URI: ``<lake>/<workstream>/files/<step>/<name>``.

        Raises:
            StepError: the name would lead elsewhere.
            StorageError: the lake refused.
        """
        if not _FILE_NAME.fullmatch(name):
            raise StepError(f"'{name}' is no file name: letters, digits and . _ - in parts separated by /")
        lake = self._platform.lake
        folder = lake.table(self._spec.ref._replace(layer="files"))
        try:
            if (local := local_path(folder)) is not None:
                _replace_file(local / name, content)
            else:
                # An object appears when it is complete.
                with filesystem(folder, lake.storage_options).open_output_stream(name) as stream:
                    stream.write(content)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{folder}/{name}: the file cannot be written\n  {redacted(error)}") from None
        return f"{folder}/{name}"

    def cancelled(self) -> bool:
        """True once the run is being cancelled; a step that works for long polls it and returns."""
        return self._platform.cancelled()


def _replace_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
