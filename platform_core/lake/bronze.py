"""Applies landed batches to bronze tables: compare by key and hash, rewrite the files that change, commit once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from platform_core.errors import LoadError, Overtaken, SchemaError, StorageError, redacted
from platform_core.faults import FaultPoint, reach
from platform_core.lake import history
from platform_core.lake.attempt import Attempt, bronze_schema, outcome_of
from platform_core.lake.columns import lake_schema, refuse_reserved
from platform_core.lake.commit import NewSchema, TableMoved
from platform_core.lake.delta import batch_of, data_files, fence_of, is_plain, open_table, table_schema
from platform_core.lake.evolution import schema_change
from platform_core.lake.freshness import is_newest
from platform_core.lake.landed import LandedRows
from platform_core.lake.quarantine import REASON_COLUMN
from platform_core.lake.row_hash import HASH_COLUMN, HASH_VERSION_KEY, require_version
from platform_core.lake.unchanged import changes_nothing, is_small
from platform_core.plugins.interfaces import BronzeLoad, BronzeOutcome
from platform_core.specs.ingestion import TECHNICAL_COLUMNS, LoadMode, OnBadKey

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from platform_core.lake.session import Session

ATTEMPTS = 3
"""How often a batch is compared anew after another writer committed first."""

LARGE_BYTES = 32 * 1024 * 1024
"""Tables and batches that together have more are applied one after the other, which bounds their memory."""

__all__ = ["apply", "bronze_schema", "source_columns"]


def source_columns(bronze: pa.Schema) -> pa.Schema:
    """The source's own columns of a bronze table."""
    return pa.schema([field for field in bronze if field.name not in TECHNICAL_COLUMNS])


def apply(load: BronzeLoad, *, session: Session) -> BronzeOutcome:
    """Apply a batch in one commit, or in none where nothing changed.

    - ``full``: the batch is all that the source holds. A key that bronze lacks is inserted; a changed hash, or a row
      that had been gone, is updated; a current row whose key the batch lacks is flagged deleted and keeps its values.
    - ``incremental``: rows are inserted or updated by key. A row that is older by ``sequence_by`` than bronze's is late
      and left out (null is older than any value); at the same age it overwrites if its hash differs.
    - ``append``: every row is inserted.
    - keys only: a current row whose key the batch lacks is flagged deleted; all other rows stay as they are. Keys that
      are null or doubled do no harm there.

    A row whose ``deleted_flag`` is true is written with its values and flagged deleted; it counts as deleted where
    bronze held it as current, as inserted where bronze did not know it. Every key of a batch must be set and unique:
    equal rows are refused too, or set aside.

    Columns that bronze lacks are added, in a commit without data right before the batch's own; rows that did not change
    stay untouched and are null there. Where a type becomes wider, every file is written again within the commit.

    A batch that the table holds already is not applied again. The first load makes the table, even without rows. Where
    a foreign writer commits in between, the comparison begins anew. Versions of rows go to the history in a commit of
    its own; what a crash kept from it is made up for by the next load.

    Raises:
        RowsUnknown: a partial batch says of a row that it is unchanged, and bronze has no such current row.
        LoadError: keys are null or doubled, or other writers kept committing first; nothing was written.
        DeletesStopped: too much would be flagged deleted; nothing was written but the landing.
        Overtaken: the table was loaded since the extract began, or this batch may no longer be committed.
        SchemaError: the columns are not those of the table; nothing was written.
        StorageError: the store refused. Nothing was committed, unless the message says otherwise.
    """
    import duckdb

    _check_columns(load)
    rows = LandedRows(load)
    try:
        if load.history_uri is not None:
            history.catch_up(load, session=session)
        done = _applied(load, rows, session)
        if load.history_uri is not None and done.committed:
            history.catch_up(load, session=session)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        short = isinstance(error, duckdb.OutOfMemoryException)
        hint = "\n  give the engine more with load_memory_limit" if short else ""
        raise StorageError(f"{load.table}: the batch cannot be applied\n  {redacted(error)}{hint}") from None
    return done


def _applied(load: BronzeLoad, rows: LandedRows, session: Session) -> BronzeOutcome:
    held = load.held_batch
    for attempt in range(ATTEMPTS):
        table = _as_begun(load) if attempt == 0 else None
        if table is None:
            table = open_table(load.uri, storage_options=load.storage_options)
        newest = batch_of(table)
        reach(FaultPoint.BRONZE_READ)
        if table is not None and newest == load.batch_id:
            return outcome_of(table)
        _refuse_overtaken(load, table, newest=newest, held=held)
        if held is None and load.mode is LoadMode.APPEND:
            # Rows that were read before somebody else's batch may be in that batch too.
            held = newest
        try:
            return _once(load, rows, session, table)
        except TableMoved:
            continue
    raise LoadError(
        f"{load.table}: other writers committed first {ATTEMPTS} times; nothing was written\n"
        "  see who else writes to the table, then run it again"
    )


def _as_begun(load: BronzeLoad) -> DeltaTable | None:
    """The handle that the load began with, where no version was committed since; opening anew costs more."""
    handle = load.handle
    if handle is None or not is_newest(handle.version(), load.uri, storage_options=load.storage_options):
        return None
    return handle


def _once(load: BronzeLoad, rows: LandedRows, session: Session, table: DeltaTable | None) -> BronzeOutcome:
    if table is None:
        if load.keys_only:
            return outcome_of(None)
        files, change = [], None
    else:
        change = _check_table(load, table)
        files = data_files(table, columns=load.key[:1] if load.mode is LoadMode.INCREMENTAL else ())
        tellable = change is None and not load.commit_always and not load.partial and is_small(load, files)
        if tellable and load.rows is not None and changes_nothing(load, load.rows, files):
            return outcome_of(table, unchanged=load.rows.num_rows)
    large = sum(file.size for file in files) + rows.bytes > LARGE_BYTES
    with session.alone(large), session.cursor() as connection:
        return Attempt(load, rows, session, connection, table, files, change, large=large).run()


def _refuse_overtaken(load: BronzeLoad, table: DeltaTable | None, *, newest: int, held: int | None) -> None:
    if (fence := fence_of(table)) >= load.batch_id:
        raise Overtaken(
            f"{load.table}: batch {load.batch_id} may no longer be committed: another load took over "
            f"(the table is fenced up to {fence}); nothing was written\n  the other load does the work"
        )
    if newest > load.batch_id or (held is not None and newest != held):
        since = f", {held} when the extract began" if held is not None else ""
        raise Overtaken(
            f"{load.table}: somebody else loaded the table: it holds batch {newest}{since}; batch {load.batch_id} was "
            "not applied\n  run it again"
        )


def _check_columns(load: BronzeLoad) -> None:
    of, names = str(load.table), load.schema.names
    if HASH_COLUMN not in names and not load.keys_only:
        raise SchemaError(f"{of}: the landed files have no column {HASH_COLUMN}")
    own = pa.schema([field for field in load.schema if field.name != HASH_COLUMN])
    refuse_reserved(own, of=of)
    lake_schema(own, of=of)
    if load.history_uri is not None:
        history.refuse_names(own.names, of=of)
    if load.on_bad_key is OnBadKey.QUARANTINE and REASON_COLUMN in map(str.casefold, own.names):
        raise SchemaError(
            f"{of}: the source has a column {REASON_COLUMN}, which rows that are set aside need\n"
            "  rename it at the source, for example in a view"
        )
    needed = [*load.key, *(name for name in (load.sequence_by, load.deleted_flag, load.winner_by) if name is not None)]
    if unknown := [name for name in dict.fromkeys(needed) if name not in own.names]:
        raise SchemaError(f"{of}: no column {', '.join(unknown)}\n  columns: {', '.join(own.names)}")
    if load.deleted_flag is not None:
        type_ = own.field(load.deleted_flag).type
        if not pa.types.is_boolean(type_) and not pa.types.is_integer(type_):
            raise SchemaError(
                f"{of}: column '{load.deleted_flag}' of type {type_} cannot flag deleted rows\n"
                "  it must be a boolean, or an integer where 0 means present"
            )
    if nested := [name for name in load.key if pa.types.is_nested(own.field(name).type)]:
        raise SchemaError(f"{of}: key column {', '.join(nested)} is nested; a key holds plain values")


def _check_table(load: BronzeLoad, table: DeltaTable) -> NewSchema | None:
    """Refuse a table that bronze cannot be; returns what the batch changes in its columns."""
    of = str(load.table)
    if not is_plain(table):
        raise StorageError(
            f"{of}: the table at {load.uri} has deletion vectors, mapped columns or partitions, which bronze "
            "does not use\n  load into a new table, or rewrite this one without them"
        )
    schema = pa.schema(table.schema().to_arrow())
    recorded = schema.field(HASH_COLUMN).metadata if HASH_COLUMN in schema.names else None
    require_version((recorded or {}).get(HASH_VERSION_KEY, b"").decode() or None, of=of)
    plain = table_schema(table)
    own = source_columns(plain)
    if unknown := [name for name in load.key if name not in own.names]:
        raise SchemaError(
            f"{of}: key column {', '.join(unknown)} is new: rows of the table have no value there\n"
            "  keep the key, or load into a new table"
        )
    if load.keys_only:
        return None
    given = pa.schema([field for field in load.schema if field.name != HASH_COLUMN])
    held = pa.schema([field.with_metadata(schema.field(field.name).metadata) for field in plain])
    return schema_change(held, given, own=own.names, of=of)
