"""One attempt to apply one batch to one version of a bronze table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from platform_core.errors import DeletesStopped, LoadError, RowsUnknown, StorageError
from platform_core.faults import FaultPoint, reach
from platform_core.lake import comparison
from platform_core.lake.commit import NewFiles, NewSchema
from platform_core.lake.comparison import Kept, Key
from platform_core.lake.delta import DataFile
from platform_core.lake.evolution import rewrite_wider
from platform_core.lake.landed import LandedRows
from platform_core.lake.parquet_sql import Writing
from platform_core.lake.pruning import files_with_keys
from platform_core.lake.quarantine import find_bad_rows, remove_bad_rows, write_bad_rows
from platform_core.lake.row_hash import HASH_COLUMN, HASH_FIELD, HASH_VERSION, HASH_VERSION_KEY
from platform_core.lake.row_size import group_rows
from platform_core.lake.storage import engine_path, engine_root
from platform_core.plugins.interfaces import BronzeLoad, BronzeOutcome
from platform_core.specs.ingestion import TECHNICAL_COLUMNS, LoadMode, OnBadKey

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from platform_core.lake.session import Session

FILE_BYTES = 128 * 1024 * 1024
"""A file is closed once it has this size: smaller files mean less to rewrite where changes lie together."""

SMALL_FILE_BYTES = 8 * 1024 * 1024
"""Files below this size are merged into the next rewrite, so that frequent small loads leave no trail of files."""

_TECHNICAL_FIELDS = (
    pa.field("_is_current", pa.bool_()),
    pa.field("_is_deleted", pa.bool_()),
    pa.field("_modified_at", pa.timestamp("us", "UTC")),
    pa.field("_batch_id", pa.int64()),
    HASH_FIELD.with_metadata({HASH_VERSION_KEY: HASH_VERSION.encode()}),
)


def bronze_schema(landed: pa.Schema) -> pa.Schema:
    """Columns of the bronze table for landed columns (``_row_hash`` included): the source's own, then the technical."""
    return pa.schema([*(field for field in landed if field.name != HASH_COLUMN), *_TECHNICAL_FIELDS])


def outcome_of(table: DeltaTable | None, *, unchanged: int = 0) -> BronzeOutcome:
    """The outcome of a load that commits nothing."""
    return _Counts(unchanged=unchanged).outcome(version=0 if table is None else table.version())


@dataclass(frozen=True)
class _Counts:
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    late: int = 0
    quarantined: int = 0

    @property
    def changed(self) -> int:
        return self.inserted + self.updated + self.deleted

    def outcome(self, *, version: int, committed: bool = False, written: int = 0) -> BronzeOutcome:
        return BronzeOutcome(
            inserted=self.inserted,
            updated=self.updated,
            deleted=self.deleted,
            unchanged=self.unchanged,
            late=self.late,
            quarantined=self.quarantined,
            version=version,
            committed=committed,
            written_bytes=written,
        )


class Attempt:
    """Compares one batch with one version of a table, and commits what changes."""

    def __init__(
        self,
        load: BronzeLoad,
        rows: LandedRows,
        session: Session,
        connection: Any,
        table: DeltaTable | None,
        files: Sequence[DataFile],
        change: NewSchema | None,
        *,
        large: bool,
    ) -> None:
        """Keep what is compared.

        Args:
            table: the handle to commit with; None: the table is to be made.
            files: data files of ``table``.
            change: what the batch changes in the columns of ``table``.
            large: memory matters more than the number of files.
        """
        self._load = load
        self._rows = rows
        self._session = session
        self._connection = connection
        self._table = table
        self._change = change
        self._large = large
        self._root = engine_root(session, load.uri, load.storage_options)
        self._files = list(files)
        self._removable = {file.path: file.size for file in files}
        floats = frozenset(name for name in load.key if pa.types.is_floating(load.schema.field(name).type))
        self._key = Key(load.key, floats)
        self._columns = tuple(name for name in load.schema.names if name != HASH_COLUMN)
        self._landed = rows.as_read
        self._landing, self._count = rows.offer(connection, session)
        self._quarantined = 0

    def run(self) -> BronzeOutcome:
        """Apply the batch.

        Raises:
            TableMoved: another writer committed first; nothing of ours was.
            LoadError: as of :func:`platform_core.lake.bronze.apply`.
        """
        load = self._load
        try:
            with NewFiles(
                load.uri, storage_options=load.storage_options, statistics_for=self._always_in_statistics()
            ) as new:
                if self._change is not None and self._change.whole is not None:
                    self._widen(new, self._change.whole)
                if load.keys_only:
                    return self._flag_missing(new)
                if load.mode is LoadMode.APPEND or not self._files:
                    return self._insert_all(new)
                return self._compare(new)
        except BaseException:
            if self._quarantined and load.quarantine_uri is not None:
                remove_bad_rows(load.quarantine_uri, storage_options=load.storage_options)
            raise

    def _widen(self, new: NewFiles, schema: pa.Schema) -> None:
        """Go on with files in the wider types, as if the table had them already."""
        self._rows.land()
        own = [name for name in schema.names if name not in TECHNICAL_COLUMNS]
        sizes = rewrite_wider(new, [file.path for file in self._files], schema=schema, own=own)
        self._files = [
            replace(file, path=path, size=size) for file, (path, size) in zip(self._files, sizes.items(), strict=True)
        ]

    def _insert_all(self, new: NewFiles) -> BronzeOutcome:
        if self._load.key:
            _, unset, doubled = self._one(comparison.key_faults(self._key, self._landed), **self._landing)
            if unset or doubled:
                self._set_aside(unset, doubled)
        if self._load.partial:
            (unknown,) = self._one(comparison.unknown_rows(self._landed), **self._landing)
            self._refuse_unknown(unknown)
        counts = _Counts(inserted=self._count - self._quarantined, quarantined=self._quarantined)
        if not counts.inserted and self._table is not None and not self._must_commit:
            self._keep_bad_rows()
            return counts.outcome(version=self._table.version())
        self._keep_bad_rows()
        if counts.inserted:
            statement = comparison.copy_all(
                self._columns, self._landed, deleted_flag=self._load.deleted_flag, writing=self._writing()
            )
            self._write(new, statement, **self._landing)
        return self._commit(new, counts, removed=())

    def _compare(self, new: NewFiles) -> BronzeOutcome:
        snapshot = self._load.mode is LoadMode.FULL
        compared = self._compared_files()
        if not snapshot:
            _, unset, doubled = self._one(comparison.key_faults(self._key, self._landed), **self._landing)
            if unset or doubled:
                self._set_aside(unset, doubled)
        actions = self._make_changes(compared)
        self._refuse_unknown(actions.get(comparison.UNKNOWN, 0))
        if snapshot and (faults := self._faults_seen(actions)):
            self._set_aside(*faults)
            self._all(comparison.FORGET)
            actions = self._make_changes(compared)
        vanished = actions.get(comparison.VANISH, 0)
        self._check_deletes(vanished)
        done = {name: actions.get(name, 0) for name in (comparison.INSERT, comparison.UPDATE, comparison.LATE)}
        flagged = actions.get(comparison.DELETE, 0)
        counts = _Counts(
            inserted=done[comparison.INSERT],
            updated=done[comparison.UPDATE],
            deleted=flagged + vanished,
            unchanged=self._count - self._quarantined - sum(done.values()) - flagged,
            late=done[comparison.LATE],
            quarantined=self._quarantined,
        )
        return self._rewrite(new, counts, compared=compared, vanished=vanished)

    def _flag_missing(self, new: NewFiles) -> BronzeOutcome:
        if not self._files:
            return outcome_of(self._table, unchanged=self._count)
        compared = range(len(self._files))
        statement = comparison.make_vanished(self._key, self._landed)
        self._all(statement, **self._landing, bronze=self._paths(compared))
        vanished = sum(count for _, count in self._all(comparison.COUNT_ACTIONS))
        self._check_deletes(vanished)
        counts = _Counts(deleted=vanished, unchanged=self._count)
        return self._rewrite(new, counts, compared=compared, vanished=vanished)

    def _compared_files(self) -> Sequence[int]:
        """Positions of the files that can hold a row of the batch; of a snapshot every row counts."""
        load = self._load
        if load.mode is LoadMode.FULL or self._change is not None:
            return range(len(self._files))
        type_ = load.schema.field(load.key[0]).type
        return files_with_keys(
            self._connection, self._files, key=load.key[0], type_=type_, landed=self._landed, landing=self._landing
        )

    def _make_changes(self, compared: Sequence[int]) -> dict[str, int]:
        """Fill the table ``changes``; returns how often each action is in it."""
        load, bronze = self._load, self._paths(compared)
        sequence_by = load.sequence_by
        if sequence_by is not None and bronze and sequence_by not in self._columns_of(bronze):
            # No row of bronze has an age yet.
            sequence_by = None
        statement = comparison.make_changes(
            self._key,
            self._landed,
            sequence_by=sequence_by,
            deleted_flag=load.deleted_flag,
            snapshot=load.mode is LoadMode.FULL,
            partial=load.partial,
            spare_doubled=self._landed.without_bad and load.winner_by is None,
            empty=not bronze,
        )
        self._all(statement, **self._landing, **({"bronze": bronze} if bronze else {}))
        return {str(action): int(count) for action, count in self._all(comparison.COUNT_ACTIONS)}

    def _faults_seen(self, actions: dict[str, int]) -> tuple[int, int] | None:
        """Rows of a snapshot without a key and with a doubled one, told from the comparison; None: there are none.

        Rows without a key match nothing, and so are among those to insert, as are doubled new ones. Where a row of
        bronze was matched twice, more rows of the batch than of bronze have found their like.
        """
        _, unset, doubled = self._one(comparison.inserted_key_faults(self._key))
        bronze = sum(file.rows or 0 for file in self._files)
        if any(file.rows is None for file in self._files):
            (bronze,) = self._one(comparison.BRONZE_ROWS, bronze=self._paths(range(len(self._files))))
        matched = bronze - actions.get(comparison.VANISH, 0) - actions.get(comparison.ABSENT, 0)
        if not unset and not doubled and self._count - actions.get(comparison.INSERT, 0) == matched:
            return None
        _, unset, doubled = self._one(comparison.key_faults(self._key, self._landed), **self._landing)
        if unset or doubled:
            return unset, doubled
        held = self._paths(range(len(self._files)))
        _, unset, doubled = self._one(comparison.bronze_key_faults(self._key), bronze=held)
        if doubled:
            raise LoadError(
                f"{self._load.table}: {doubled} rows of bronze have a key that another row of it has; nothing was "
                f"written\n  key: {', '.join(self._load.key)}\n"
                "  another writer added them, or the key was another one before; load into a new table"
            )
        return None

    def _set_aside(self, unset: int, doubled: int) -> None:
        """Refuse rows with bad keys, or leave them out from now on."""
        load = self._load
        # A row that is set aside is kept with all its values, and told from others of its key by them.
        self._refuse_unknown(unset + doubled if load.partial else 0)
        if load.on_bad_key is OnBadKey.REFUSE or load.quarantine_uri is None:
            raise LoadError(
                f"{load.table}: {unset} rows have a null key and {doubled} rows a key that another row of the batch "
                f"has, of {self._count} rows; nothing was written\n"
                f"  key: {', '.join(load.key)}\n"
                "  correct the rows at the source, or declare the columns that identify a row"
            )
        self._quarantined = find_bad_rows(
            self._connection, key=self._key, landed=self._landed, winner_by=load.winner_by, landing=self._landing
        )
        self._landed = replace(self._landed, without_bad=True)

    def _refuse_unknown(self, rows: int) -> None:
        """Refuse a batch that says of rows that they are unchanged, where their values would be needed."""
        if rows:
            raise RowsUnknown(
                f"{self._load.table}: {rows} rows are said to be unchanged, and bronze has no such current rows, or "
                "their keys are null or doubled; nothing was written\n  load the table with all its rows"
            )

    def _keep_bad_rows(self) -> None:
        """Write the rows that were left out to the quarantine."""
        load = self._load
        if not self._quarantined or load.quarantine_uri is None:
            return
        self._rows.land()
        write_bad_rows(
            self._connection,
            load.quarantine_uri,
            root=engine_root(self._session, load.quarantine_uri, load.storage_options),
            columns=self._columns,
            landed=replace(self._landed, without_bad=False),
            landing=self._landing,
            writing=self._writing(),
        )

    def _check_deletes(self, vanished: int) -> None:
        load = self._load
        if not vanished or vanished < load.delete_floor:
            return
        (current,) = self._one(comparison.CURRENT_ROWS, bronze=self._paths(range(len(self._files))))
        if vanished > load.max_delete_ratio * current:
            self._rows.land()
            raise DeletesStopped(
                f"{load.table}: this load would flag {vanished} of {current} current rows deleted "
                f"({vanished / current:.0%}, allowed {load.max_delete_ratio:.0%}); nothing was written",
                deletes=vanished,
                current=current,
            )

    def _rewrite(self, new: NewFiles, counts: _Counts, *, compared: Sequence[int], vanished: int) -> BronzeOutcome:
        """Write the files that change anew, with what is new, and commit."""
        self._keep_bad_rows()
        if not counts.changed:
            if not self._must_commit and self._table is not None:
                return counts.outcome(version=self._table.version())
            return self._commit(new, counts, removed=())
        self._all(comparison.KEEP_WRITTEN)
        touched = {compared[at] for (at,) in self._all(comparison.TOUCHED_FILES)}
        small = {at for at, file in enumerate(self._files) if file.size < SMALL_FILE_BYTES}
        replaced = sorted(touched | small)
        paths = self._paths(replaced)
        if paths:
            among = {position: at for at, position in enumerate(compared)}
            self._all(comparison.REPOSITION, replaced=[among.get(position, -1) for position in replaced])
        landed = None if self._load.keys_only else replace(self._landed, without_bad=False)
        held = frozenset(self._columns_of(paths)) if paths else frozenset()
        flagged, writing = self._load.deleted_flag is not None, self._writing()
        if not self._large and landed is None:
            statement = comparison.copy_kept(self._table_columns(), held=held, writing=writing)
            self._write(new, statement, replaced=paths)
        elif not self._large and paths:
            statement = comparison.copy_kept_and_changed(
                self._columns, landed, flagged=flagged, held=held, writing=writing
            )
            self._write(new, statement, **self._landing, replaced=paths)
        else:
            # One after the other they need half the memory; and what changed lately lies together, so that a step reads
            # it without the rest. For that even the few rows that vanished are worth a further look at the files.
            columns = self._table_columns() if landed is None else self._columns
            if paths:
                kept = comparison.copy_kept(columns, held=held, writing=writing, rows=Kept.STAYING)
                self._write(new, kept, name="kept", stamped=False, replaced=paths)
            if vanished:
                gone = comparison.copy_kept(columns, held=held, writing=writing, rows=Kept.VANISHED)
                self._write(new, gone, name="gone", replaced=paths)
            if landed is not None and counts.changed > vanished:
                changed = comparison.copy_changed(self._columns, landed, flagged=flagged, writing=writing)
                self._write(new, changed, name="changed", **self._landing)
        return self._commit(new, counts, removed=replaced)

    def _writing(self) -> Writing:
        """How files are written; a row's size matters where there are many."""
        if not self._large:
            return Writing(FILE_BYTES)
        if self._load.keys_only or (self._load.partial and self._files):
            return Writing(FILE_BYTES, group_rows(self._connection, files=self._paths(range(len(self._files)))))
        return Writing(FILE_BYTES, group_rows(self._connection, self._landed.rows("*"), **self._landing))

    def _write(self, new: NewFiles, statement: str, *, name: str = "", stamped: bool = True, **parameters: Any) -> None:
        load = self._load
        self._rows.land()
        new.prepare()
        stamps = {"modified_at": load.modified_at, "batch_id": load.batch_id} if stamped else {}
        self._all(statement, **parameters, **stamps, folder=self._root, pattern=new.prefix + name + "{i}")

    def _commit(self, new: NewFiles, counts: _Counts, *, removed: Sequence[int]) -> BronzeOutcome:
        load = self._load
        self._rows.land()
        gone = {self._files[position].path for position in removed}
        # Files that this very load wrote in wider types were never part of the table.
        new.discard(path for path in gone if path not in self._removable)
        figures = {field.name: str(getattr(counts, field.name)) for field in fields(counts)}
        reach(FaultPoint.BRONZE_BEFORE_COMMIT)
        committed = new.commit(
            self._table,
            of=load.table,
            schema=bronze_schema(load.schema),
            removed={path: size for path, size in self._removable.items() if path in gone},
            batch=load.batch_id,
            metadata={"batch": str(load.batch_id), "mode": str(load.mode), **figures, **load.metadata},
            change=self._change,
        )
        reach(FaultPoint.BRONZE_AFTER_COMMIT)
        return counts.outcome(version=committed.version, committed=True, written=committed.bytes)

    @property
    def _must_commit(self) -> bool:
        return self._load.commit_always or self._change is not None

    def _always_in_statistics(self) -> frozenset[str]:
        load = self._load
        asked = (*load.key, load.sequence_by, load.cursor, *TECHNICAL_COLUMNS)
        return frozenset(name for name in asked if name is not None)

    def _paths(self, positions: Sequence[int]) -> list[str]:
        return [engine_path(f"{self._root}/{self._files[position].path}") for position in positions]

    def _columns_of(self, paths: list[str]) -> list[str]:
        """Columns that at least one of some files has."""
        self._connection.execute(comparison.COLUMNS, {"files": paths})
        names = [str(name) for name, *_ in self._connection.description]
        self._connection.fetchall()
        return names

    def _table_columns(self) -> tuple[str, ...]:
        if self._table is None:
            raise StorageError(f"{self._load.table}: there is no table at {self._load.uri}")
        names = pa.schema(self._table.schema().to_arrow()).names
        return tuple(name for name in names if name not in TECHNICAL_COLUMNS)

    def _one(self, statement: str, **parameters: Any) -> tuple[int, ...]:
        (row,) = self._all(statement, **parameters)
        return tuple(int(value) for value in row)

    def _all(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        # Draining each result matters: a half-read one blocks the connection.
        result: list[tuple[Any, ...]] = self._connection.execute(statement, parameters or None).fetchall()
        return result
