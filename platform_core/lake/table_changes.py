"""Changes of Delta tables that a person wrote as DDL: each is one commit, which a rerun recognises.

The commit carries the statement's stamp twice: as an application transaction, which survives the clean-up of the log,
and as text, which a person reads in the table's history. A handle is opened, asked whether it holds the stamp, and
committed with: a commit of anybody else in between makes it stale, and delta-rs refuses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from platform_core.errors import MigrationError, PlatformError, StorageError, redacted
from platform_core.lake.delta import APPLICATION, batch_of, open_table, table_schema
from platform_core.lake.dropping import is_away, put_away
from platform_core.lake.prefetch import prefetched
from platform_core.specs.ddl import (
    AddColumns,
    AddConstraint,
    AllowNull,
    CommentColumn,
    CommentTable,
    CreateTable,
    DropConstraint,
    DropTable,
    RewriteColumns,
    SetProperties,
    Stamp,
    TableChange,
    TableColumn,
    arrow_fields,
)

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

MIGRATION = "edp.ddl"
"""Application id under which a table keeps the mark of the newest statement that changed it."""

CONSTRAINT = "delta.constraints."
"""Begins the property that holds a CHECK constraint."""

_ATTEMPTS = 5
_LOOK_BACK = 200
_FEATURES_NOT_WRITTEN = {"columnMapping", "deletionVectors"}


@dataclass(frozen=True, kw_only=True)
class LiveTable:
    """A Delta table as it is.

    Args:
        columns: in order.
        constraints: condition by name.
        properties: those that are no constraint.
        locked: why its columns cannot be changed by this platform; empty: they can.
        features: whether its protocol names features, to which setting a property would add.
    """

    columns: tuple[TableColumn, ...]
    partition_by: tuple[str, ...]
    constraints: Mapping[str, str]
    properties: Mapping[str, str]
    locked: str
    features: bool


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What became of a change.

    Args:
        version: of the table after it; None where there is no table any more.
        committed: false where the table held it already.
        rows: that were written anew.
    """

    version: int | None
    committed: bool
    rows: int = 0


def read_table(uri: str, *, storage_options: Mapping[str, str]) -> LiveTable | None:
    """The table at ``uri`` as migrations see it; None where there is none.

    Raises:
        StorageError: the store cannot be read.
    """
    table = open_table(uri, storage_options=storage_options)
    if table is None:
        return None
    configuration = dict(table.metadata().configuration)
    return LiveTable(
        columns=_columns(table),
        partition_by=tuple(table.metadata().partition_columns),
        constraints={
            key.removeprefix(CONSTRAINT): value for key, value in configuration.items() if key.startswith(CONSTRAINT)
        },
        properties={key: value for key, value in configuration.items() if not key.startswith(CONSTRAINT)},
        locked=_locked(table),
        features=bool(table.protocol().writer_features),
    )


def is_made(change: TableChange, *, uri: str, storage_options: Mapping[str, str], stamp: Stamp) -> bool:
    """Whether a statement has changed its table already.

    Raises:
        MigrationError: another text of the same statement has.
        StorageError: the store cannot be read.
    """
    if isinstance(change, DropTable):
        return _is_dropped(uri, storage_options=storage_options, stamp=stamp)
    table = open_table(uri, storage_options=storage_options)
    return table is not None and _holds(table, stamp)


def make(change: TableChange, *, uri: str, storage_options: Mapping[str, str], stamp: Stamp) -> Changed:
    """Change a table in one commit; nothing happens where it holds this statement already.

    Raises:
        MigrationError: the table is not there, is there already, or a row does not fit; nothing was changed.
        StorageError: the store refused, or other writers kept committing first.
    """
    if isinstance(change, DropTable):
        return _drop(uri=uri, storage_options=storage_options, stamp=stamp)
    for _ in range(_ATTEMPTS):
        table = open_table(uri, storage_options=storage_options)
        if table is not None and _holds(table, stamp):
            return Changed(version=table.version(), committed=False)
        made = _attempt(change, table, uri=uri, storage_options=storage_options, stamp=stamp)
        if made is not None:
            return made
    raise StorageError(
        f"{change.table}: other writers committed first {_ATTEMPTS} times; nothing was changed\n"
        "  apply the migration again when fewer loads run"
    )


def _attempt(
    change: TableChange,
    table: DeltaTable | None,
    *,
    uri: str,
    storage_options: Mapping[str, str],
    stamp: Stamp,
) -> Changed | None:
    """Try once; None where somebody else committed first."""
    from deltalake.exceptions import CommitFailedError

    rows = 0
    properties = _properties(table, stamp)
    try:
        if isinstance(change, CreateTable):
            if table is not None:
                raise MigrationError(
                    f"{change.table}: the table exists already\n  looked at: {uri}\n"
                    "  somebody made it since the migration was planned; change it with ALTER TABLE"
                )
            _create(change, uri=uri, storage_options=storage_options, properties=properties)
        elif table is None:
            raise MigrationError(f"{change.table}: there is no such table\n  looked at: {uri}")
        elif isinstance(change, RewriteColumns):
            rows = _rewrite(change, table, properties=properties)
        else:
            _alter(change, table, properties=properties)
    except PlatformError:
        raise
    # delta-rs has errors of many classes, and what a panic of Rust's raises is no Exception.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        now = open_table(uri, storage_options=storage_options)
        if now is not None and _holds(now, stamp):
            return Changed(version=now.version(), committed=True, rows=rows)
        # Of two that make one table, the second is told in words only that it exists.
        if isinstance(error, CommitFailedError) or (table is None and now is not None):
            return None
        raise _refusal(change, error) from None
    now = open_table(uri, storage_options=storage_options)
    return Changed(version=None if now is None else now.version(), committed=True, rows=rows)


def _create(change: CreateTable, *, uri: str, storage_options: Mapping[str, str], properties: CommitProperties) -> None:
    from deltalake import DeltaTable, Schema

    DeltaTable.create(
        uri,
        Schema.from_arrow(pa.schema(arrow_fields(change.columns))),
        mode="error",
        partition_by=list(change.partition_by) or None,
        description=change.comment or None,
        configuration=dict(change.properties) or None,
        storage_options=dict(storage_options),
        commit_properties=properties,
        raise_if_key_not_exists=False,
    )


def _alter(change: TableChange, table: DeltaTable, *, properties: CommitProperties) -> None:
    from deltalake import Schema

    alter = table.alter
    match change:
        case AddColumns():
            fields = Schema.from_arrow(pa.schema(arrow_fields(change.columns))).fields
            alter.add_columns(fields, commit_properties=properties)
        case AllowNull():
            alter.drop_column_not_null(change.column, commit_properties=properties)
        case AddConstraint():
            alter.add_constraint({change.name: change.condition}, commit_properties=properties)
        case DropConstraint():
            alter.drop_constraint(change.name, commit_properties=properties)
        case CommentTable():
            alter.set_table_description(change.comment, commit_properties=properties)
        case CommentColumn():
            alter.set_column_metadata(change.column, {"comment": change.comment}, commit_properties=properties)
        case SetProperties():
            alter.set_table_properties(dict(change.properties), raise_if_not_exists=False, commit_properties=properties)
        case _:
            raise TypeError(f"{type(change).__name__} is no alteration")


def _rewrite(change: RewriteColumns, table: DeltaTable, *, properties: CommitProperties) -> int:
    """Write every row anew under other columns; returns how many there were."""
    from deltalake import write_deltalake

    held = table_schema(table)
    schema = pa.schema(arrow_fields(change.columns))
    stream = _Rows(change, table, held=held, schema=schema)
    try:
        # delta-rs panics where a stream that it reads calls delta-rs: hence the thread.
        with prefetched(stream.batches()) as batches:
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(schema, batches),
                mode="overwrite",
                schema_mode="overwrite",
                partition_by=list(table.metadata().partition_columns) or None,
                commit_properties=properties,
            )
    except BaseException:
        if stream.failure is not None:
            raise stream.failure from None
        raise
    return stream.rows


class _Rows:
    """The rows of a table under other columns; counts them and remembers what it failed with."""

    def __init__(self, change: RewriteColumns, table: DeltaTable, *, held: pa.Schema, schema: pa.Schema) -> None:
        self._change = change
        self._table = table
        self._held = held
        self._schema = schema
        self.rows = 0
        self.failure: MigrationError | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        stream = pa.RecordBatchReader.from_stream(self._table.scan(columns=self._held.names))
        for batch in stream:
            # The scan yields view types, which not every library takes.
            plain = batch.cast(self._held)
            self.rows += plain.num_rows
            yield self._converted(plain)

    def _converted(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [
            self._column(batch, source, field) for source, field in zip(self._change.sources, self._schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _column(self, batch: pa.RecordBatch, source: str | None, field: pa.Field) -> pa.Array:
        if source is None:
            return pa.nulls(batch.num_rows, field.type)
        values = batch.column(source)
        try:
            converted = values if values.type == field.type else values.cast(field.type)
        except (pa.ArrowException, NotImplementedError):
            # Arrow's own text quotes the value.
            self.failure = MigrationError(
                f"{self._change.table}: column '{source}' holds a value that {field.type} cannot hold; "
                f"nothing was changed\n  it is {values.type} now\n  mend the rows first, or choose a wider type"
            )
            raise self.failure from None
        if not field.nullable and converted.null_count:
            self.failure = MigrationError(
                f"{self._change.table}: column '{source}' holds nulls, so it cannot be NOT NULL; nothing was changed\n"
                "  fill them first"
            )
            raise self.failure from None
        return converted


def _drop(*, uri: str, storage_options: Mapping[str, str], stamp: Stamp) -> Changed:
    if _is_dropped(uri, storage_options=storage_options, stamp=stamp):
        return Changed(version=None, committed=False)
    put_away(uri, storage_options=storage_options, name=f"{stamp.number:04d}-{stamp.statement}-{stamp.digest[:16]}")
    return Changed(version=None, committed=True)


def _is_dropped(uri: str, *, storage_options: Mapping[str, str], stamp: Stamp) -> bool:
    """Whether nothing is left of a table; one that a later statement made does not count."""
    try:
        table = open_table(uri, storage_options=storage_options)
    except StorageError:
        # Of a drop that ended half-way a log may be left that nobody can read.
        return False
    if table is None:
        return is_away(uri, storage_options=storage_options)
    return _mark(table) >= stamp.mark


def _properties(table: DeltaTable | None, stamp: Stamp) -> CommitProperties:
    from deltalake import CommitProperties, Transaction

    # The newest batch id is repeated: a load whose handle became stale by this commit is refused, and looks again.
    return CommitProperties(
        app_transactions=[Transaction(APPLICATION, batch_of(table)), Transaction(MIGRATION, stamp.mark)],
        custom_metadata={MIGRATION: str(stamp)},
        max_commit_retries=0,
    )


def _mark(table: DeltaTable) -> int:
    return int(table.transaction_version(MIGRATION) or 0)


def _holds(table: DeltaTable, stamp: Stamp) -> bool:
    """Whether a table holds a statement.

    Raises:
        MigrationError: it holds another text of it.
    """
    if _mark(table) < stamp.mark:
        return False
    wanted = str(stamp)
    prefix = wanted.partition(":")[0] + ":"
    for commit in table.history(_LOOK_BACK):
        found = str(commit.get(MIGRATION, ""))
        if found.startswith(prefix) and found != wanted:
            raise MigrationError(
                f"{table.table_uri}: statement {stamp.statement} of migration {stamp.number:04d} was edited after it "
                f"had changed this table\n  looked at: version {commit.get('version')} of the table\n"
                "  put its text back, and make the change in a new migration"
            )
    return True


def _columns(table: DeltaTable) -> tuple[TableColumn, ...]:
    types = table_schema(table)
    return tuple(
        TableColumn(
            field.name,
            types.field(field.name).type,
            nullable=field.nullable,
            comment=str((field.metadata or {}).get("comment", "")),
        )
        for field in table.schema().fields
    )


def _locked(table: DeltaTable) -> str:
    protocol = table.protocol()
    features = {*(protocol.reader_features or ()), *(protocol.writer_features or ())}
    if mapping := table.metadata().configuration.get("delta.columnMapping.mode"):
        features = features | ({"columnMapping"} if mapping != "none" else set())
    return ", ".join(sorted(features & _FEATURES_NOT_WRITTEN))


def _refusal(change: TableChange, error: BaseException) -> PlatformError:
    from deltalake.exceptions import DeltaError

    told = ""
    with contextlib.suppress(Exception):
        told = str(error)
    if isinstance(error, DeltaError) and "failed validation" in told and isinstance(change, AddConstraint):
        # The text goes on with the rows.
        return MigrationError(
            f"{change.table}: rows of the table break the constraint '{change.name}'; nothing was changed\n"
            f"  constraint: {change.condition}\n  mend those rows first, or write a condition that they fulfil"
        )
    return StorageError(f"{change.table}: the change failed; nothing was committed\n  {redacted(error)}")
