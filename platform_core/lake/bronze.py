"""Applies landed batches to bronze tables: compare by key and hash, rewrite the files that change, commit once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from platform_core.errors import LoadError, SchemaError, StorageError, redacted
from platform_core.lake import comparison
from platform_core.lake.columns import lake_schema, refuse_drift, refuse_reserved
from platform_core.lake.commit import NewFiles, Overtaken
from platform_core.lake.delta import DeltaTableReader, batch_of, file_sizes, open_table, table_schema
from platform_core.lake.row_hash import HASH_COLUMN, HASH_FIELD, HASH_VERSION, require_version
from platform_core.lake.storage import engine_path, engine_root
from platform_core.plugins.interfaces import BronzeLoad, BronzeOutcome
from platform_core.specs.ingestion import TECHNICAL_COLUMNS, LoadMode

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from platform_core.lake.session import Session

FILE_BYTES = 128 * 1024 * 1024
"""A file is closed once it has this size: smaller files mean less to rewrite where changes lie together."""

SMALL_FILE_BYTES = 8 * 1024 * 1024
"""Files below this size are merged into the next rewrite, so that frequent small loads leave no trail of files."""

DELETE_FLOOR = 10
"""A full load that would flag fewer rows than this is never stopped for its ratio."""

ATTEMPTS = 3
"""How often a batch is compared anew after another writer committed first."""

_HASH_VERSION_KEY = b"edp.row_hash"
_TECHNICAL_FIELDS = (
    pa.field("_is_current", pa.bool_()),
    pa.field("_is_deleted", pa.bool_()),
    pa.field("_modified_at", pa.timestamp("us", "UTC")),
    pa.field("_batch_id", pa.int64()),
    HASH_FIELD.with_metadata({_HASH_VERSION_KEY: HASH_VERSION.encode()}),
)


def bronze_schema(landed: pa.Schema) -> pa.Schema:
    """Columns of the bronze table for landed columns (``_row_hash`` included): the source's own, then the technical."""
    return pa.schema([*(field for field in landed if field.name != HASH_COLUMN), *_TECHNICAL_FIELDS])


def source_columns(bronze: pa.Schema) -> pa.Schema:
    """The source's own columns of a bronze table."""
    return pa.schema([field for field in bronze if field.name not in TECHNICAL_COLUMNS])


def apply(load: BronzeLoad, *, session: Session) -> BronzeOutcome:
    """Apply a landed batch in one commit, or in none where nothing changed.

    - ``full``: the batch is all that the source holds. A key that bronze lacks is inserted; a changed hash, or a row
      that had been gone, is updated; a current row whose key the batch lacks is flagged deleted and keeps its values.
    - ``incremental``: rows are inserted or updated by key. A row that is older by ``sequence_by`` than bronze's is late
      and left out (null is older than any value); at the same age it overwrites if its hash differs.
    - ``append``: every row is inserted.

    A row whose ``deleted_flag`` is true is written with its values and flagged deleted; it counts as deleted where
    bronze held it as current, as inserted where bronze did not know it. Every key of a batch must be set and unique:
    equal rows are refused too.

    A batch that the table holds already, or has passed, is not applied again. The first load makes the table, even
    without rows. Where another writer commits in between, the comparison begins anew.

    Raises:
        LoadError: keys are null or doubled, too much would be flagged deleted, or other writers kept committing first;
            nothing was written.
        SchemaError: the columns are not those of the table; nothing was written.
        StorageError: the store refused; nothing was committed.
    """
    import duckdb

    _check_columns(load)
    for _ in range(ATTEMPTS):
        table = open_table(load.uri, storage_options=load.storage_options)
        if table is not None and batch_of(table) >= load.batch_id:
            return _outcome(_Counts(), version=table.version())
        _check_table(load, table)
        try:
            with session.cursor() as connection:
                return _Attempt(load, session, connection, table).run()
        except Overtaken:
            continue
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise StorageError(f"{load.table}: the batch cannot be applied\n  {redacted(error)}") from None
    raise LoadError(
        f"{load.table}: other writers committed first {ATTEMPTS} times; nothing was written\n"
        "  see who else writes to the table, then run it again"
    )


@dataclass(frozen=True)
class _Counts:
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    late: int = 0

    @property
    def changed(self) -> int:
        return self.inserted + self.updated + self.deleted


class _Attempt:
    """One attempt to apply one batch to one version of a table."""

    def __init__(self, load: BronzeLoad, session: Session, connection: Any, table: DeltaTable | None) -> None:
        self._load = load
        self._connection = connection
        self._table = table
        self._root = engine_root(session, load.uri, load.storage_options)
        self._sizes = {} if table is None else {unquote(path): size for path, size in file_sizes(table).items()}
        self._paths = list(self._sizes)
        self._bronze = [engine_path(f"{self._root}/{path}") for path in self._paths]
        self._landed = [_engine_path(uri, session, load.storage_options) for uri in load.files]
        self._columns = tuple(name for name in load.schema.names if name != HASH_COLUMN)

    def run(self) -> BronzeOutcome:
        load = self._load
        rows = self._checked_rows()
        if load.mode is LoadMode.APPEND or not self._bronze:
            return self._insert_all(rows)
        return self._compare(rows)

    def _checked_rows(self) -> int:
        """Rows of the batch; refuses null and doubled keys."""
        load = self._load
        if not load.key:
            ((rows,),) = self._all(comparison.LANDED_ROWS, landed=self._landed)
            return int(rows)
        ((rows, unset, doubled),) = self._all(comparison.key_faults(load.key), landed=self._landed)
        if unset or doubled:
            raise LoadError(
                f"{load.table}: {unset} rows have a null key and {doubled} rows a key that another row of the batch "
                f"has, of {rows} rows; nothing was written\n"
                f"  key: {', '.join(load.key)}\n"
                "  correct the rows at the source, or declare the columns that identify a row"
            )
        return int(rows)

    def _insert_all(self, rows: int) -> BronzeOutcome:
        if rows == 0 and self._table is not None:
            return _outcome(_Counts(), version=self._table.version())
        with self._new_files() as files:
            if rows:
                statement = comparison.copy_all(
                    self._columns, deleted_flag=self._load.deleted_flag, file_bytes=FILE_BYTES
                )
                self._all(statement, **self._written_to(files))
            return self._commit(files, _Counts(inserted=rows), removed={})

    def _compare(self, rows: int) -> BronzeOutcome:
        load = self._load
        statement = comparison.make_changes(
            load.key,
            sequence_by=load.sequence_by,
            deleted_flag=load.deleted_flag,
            snapshot=load.mode is LoadMode.FULL,
        )
        self._all(statement, landed=self._landed, bronze=self._bronze)
        actions = {str(action): int(count) for action, count in self._all(comparison.COUNT_ACTIONS)}
        vanished = actions.pop(comparison.VANISH, 0)
        self._check_deletes(vanished)
        counts = _Counts(
            inserted=actions.get(comparison.INSERT, 0),
            updated=actions.get(comparison.UPDATE, 0),
            deleted=actions.get(comparison.DELETE, 0) + vanished,
            unchanged=rows - sum(actions.values()),
            late=actions.get(comparison.LATE, 0),
        )
        if not counts.changed:
            return _outcome(counts, version=0 if self._table is None else self._table.version())
        return self._rewrite(counts)

    def _rewrite(self, counts: _Counts) -> BronzeOutcome:
        self._all(comparison.DROP_LATE)
        touched = {int(position) for (position,) in self._all(comparison.TOUCHED_FILES)}
        small = {i for i, path in enumerate(self._paths) if self._sizes[path] < SMALL_FILE_BYTES}
        replaced = sorted(touched | small)
        rewritten = {"replaced": [self._bronze[position] for position in replaced]} if replaced else {}
        if replaced:
            self._all(comparison.REPOSITION, replaced=replaced)
        with self._new_files() as files:
            statement = comparison.copy_changed(self._columns, rewrite=bool(replaced), file_bytes=FILE_BYTES)
            self._all(statement, **self._written_to(files), **rewritten)
            removed = {self._paths[position]: self._sizes[self._paths[position]] for position in replaced}
            return self._commit(files, counts, removed=removed)

    def _check_deletes(self, vanished: int) -> None:
        if vanished < DELETE_FLOOR:
            return
        load = self._load
        ((current,),) = self._all(comparison.CURRENT_ROWS, bronze=self._bronze)
        if vanished > load.max_delete_ratio * current:
            raise LoadError(
                f"{load.table}: this full load would flag {vanished} of {current} current rows deleted "
                f"({vanished / current:.0%}, allowed {load.max_delete_ratio:.0%}); nothing was written\n"
                "  if the source really lost them, set max_delete_ratio: 1 for this load, then take it back"
            )

    def _new_files(self) -> NewFiles:
        load = self._load
        asked = (*load.key, load.sequence_by, load.cursor, *TECHNICAL_COLUMNS)
        return NewFiles(
            load.uri,
            storage_options=load.storage_options,
            statistics_for=frozenset(name for name in asked if name is not None),
        )

    def _commit(self, files: NewFiles, counts: _Counts, *, removed: Mapping[str, int]) -> BronzeOutcome:
        load = self._load
        figures = {name: str(getattr(counts, name)) for name in ("inserted", "updated", "deleted", "unchanged", "late")}
        committed = files.commit(
            self._table,
            of=load.table,
            schema=bronze_schema(load.schema),
            removed=removed,
            batch=load.batch_id,
            metadata={"batch": str(load.batch_id), "mode": str(load.mode), **figures, **load.metadata},
        )
        return _outcome(counts, version=committed.version, committed=True, written=committed.bytes)

    def _written_to(self, files: NewFiles) -> dict[str, Any]:
        return {
            "landed": self._landed,
            "modified_at": self._load.modified_at,
            "batch_id": self._load.batch_id,
            "folder": self._root,
            "pattern": files.prefix + "{i}",
        }

    def _all(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        # Draining each result matters: a half-read one blocks the connection.
        result: list[tuple[Any, ...]] = self._connection.execute(statement, parameters or None).fetchall()
        return result


def _check_columns(load: BronzeLoad) -> None:
    names = load.schema.names
    if HASH_COLUMN not in names:
        raise SchemaError(f"{load.table}: the landed files have no column {HASH_COLUMN}")
    own = pa.schema([field for field in load.schema if field.name != HASH_COLUMN])
    refuse_reserved(own, of=str(load.table))
    lake_schema(own, of=str(load.table))
    needed = [*load.key, *(name for name in (load.sequence_by, load.deleted_flag) if name is not None)]
    if unknown := [name for name in needed if name not in own.names]:
        raise SchemaError(f"{load.table}: no column {', '.join(unknown)}\n  columns: {', '.join(own.names)}")
    if load.deleted_flag is not None:
        type_ = own.field(load.deleted_flag).type
        if not pa.types.is_boolean(type_) and not pa.types.is_integer(type_):
            raise SchemaError(
                f"{load.table}: column '{load.deleted_flag}' of type {type_} cannot flag deleted rows\n"
                "  it must be a boolean, or an integer where 0 means present"
            )
    if load.key and (nested := [name for name in load.key if pa.types.is_nested(own.field(name).type)]):
        raise SchemaError(f"{load.table}: key column {', '.join(nested)} is nested; a key holds plain values")


def _check_table(load: BronzeLoad, table: DeltaTable | None) -> None:
    if table is None:
        return
    if DeltaTableReader(table).plain_files is None:
        raise StorageError(
            f"{load.table}: the table at {load.uri} has deletion vectors, mapped columns or partitions, which bronze "
            "does not use\n  load into a new table, or rewrite this one without them"
        )
    schema = pa.schema(table.schema().to_arrow())
    recorded = schema.field(HASH_COLUMN).metadata if HASH_COLUMN in schema.names else None
    require_version((recorded or {}).get(_HASH_VERSION_KEY, b"").decode() or None, of=str(load.table))
    own = pa.schema([field for field in load.schema if field.name != HASH_COLUMN])
    refuse_drift(of=str(load.table), expected=source_columns(table_schema(table)), given=own)


def _engine_path(uri: str, session: Session, storage_options: Mapping[str, str]) -> str:
    folder, _, name = uri.rpartition("/")
    return engine_path(f"{engine_root(session, folder, storage_options)}/{name}")


def _outcome(counts: _Counts, *, version: int, committed: bool = False, written: int = 0) -> BronzeOutcome:
    return BronzeOutcome(
        inserted=counts.inserted,
        updated=counts.updated,
        deleted=counts.deleted,
        unchanged=counts.unchanged,
        late=counts.late,
        version=version,
        committed=committed,
        written_bytes=written,
    )
