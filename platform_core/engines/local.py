"""Work on tables inside this process: DuckDB for queries, delta-rs for commits, Arrow between them."""

from __future__ import annotations

import difflib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field
from sqlglot import exp

from platform_core.engines.messages import reading_message, running_message
from platform_core.errors import StepError, StorageError
from platform_core.lake import bronze, delta
from platform_core.lake.delta import DeltaTableReader
from platform_core.lake.session import Session, shared_session
from platform_core.lake.spill import spill_folder
from platform_core.lake.storage import local_path
from platform_core.lake.views import ViewReader
from platform_core.plugins.interfaces import BronzeLoad, BronzeOutcome, Engine, TableReader
from platform_core.specs.base import Model
from platform_core.specs.sql import DIALECT, SqlError, parameters, referenced_tables
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_ROWS = 65_536
_POLL_SECONDS = 0.2
_RESERVED = ("main", "memory", "system", "temp")


class LocalOptions(Model):
    """How much of this machine the engine may take."""

    memory_limit: str = Field(default="2GB", description="Most memory of one query; beyond it it spills.")
    load_memory_limit: str = Field(
        default="600MB", description="Most memory of all bronze loads of a process together; beyond it they spill."
    )
    threads: int | None = Field(default=None, ge=1, description="Threads of one query; None: one for each core.")
    spill: str | None = Field(
        default=None,
        description="Where each process makes a private folder for what does not fit into memory, masked as it is; "
        "None: with the system's temporary files. What killed processes left there is removed.",
    )


class LocalEngine(Engine):
    """DuckDB, delta-rs and Arrow in the process of the run.

    A query runs on a DuckDB instance of its own, which can open the files of its tables and nothing else: no other
    file, no network, no setting, no Python variable.
    """

    Options = LocalOptions
    options: LocalOptions

    def apply(self, load: BronzeLoad) -> BronzeOutcome:
        return bronze.apply(load, session=self._session())

    def fence(self, uri: str, *, storage_options: Mapping[str, str], epoch: int) -> None:
        delta.fence(uri, storage_options=storage_options, epoch=epoch)

    def select(
        self,
        sql: str,
        *,
        tables: Mapping[TableRef, TableReader],
        variables: Mapping[str, Any],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> pa.RecordBatchReader:
        import duckdb

        found, values = _checked(sql, tables=tables, variables=variables)
        connection = self.connect({ref: tables[ref] for ref in found})
        watch = _Watch(connection, cancelled)
        try:
            relation = connection.sql(sql, params=values) if values else connection.sql(sql)
        except duckdb.Error as error:
            watch.stop()
            raise StepError(reading_message(error, sql)) from None
        try:
            stream = relation.to_arrow_reader(BATCH_ROWS)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            watch.stop()
            raise StepError(running_message(error, sql)) from None
        return pa.RecordBatchReader.from_batches(stream.schema, _batches(stream, sql=sql, watch=watch))

    def connect(self, tables: Mapping[TableRef, TableReader]) -> DuckDBPyConnection:
        """A DuckDB connection that holds the given tables under their full names and can reach nothing else.

        Args:
            tables: reader by table; the rows are those of the reader's version.

        Raises:
            StepError: a table's workstream has a name that DuckDB keeps for itself.
            StorageError: a table cannot be read.
        """
        import duckdb

        tables = _with_inputs(tables)
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": self.options.memory_limit,
                "threads": self._threads,
                "temp_directory": str(self._spill),
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "python_enable_replacements": "false",
            },
        )
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        files: list[str] = []
        for workstream in sorted({ref.workstream for ref in tables}):
            if workstream in _RESERVED:
                raise StepError(f"workstream '{workstream}' cannot be queried: DuckDB keeps that name for itself")
            attached = exp.alias_(exp.Literal.string(":memory:"), workstream, quoted=True)
            connection.execute(exp.Attach(this=attached).sql(dialect=DIALECT))
        for workstream, layer in sorted({(ref.workstream, ref.layer) for ref in tables}):
            schema = exp.table_(layer, db=workstream, quoted=True)
            connection.execute(exp.Create(this=schema, kind="SCHEMA").sql(dialect=DIALECT))
        for ref, reader in tables.items():
            files += _bind(connection, ref, reader)
        connection.execute(f"SET allowed_paths = {_text_array(files).sql(dialect=DIALECT)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    @property
    def _threads(self) -> int:
        return self.options.threads or os.cpu_count() or 1

    @property
    def _spill(self) -> Path:
        return spill_folder(None if self.options.spill is None else Path(self.options.spill))

    def _session(self) -> Session:
        return shared_session(memory_limit=self.options.load_memory_limit, spill=self._spill, threads=self._threads)


def _checked(
    sql: str, *, tables: Mapping[TableRef, TableReader], variables: Mapping[str, Any]
) -> tuple[tuple[TableRef, ...], dict[str, Any]]:
    """The tables that a query reads and the values of its parameters."""
    try:
        found = referenced_tables(sql, workstream="")
        names = parameters(sql)
    except SqlError as error:
        raise StepError(str(error)) from None
    for ref in found:
        if ref not in tables:
            raise StepError(_unknown("table", str(ref), [str(known) for known in tables]))
    for name in names:
        if name not in variables:
            raise StepError(_unknown("variable", f"${name}", [f"${known}" for known in variables]))
    return found, {name: variables[name] for name in names}


def _unknown(kind: str, name: str, known: list[str]) -> str:
    lines = [f"unknown {kind} '{name}'", f"known {kind}s: {', '.join(sorted(known)) or 'none'}"]
    if close := difflib.get_close_matches(name, known, n=1):
        lines.append(f"did you mean '{close[0]}'?")
    return "\n  ".join(lines)


def _with_inputs(tables: Mapping[TableRef, TableReader]) -> dict[TableRef, TableReader]:
    """The tables, and before each view what it reads."""
    found: dict[TableRef, TableReader] = {}
    for ref, reader in tables.items():
        if isinstance(reader, ViewReader):
            found |= {read: each for read, each in _with_inputs(reader.inputs).items() if read not in found}
        found.setdefault(ref, reader)
    return found


def _bind(connection: DuckDBPyConnection, ref: TableRef, reader: TableReader) -> list[str]:
    """Give a table its full name on a connection; returns the files that queries will open."""
    import duckdb

    name = exp.table_(ref.name, db=ref.layer, catalog=ref.workstream, quoted=True)
    if isinstance(reader, ViewReader):
        try:
            # The text as it was checked: written anew it might mean something else.
            connection.execute(f"CREATE VIEW {name.sql(dialect=DIALECT)} AS {reader.view.sql}")
        except duckdb.Error as error:
            raise StepError(f"view {ref}: {reading_message(error, reader.view.sql)}") from None
        return []
    files = _local_files(reader)
    try:
        if files:
            rows = _over_files(connection, files, reader.schema)
            connection.execute(exp.Create(this=name, kind="VIEW", expression=rows).sql(dialect=DIALECT))
            return files
        # A stream can be read once, and a query may name its table twice; DuckDB spills what memory does not hold.
        connection.register("edp_stream", reader.read())
        rows = exp.select("*").from_("edp_stream")
        connection.execute(exp.Create(this=name, kind="TABLE", expression=rows).sql(dialect=DIALECT))
        connection.unregister("edp_stream")
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise StorageError(f"{ref}: the table cannot be read ({type(error).__name__})") from None
    return []


def _local_files(reader: TableReader) -> list[str]:
    """The Parquet files on this machine that are the table; none where they have to be read in another way."""
    if not isinstance(reader, DeltaTableReader):
        return []
    paths = [local_path(uri) for uri in reader.plain_files or ()]
    return [str(path) for path in paths if path is not None] if None not in paths else []


def _over_files(connection: DuckDBPyConnection, files: list[str], schema: pa.Schema) -> exp.Select:
    """A SELECT over Parquet files that gives exactly the columns of ``schema``.

    A file that is older than a column lacks it, and may hold a narrower type.
    """
    source = exp.func(
        "read_parquet", _text_array(files), exp.Kwarg(this=exp.var("union_by_name"), expression=exp.true())
    )
    stored = connection.sql(exp.select("*").from_(source).sql(dialect=DIALECT))
    held = dict(zip(stored.columns, stored.types, strict=True))
    wanted = connection.from_arrow(schema.empty_table())
    columns = []
    for column, type_ in zip(wanted.columns, wanted.types, strict=True):
        value: exp.Expression = exp.column(column, quoted=True) if column in held else exp.null()
        if held.get(column) != type_:
            value = exp.cast(value, str(type_), dialect=DIALECT)
        columns.append(exp.alias_(value, column, quoted=True))
    return exp.select(*columns).from_(source)


def _text_array(texts: list[str]) -> exp.Array:
    return exp.Array(expressions=[exp.Literal.string(text) for text in texts])


def _batches(stream: pa.RecordBatchReader, *, sql: str, watch: _Watch) -> Iterator[pa.RecordBatch]:
    try:
        yield from stream
    except (pa.ArrowException, OSError) as error:
        raise StepError(running_message(error, sql)) from None
    finally:
        watch.stop()


class _Watch:
    """Ends a running query when the run is cancelled, and closes its connection when the query is done."""

    def __init__(self, connection: DuckDBPyConnection, cancelled: Callable[[], bool]) -> None:
        self._connection = connection
        self._done = threading.Event()
        weakref.finalize(self, self._done.set)
        threading.Thread(
            target=_interrupt, args=(connection, cancelled, self._done), name="edp-query-watch", daemon=True
        ).start()

    def stop(self) -> None:
        """Close the connection; what the query has not yielded by now is lost."""
        self._done.set()
        self._connection.close()


def _interrupt(connection: DuckDBPyConnection, cancelled: Callable[[], bool], done: threading.Event) -> None:
    while not done.wait(_POLL_SECONDS):
        if cancelled():
            connection.interrupt()
            return
