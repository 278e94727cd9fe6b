"""Delta tables: open, read and write; every write is one commit."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import LoadError, PlatformError, SchemaError, StorageError, redacted
from platform_core.lake.columns import conform, lake_schema, refuse_drift
from platform_core.lake.partitions import check_columns, touched
from platform_core.lake.prefetch import prefetched
from platform_core.lake.storage import local_path
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.processing import WriteMode
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

APPLICATION = "edp"
"""Application id of every commit the platform makes.

One id for all writers of ours: delta-rs refuses a commit of a handle that has become stale only where both commits
carry the same id, and lets it pass after someone's append otherwise.
"""

FENCE = "edp.fence"
"""Application id under which a table says which batch ids can no longer be committed: all up to its number."""

_MARK = "write"
"""Metadata of a commit, by which its writer knows it again."""

_FENCE_ATTEMPTS = 10
_COMMITS_A_CHECKPOINT = 10
"""On an object store, where an open reads every commit since the last checkpoint, a round trip each; as Spark does."""
_BREAKS_A_PROMISE = ("failed validation check", "declared as non-nullable but contains null")
_FEATURES_BEYOND_FILES = {"deletionVectors", "columnMapping"}


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a write did.

    Args:
        version: Delta version after it.
        rows: rows handed to it.
        bytes: size of the files that it added.
        committed: false where the table held the batch already, or there was nothing to replace.
        partitions: how many were replaced; None where the write was none of that kind.
    """

    version: int
    rows: int
    bytes: int
    committed: bool = True
    partitions: int | None = None


def open_table(uri: str, *, storage_options: Mapping[str, str], version: int | None = None) -> DeltaTable | None:
    """The table at ``uri``, as of its newest or the given version; None where there is none.

    Raises:
        StorageError: the store cannot be read.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        return DeltaTable(uri, version=version, storage_options=dict(storage_options))
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise StorageError(f"{uri}: the Delta table cannot be opened\n  {redacted(error)}") from None


def batch_of(table: DeltaTable | None) -> int:
    """The newest batch id committed to a table by this platform; 0 where there is none."""
    return 0 if table is None else (table.transaction_version(APPLICATION) or 0)


def fence_of(table: DeltaTable | None) -> int:
    """The largest batch id that can no longer be committed to a table; 0 where there is none."""
    return 0 if table is None else (table.transaction_version(FENCE) or 0)


def fence(uri: str, *, storage_options: Mapping[str, str], epoch: int) -> None:
    """Let no batch with an id up to ``epoch`` be committed to a table any more, by a commit without data.

    A handle that was opened before is stale from then on, and one that is opened later shows the fence. Nothing happens
    where there is no table.

    Raises:
        StorageError: the store refused, or other writers kept committing first.
    """
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import CommitFailedError, DeltaError

    for _ in range(_FENCE_ATTEMPTS):
        table = open_table(uri, storage_options=storage_options)
        if table is None or fence_of(table) >= epoch:
            return
        properties = CommitProperties(
            app_transactions=[Transaction(FENCE, epoch)],
            custom_metadata={"edp.fence": str(epoch)},
            max_commit_retries=0,
        )
        try:
            table.create_write_transaction([], mode="append", schema=table.schema(), commit_properties=properties)
        except CommitFailedError:
            continue
        except (DeltaError, OSError) as error:
            raise StorageError(f"{uri}: the table cannot be fenced\n  {redacted(error)}") from None
        return
    raise StorageError(f"{uri}: other writers committed first {_FENCE_ATTEMPTS} times while the table was fenced")


def is_plain(table: DeltaTable) -> bool:
    """Whether the Parquet files of a table are its rows, as they stand.

    Deletion vectors and column mapping change what a file means; partition columns are not in the files.
    """
    protocol = table.protocol()
    features = {*(protocol.reader_features or ()), *(protocol.writer_features or ())}
    return not (features & _FEATURES_BEYOND_FILES or table.metadata().partition_columns)


def table_schema(table: DeltaTable) -> pa.Schema:
    """The columns of a table as plain Arrow types, all nullable, without metadata."""
    return lake_schema(pa.schema(table.schema().to_arrow()), of=table.table_uri)


@dataclass(frozen=True)
class DeltaTableReader(TableReader):
    """The rows of one Delta table, as of one version, streamed.

    A bronze table of mode ``full`` or ``incremental`` also holds deleted rows: filter by ``_is_current``.

    Args:
        deferred: whether it is the shared table, read in the place of one that a person does not have.
    """

    handle: DeltaTable = field(repr=False)
    deferred: bool = False

    @classmethod
    def open(
        cls, uri: str, *, storage_options: Mapping[str, str], version: int | None = None, deferred: bool = False
    ) -> DeltaTableReader | None:
        """A reader of the table at ``uri``; None where there is none."""
        table = open_table(uri, storage_options=storage_options, version=version)
        return None if table is None else cls(table, deferred)

    @property
    def version(self) -> int:
        return self.handle.version()

    @property
    def schema(self) -> pa.Schema:
        return table_schema(self.handle)

    @property
    def batch(self) -> int:
        """The newest batch id that the table holds; 0 where there is none."""
        return batch_of(self.handle)

    @property
    def plain_files(self) -> tuple[str, ...] | None:
        """Paths or URLs of the Parquet files that are the table; None where only Delta readers read it right."""
        if not is_plain(self.handle):
            return None
        root = local_path(self.handle.table_uri)
        if root is None:
            return tuple(self.handle.file_uris())
        # `file_uris` of a local table encodes its folder but not its files.
        return tuple(str(root / unquote(path)) for path in file_sizes(self.handle))

    def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
        """Stream the table, or some columns of it, in no particular order.

        Raises:
            SchemaError: a column is not in the table.
            StorageError: while reading, the store refused.
        """
        schema = self.schema
        if columns is not None:
            if unknown := [name for name in columns if name not in schema.names]:
                raise SchemaError(
                    f"{self.handle.table_uri}: no column {', '.join(unknown)}\n  columns: {', '.join(schema.names)}"
                )
            schema = pa.schema([schema.field(name) for name in columns])
        # A column list is always given: the scan otherwise keeps its own order of columns.
        stream = pa.RecordBatchReader.from_stream(self.handle.scan(columns=schema.names))
        return pa.RecordBatchReader.from_batches(schema, _checked(stream, schema, self.handle.table_uri))


def _checked(stream: pa.RecordBatchReader, schema: pa.Schema, uri: str) -> Iterator[pa.RecordBatch]:
    try:
        # The scan yields view types, which DuckDB and Parquet writers of other libraries do not all take.
        for batch in stream:
            yield batch.cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{uri}: the table cannot be read\n  {redacted(error)}") from None


def write(
    data: pa.RecordBatchReader,
    *,
    table: TableRef,
    uri: str,
    storage_options: Mapping[str, str],
    mode: WriteMode,
    key: tuple[str, ...] = (),
    partition_by: tuple[str, ...] = (),
    anew: bool = False,
    batch: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Written:
    """Write the result of a step or model as one Delta commit; the table is made where it is missing.

    Args:
        data: read once, so a write that meets another writer's commit fails rather than begins anew. ``overwrite``
            and ``append`` stream it; ``merge`` holds it in memory to check its keys, and ``partition`` to know its
            partitions where the table exists.
        mode: ``overwrite`` replaces rows and columns, ``append`` adds rows, ``merge`` updates and inserts by ``key``,
            ``partition`` replaces the partitions that it has rows of; without rows it leaves the table as it is.
        key: columns that identify a row, for ``merge``.
        partition_by: columns whose values are a partition, for ``partition``.
        anew: whatever the mode, the result is all that the table holds from now on, in the result's columns.
        batch: number of this write. A table that already holds it, or a later one, is left as it is; None: the next.
        metadata: texts that are committed with the data.

    Raises:
        LoadError: a key is null or doubled, there are too many partitions, or another writer committed first; nothing
            was written.
        SchemaError: the columns do not fit the table; nothing was written.
        StorageError: the store refused. An error of our own that ``data`` raises passes unchanged.
    """
    existing = open_table(uri, storage_options=storage_options)
    held = batch_of(existing)
    if existing is not None and batch is not None and held >= batch:
        return Written(version=existing.version(), rows=0, bytes=0, committed=False)
    stream = _Conformed(data, of=str(table), existing=None if existing is None else table_schema(existing))
    replaces_all = anew or mode is WriteMode.OVERWRITE
    if existing is not None and replaces_all:
        stream.schema = _with_promises(stream.schema, existing)
    if existing is not None and not replaces_all:
        refuse_drift(of=str(table), expected=table_schema(existing), given=stream.schema)
    if mode is WriteMode.PARTITION:
        check_columns(stream.schema, of=str(table), columns=partition_by)
    before = set() if existing is None else set(file_sizes(existing))
    partitions: int | None = None
    mark = uuid.uuid4().hex
    properties = commit_properties(held + 1 if batch is None else batch, {**(metadata or {}), _MARK: mark})
    try:
        # delta-rs panics where a stream that it reads calls delta-rs: hence the thread.
        with prefetched(stream.batches()) as batches:
            reader = pa.RecordBatchReader.from_batches(stream.schema, batches)
            way = WriteMode.OVERWRITE if replaces_all else mode
            if mode is WriteMode.MERGE:
                rows = reader.read_all()
                _check_keys(rows, table=table, key=key)
                reader = rows.to_reader()
            if existing is not None and way is WriteMode.MERGE:
                _merge(existing, rows, key=key, properties=properties)
            elif existing is not None and way is WriteMode.PARTITION:
                rows = reader.read_all()
                if not rows.num_rows:
                    return Written(version=existing.version(), rows=0, bytes=0, committed=False, partitions=0)
                found = touched(rows, of=str(table), columns=partition_by)
                partitions = found.number
                _replace_partitions(existing, rows, found.condition, properties)
            else:
                _replace_or_add(existing, reader, way, uri, storage_options, properties)
    except PlatformError:
        raise
    # Rust wraps what the stream raises in errors of many classes, so the stream itself is asked; and where Rust panics,
    # what arrives is no Exception.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(stream.failure, PlatformError):
            raise stream.failure from None
        if stream.failure is not None or not _is_committed(uri, storage_options, mark):
            raise _refusal(stream.failure or error, table=table, uri=uri) from None
    written = open_table(uri, storage_options=storage_options)
    if written is None:
        raise StorageError(f"{table}: {uri} vanished while it was written")
    added = sum(size for path, size in file_sizes(written).items() if path not in before)
    return Written(version=written.version(), rows=stream.rows, bytes=added, partitions=partitions)


def _with_promises(schema: pa.Schema, table: DeltaTable) -> pa.Schema:
    """Columns that a table has already, in their type, keep the comment and the NOT NULL that a migration gave them."""
    held = {field.name: field for field in pa.schema(table.schema().to_arrow())}
    types = table_schema(table)
    kept = [
        field.with_nullable(held[field.name].nullable).with_metadata(held[field.name].metadata)
        if field.name in held and types.field(field.name).type == field.type
        else field
        for field in schema
    ]
    return pa.schema(kept)


def first_configuration(uri: str) -> dict[str, str]:
    """Properties that a table is made with: delta-rs's own defaults, save for checkpoints on an object store."""
    return {} if local_path(uri) is not None else {"delta.checkpointInterval": str(_COMMITS_A_CHECKPOINT)}


def commit_properties(batch: int, metadata: Mapping[str, str]) -> CommitProperties:
    """What every commit of ours carries: the batch id, and texts under names that begin with ``edp.``."""
    from deltalake import CommitProperties, Transaction

    return CommitProperties(
        app_transactions=[Transaction(APPLICATION, batch)],
        custom_metadata={f"edp.{name}": str(text) for name, text in metadata.items()},
        max_commit_retries=0,
    )


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One data file of a table, as its log tells.

    Args:
        path: relative to the table's folder.
        size: bytes.
        rows: None where its writer did not count them.
        lowest: smallest value by column, of those that were asked for and are known.
        highest: largest value by column; a text may be cut, and a time may be up to a millisecond too small.
        nulls: number of nulls by column.
    """

    path: str
    size: int
    rows: int | None
    lowest: Mapping[str, Any]
    highest: Mapping[str, Any]
    nulls: Mapping[str, int]


def data_files(table: DeltaTable, *, columns: Iterable[str] = ()) -> list[DataFile]:
    """The data files of a table, with the statistics of some columns."""
    actions = pa.table(table.get_add_actions())
    asked = list(columns)
    low, high, nulls = (_statistics(actions, kind, asked) for kind in ("min", "max", "null_count"))
    rows = actions["num_records"].to_pylist() if "num_records" in actions.column_names else [None] * actions.num_rows
    paths, sizes = actions["path"].to_pylist(), actions["size_bytes"].to_pylist()
    return [
        DataFile(path=unquote(path), size=size, rows=rows[i], lowest=low[i], highest=high[i], nulls=nulls[i])
        for i, (path, size) in enumerate(zip(paths, sizes, strict=True))
    ]


def _statistics(actions: pa.Table, kind: str, columns: list[str]) -> list[dict[str, Any]]:
    """Known values of one kind by column, for each file."""
    import pyarrow.compute as pc

    found: list[dict[str, Any]] = [{} for _ in range(actions.num_rows)]
    if kind not in actions.column_names:
        return found
    for column in columns:
        position = actions.schema.field(kind).type.get_field_index(column)
        if position < 0:
            continue
        for of_file, value in zip(found, pc.struct_field(actions[kind], [position]).to_pylist(), strict=True):
            if value is not None:
                of_file[column] = value
    return found


def file_sizes(table: DeltaTable) -> dict[str, int]:
    """Size in bytes of each file of a table, by its path as the log writes it."""
    actions = pa.table(table.get_add_actions())
    return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))


def _replace_or_add(
    existing: DeltaTable | None,
    data: pa.RecordBatchReader,
    mode: WriteMode,
    uri: str,
    storage_options: Mapping[str, str],
    properties: CommitProperties,
) -> None:
    from deltalake import write_deltalake

    if existing is None:
        write_deltalake(
            uri,
            data,
            mode="error",
            configuration=first_configuration(uri),
            storage_options=dict(storage_options),
            commit_properties=properties,
        )
    elif mode is WriteMode.OVERWRITE:
        write_deltalake(existing, data, mode="overwrite", schema_mode="overwrite", commit_properties=properties)
    else:
        write_deltalake(existing, data, mode="append", commit_properties=properties)


def _replace_partitions(existing: DeltaTable, rows: pa.Table, condition: str, properties: CommitProperties) -> None:
    """Put rows in the place of those for which the condition holds; other rows of their files are written again."""
    from deltalake import write_deltalake

    write_deltalake(existing, rows, mode="overwrite", predicate=condition, commit_properties=properties)


def _merge(existing: DeltaTable, rows: pa.Table, *, key: tuple[str, ...], properties: CommitProperties) -> None:
    same_key = exp.and_(
        *(
            exp.EQ(this=exp.column(name, "old", quoted=True), expression=exp.column(name, "new", quoted=True))
            for name in key
        )
    )
    # delta-rs's own "update all" does not quote a back quote.
    columns = {_quoted(name): _quoted(name, "new") for name in rows.column_names}
    (
        existing.merge(
            rows,
            predicate=same_key.sql(dialect="postgres"),
            source_alias="new",
            target_alias="old",
            commit_properties=properties,
        )
        .when_matched_update(updates=columns)
        .when_not_matched_insert(updates=columns)
        .execute()
    )


def _is_committed(uri: str, storage_options: Mapping[str, str], mark: str) -> bool:
    """Whether the newest commit is the one with this mark: an error may come from what delta-rs does after it."""
    table = open_table(uri, storage_options=storage_options)
    return table is not None and table.history(1)[0].get(f"edp.{_MARK}") == mark


def _quoted(name: str, table: str | None = None) -> str:
    return str(exp.column(name, table, quoted=True).sql(dialect="postgres"))


def _check_keys(rows: pa.Table, *, table: TableRef, key: tuple[str, ...]) -> None:
    import pyarrow.compute as pc

    if not key:
        raise LoadError(f"{table}: write mode merge needs key columns; nothing was written")
    if unknown := [name for name in key if name not in rows.column_names]:
        raise SchemaError(f"{table}: no key column {', '.join(unknown)}\n  columns: {', '.join(rows.column_names)}")
    keys = rows.select(list(key))
    nulls = pc.sum(functools.reduce(pc.or_, (pc.is_null(keys[name]) for name in key))).as_py() or 0
    doubled = keys.num_rows - keys.group_by(list(key)).aggregate([]).num_rows
    if nulls or doubled:
        raise LoadError(
            f"{table}: {nulls} rows with a null key and {doubled} rows with a key that another row has, "
            f"of {keys.num_rows} rows; nothing was written\n  key: {', '.join(key)}"
        )


def _refusal(error: BaseException, *, table: TableRef, uri: str) -> PlatformError:
    from deltalake.exceptions import CommitFailedError

    if isinstance(error, CommitFailedError):
        return LoadError(f"{table}: another writer committed first; nothing was written\n  run it again")
    if type(error).__name__ == "DeltaError" and any(words in str(error) for words in _BREAKS_A_PROMISE):
        # The text goes on with the rows.
        return LoadError(
            f"{table}: rows break a CHECK constraint or NOT NULL of the table; nothing was written\n"
            "  see the migrations of the table in ddl/, and mend the rows or the promise"
        )
    return StorageError(f"{table}: writing to {uri} failed; nothing was committed\n  {redacted(error)}")


class _Conformed:
    """A stream in the types of the lake, which counts its rows and remembers what it failed with."""

    def __init__(self, data: pa.RecordBatchReader, *, of: str, existing: pa.Schema | None) -> None:
        self._data = data
        self.schema = lake_schema(data.schema, of=of, existing=existing)
        self.rows = 0
        self.failure: BaseException | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._data:
                self.rows += batch.num_rows
                yield conform(batch, self.schema)
        except Exception as error:
            self.failure = error
            raise
