"""Filters, queries and joins over streams of another lake, in memory: nothing may reach a disk before it is masked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from platform_core.errors import PlatformError, SourceError, redacted
from platform_core.sources.delta_tables import Scanned
from platform_core.sources.statement import Statement

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_THREADS = 2


class Engine:
    """A DuckDB of its own that sees the streams it was given and nothing else."""

    def __init__(self, *, memory_mb: int, where: str) -> None:
        """Start it.

        Args:
            memory_mb: most memory; it does not spill.
            where: source and object, for messages.
        """
        import duckdb

        self._where = where
        config = {
            "temp_directory": "",
            "memory_limit": f"{memory_mb}MB",
            "threads": str(_THREADS),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        self._connection: DuckDBPyConnection = duckdb.connect(":memory:", config=config)
        for setting in ("TimeZone = 'UTC'", "enable_external_access = false", "lock_configuration = true"):
            self._connection.execute(f"SET {setting}")

    def add(self, name: str, stream: Scanned) -> None:
        """Give it a stream under a name; it may be read several times.

        Raises:
            SourceError: the stream cannot be begun.
        """
        with self._errors():
            self._connection.register(name, stream)

    def execute(self, statement: Statement) -> None:
        """Run a statement without rows.

        Raises:
            SourceError: it failed.
        """
        with self._errors():
            self._connection.execute(statement.sql, list(statement.parameters)).fetchall()

    def schema(self, statement: Statement) -> pa.Schema:
        """The columns of a SELECT, as Arrow."""
        with self.reader(statement, batch_rows=1) as reader:
            return plain_schema(reader.schema)

    @contextmanager
    def reader(self, statement: Statement, *, batch_rows: int) -> Iterator[pa.RecordBatchReader]:
        """The rows of a SELECT, streamed."""
        with self._errors():
            relation = self._connection.sql(statement.sql, params=list(statement.parameters))
            yield relation.to_arrow_reader(batch_rows)

    def rows(self, statement: Statement, schema: pa.Schema, *, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of a SELECT in the types of a schema; columns are taken by position."""
        with self.reader(statement, batch_rows=batch_rows) as reader:
            for batch in reader:
                yield pa.record_batch(
                    [array.cast(field.type) for array, field in zip(batch.columns, schema, strict=True)], schema=schema
                )

    def interrupt(self) -> None:
        """Make a call that waits in another thread return."""
        self._connection.interrupt()

    def close(self) -> None:
        """End it."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except PlatformError:
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            hint = "\n  raise the connection's 'memory_mb'" if isinstance(error, duckdb.OutOfMemoryException) else ""
            raise SourceError(f"{self._where}: cannot be read\n  {redacted(error)}{hint}") from None


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """DuckDB's types as those of the lake: times with a zone are in UTC."""
    return pa.schema([(field.name, _plain(field.type)) for field in schema])


def _plain(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return pa.timestamp(type_.unit, tz="UTC")
    return type_
