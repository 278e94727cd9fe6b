"""Every version of every row of a bronze table, in a table beside it: opened and closed as bronze changes.

Bronze is the truth. The history's newest batch id tells up to where it has followed, and rows of bronze tell in which
batch they changed last, so one step both follows a load and repairs what a crash kept from the history.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import LoadError, SchemaError, StorageError
from platform_core.faults import FaultPoint, reach
from platform_core.lake import comparison
from platform_core.lake.commit import NewFiles, NewSchema, TableMoved
from platform_core.lake.delta import DataFile, batch_of, data_files, is_plain, open_table, table_schema
from platform_core.lake.evolution import rewrite_wider, schema_change
from platform_core.lake.parquet_sql import (
    DIALECT,
    Writing,
    column,
    file_of,
    keys,
    moved,
    parquet,
    parsed,
    place,
    same_key,
    temporary_table,
    written,
)
from platform_core.lake.row_hash import HASH_COLUMN, HASH_FIELD, HASH_VERSION, HASH_VERSION_KEY, require_version
from platform_core.lake.row_size import group_rows
from platform_core.lake.storage import engine_path, engine_root
from platform_core.lake.watermark import watermark
from platform_core.plugins.interfaces import BronzeLoad
from platform_core.specs.ingestion import TECHNICAL_COLUMNS

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from platform_core.lake.session import Session

VERSION_COLUMNS = ("_valid_from", "_valid_to", "_is_deleted", "_batch_id", HASH_COLUMN)
"""Columns beside the source's own. A version holds from ``_valid_from`` on, and before ``_valid_to``; null: it is the
row's current one. ``_is_deleted``: it was closed because the row went. ``_batch_id``: which load opened or closed it
last."""

FILE_BYTES = 128 * 1024 * 1024
SMALL_FILE_BYTES = 8 * 1024 * 1024
LARGE_BYTES = 32 * 1024 * 1024
ATTEMPTS = 3

_MOMENT = pa.timestamp("us", "UTC")
_FIELDS = (
    pa.field("_valid_from", _MOMENT),
    pa.field("_valid_to", _MOMENT),
    pa.field("_is_deleted", pa.bool_()),
    pa.field("_batch_id", pa.int64()),
    HASH_FIELD.with_metadata({HASH_VERSION_KEY: HASH_VERSION.encode()}),
)

_TURNS = """
SELECT * FROM (
  SELECT
    fresh.at AS new_at, held.at AS old_at,
    fresh.is_current AND (held.at IS NULL OR held.hash IS DISTINCT FROM fresh.hash) AS opens,
    held.at IS NOT NULL AND (NOT fresh.is_current OR held.hash IS DISTINCT FROM fresh.hash) AS closes,
    NOT fresh.is_current AS deletes,
    greatest(fresh.modified_at, $clock::TIMESTAMPTZ) AS moment,
    fresh.batch_id AS batch_id
  FROM fresh LEFT JOIN held ON keys_are_equal
) AS turned
WHERE opens OR closes
"""
_COUNT = "SELECT count(*) FILTER (opens), count(*) FILTER (closes) FROM turns"
_TOUCHED = f"SELECT DISTINCT {file_of('old_at')} AS touched FROM turns WHERE closes ORDER BY touched"  # noqa: S608
_REPOSITION = f"UPDATE turns SET old_at = {moved('old_at', to='replaced')} WHERE closes"  # noqa: S608


_MICROSECOND = dt.timedelta(microseconds=1)
_MILLISECOND = dt.timedelta(milliseconds=1)


def catch_up(load: BronzeLoad, *, session: Session) -> None:
    """Bring the history of a bronze table up to its newest batch, in one commit that carries this batch's id.

    A row that bronze got or changed opens a version and closes the one before; a row that is gone closes its version.
    Moments never run backwards, even where the clock of a load did. A deletion that comes with new values closes the
    version that was; it opens none.

    Raises:
        LoadError: other writers kept committing first.
        StorageError: the store refused.
    """
    if load.history_uri is None:
        return
    for _ in range(ATTEMPTS):
        bronze = open_table(load.uri, storage_options=load.storage_options)
        if bronze is None:
            return
        held = open_table(load.history_uri, storage_options=load.storage_options)
        if held is not None and batch_of(held) >= batch_of(bronze):
            return
        try:
            with session.cursor() as connection:
                step = _Step(load, load.history_uri, session, connection, bronze, held)
                with session.alone(step.is_large):
                    step.run()
        except TableMoved:
            continue
        return
    raise LoadError(
        f"{load.table}: other writers committed to its history first {ATTEMPTS} times\n"
        "  bronze is loaded; the next load brings the history up to it"
    )


def refuse_names(names: Sequence[str], *, of: str) -> None:
    """Refuse columns of a source that are named like columns of a history.

    Raises:
        SchemaError: there is one.
    """
    if taken := [name for name in names if name.casefold() in VERSION_COLUMNS]:
        raise SchemaError(
            f"{of}: the source has columns whose names the history needs: {', '.join(taken)}\n"
            "  rename them at the source, for example in a view"
        )


def history_schema(own: pa.Schema) -> pa.Schema:
    """Columns of the history of a table with these columns of its source."""
    return pa.schema([*own, *_FIELDS])


@dataclass(frozen=True)
class _Files:
    """Files of one table, as the engine reads them."""

    root: str
    files: Sequence[DataFile]

    def paths(self) -> list[str]:
        return [engine_path(f"{self.root}/{file.path}") for file in self.files]


class _Step:
    """Takes one version of a history to one version of its bronze table."""

    def __init__(
        self,
        load: BronzeLoad,
        uri: str,
        session: Session,
        connection: Any,
        bronze: DeltaTable,
        held: DeltaTable | None,
    ) -> None:
        self._load = load
        self._uri = uri
        self._connection = connection
        self._held = held
        self._bronze = bronze
        known = batch_of(held)
        changed = [
            file
            for file in data_files(bronze, columns=("_batch_id",))
            if (newest := file.highest.get("_batch_id")) is None or newest > known
        ]
        self._changed = _Files(engine_root(session, load.uri, load.storage_options), changed)
        self._root = engine_root(session, uri, load.storage_options)
        self._files = [] if held is None else data_files(held, columns=("_valid_from", "_valid_to"))
        moments = [file.highest.get(name) for file in self._files for name in ("_valid_from", "_valid_to")]
        last = max((moment for moment in moments if moment is not None), default=None)
        if held is not None and last is not None and last.microsecond % 1000 == 0:
            # What compacts a table cuts its statistics to milliseconds; the files know better.
            exact = (
                watermark(held, name, storage_options=load.storage_options) for name in ("_valid_from", "_valid_to")
            )
            last = max(moment for moment in exact if isinstance(moment, dt.datetime))
        # The earliest moment at which something may change now. delta-rs, which compacts, cuts times in its statistics
        # to milliseconds: where the last one is whole, it may have been up to one later.
        self._clock = None if last is None else last + (_MICROSECOND if last.microsecond % 1000 else _MILLISECOND)
        plain = table_schema(bronze)
        self._own = pa.schema([field for field in plain if field.name not in TECHNICAL_COLUMNS])
        self._change = self._schema_change()

    @property
    def is_large(self) -> bool:
        """More is read than small tables have."""
        return sum(file.size for file in (*self._changed.files, *self._files)) > LARGE_BYTES

    def run(self) -> None:
        load = self._load
        asked = frozenset((*load.key, *VERSION_COLUMNS))
        with NewFiles(self._uri, storage_options=load.storage_options, statistics_for=asked) as new:
            removable = {file.path: file.size for file in self._files}
            if self._change is not None and self._change.whole is not None:
                self._widen(new, self._change.whole)
            opened, closed = self._turn() if self._changed.files else (0, 0)
            if not opened and not closed and self._held is not None and self._change is None:
                return
            replaced = self._write(new) if opened or closed else []
            gone = {self._files[at].path for at in replaced}
            new.discard(path for path in gone if path not in removable)
            reach(FaultPoint.HISTORY_COMMIT)
            new.commit(
                self._held,
                of=load.table,
                schema=history_schema(self._own),
                removed={path: size for path, size in removable.items() if path in gone},
                batch=batch_of(self._bronze),
                metadata={"batch": str(batch_of(self._bronze)), "opened": str(opened), "closed": str(closed)},
                change=self._change,
            )

    def _schema_change(self) -> NewSchema | None:
        of = f"{self._load.table} (history)"
        if self._held is None:
            return None
        if not is_plain(self._held):
            raise StorageError(f"{of}: the table at {self._uri} has deletion vectors, mapped columns or partitions")
        schema = pa.schema(self._held.schema().to_arrow())
        recorded = schema.field(HASH_COLUMN).metadata if HASH_COLUMN in schema.names else None
        require_version((recorded or {}).get(HASH_VERSION_KEY, b"").decode() or None, of=of)
        plain = table_schema(self._held)
        whole = pa.schema([field.with_metadata(schema.field(field.name).metadata) for field in plain])
        own = [name for name in plain.names if name not in VERSION_COLUMNS]
        return schema_change(whole, self._own, own=own, of=of)

    def _widen(self, new: NewFiles, schema: pa.Schema) -> None:
        sizes = rewrite_wider(new, [file.path for file in self._files], schema=schema, own=self._own.names)
        self._files = [
            DataFile(path=path, size=size, rows=file.rows, lowest=file.lowest, highest=file.highest, nulls=file.nulls)
            for file, (path, size) in zip(self._files, sizes.items(), strict=True)
        ]

    def _turn(self) -> tuple[int, int]:
        """Fill the table ``turns``: which versions open and close, and when; returns how many."""
        self._with_current = [at for at, file in enumerate(self._files) if file.nulls.get("_valid_to", 1)]
        paths = self._paths(self._with_current)
        statement = _make_turns(self._load.key, empty=not paths)
        clock = {"clock": self._clock, "known": batch_of(self._held)}
        self._all(statement, bronze=self._changed.paths(), **clock, **({"versions": paths} if paths else {}))
        ((opened, closed),) = self._all(_COUNT)
        return int(opened), int(closed)

    def _write(self, new: NewFiles) -> list[int]:
        """Write new versions and what stays of the files that change; returns the positions of these."""
        touched = {self._with_current[at] for (at,) in self._all(_TOUCHED)}
        replaced = sorted(touched | {at for at, file in enumerate(self._files) if file.size < SMALL_FILE_BYTES})
        among = {position: at for at, position in enumerate(self._with_current)}
        if replaced:
            self._all(_REPOSITION, replaced=[among.get(position, -1) for position in replaced])
        paths, fresh = self._paths(replaced), self._changed.paths()
        held = frozenset(self._columns_of(paths)) if paths else None
        given = frozenset(self._columns_of(fresh))
        own = tuple(name for name in self._own.names if name in given or name in (held or ()))
        new.prepare()
        target = {"folder": self._root}
        writing = Writing(FILE_BYTES, group_rows(self._connection, files=fresh))
        opening = _copy_new(tuple(name for name in own if name in given), writing=writing)
        self._all(opening, bronze=fresh, **target, pattern=new.prefix + "new{i}")
        if held is not None:
            mine = tuple(name for name in own if name in held)
            self._all(_copy_open(mine, writing), replaced=paths, **target, pattern=new.prefix + "open{i}")
            self._all(_copy_closed(mine, writing), replaced=paths, **target, pattern=new.prefix + "closed{i}")
        return replaced

    def _paths(self, positions: Sequence[int]) -> list[str]:
        return _Files(self._root, [self._files[at] for at in positions]).paths()

    def _columns_of(self, paths: list[str]) -> list[str]:
        self._connection.execute(comparison.COLUMNS, {"files": paths})
        names = [str(name) for name, *_ in self._connection.description]
        self._connection.fetchall()
        return names

    def _all(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        result: list[tuple[Any, ...]] = self._connection.execute(statement, parameters or None).fetchall()
        return result


@lru_cache(maxsize=1024)
def _make_turns(key: tuple[str, ...], *, empty: bool) -> str:
    fresh = (
        exp.select(
            *keys(key, "bronze"),
            exp.alias_(column("_is_current", "bronze"), "is_current"),
            exp.alias_(column(HASH_COLUMN, "bronze"), "hash"),
            exp.alias_(column("_modified_at", "bronze"), "modified_at"),
            exp.alias_(column("_batch_id", "bronze"), "batch_id"),
            exp.alias_(place("bronze"), "at"),
        )
        .from_(parquet("bronze"))
        .where('bronze."_batch_id" > $known', dialect=DIALECT)
    )
    if empty:
        held = exp.select("*").from_("fresh").where("false")
    else:
        held = (
            exp.select(
                *keys(key, "versions"),
                exp.alias_(column(HASH_COLUMN, "versions"), "hash"),
                exp.alias_(place("versions"), "at"),
            )
            .from_(parquet("versions"))
            .where('versions."_valid_to" IS NULL')
        )
    query = parsed(_TURNS)
    join = next(found for found in query.find_all(exp.Join))
    join.set("on", same_key(key, "fresh", "held"))
    return temporary_table("turns", query.with_("fresh", as_=fresh).with_("held", as_=held))


@lru_cache(maxsize=1024)
def _copy_new(own: tuple[str, ...], *, writing: Writing) -> str:
    """Write the versions that open."""
    rows = (
        exp.select(
            *(column(name, "bronze") for name in own),
            'turns.moment AS "_valid_from"',
            'NULL::TIMESTAMPTZ AS "_valid_to"',
            'false AS "_is_deleted"',
            'turns.batch_id AS "_batch_id"',
            column(HASH_COLUMN, "bronze"),
            dialect=DIALECT,
        )
        .from_(parquet("bronze"))
        .join("turns", on=exp.EQ(this=place("bronze"), expression=exp.column("new_at", "turns")))
        .where("turns.opens")
    )
    return written(rows, writing)


@lru_cache(maxsize=1024)
def _copy_open(own: tuple[str, ...], writing: Writing) -> str:
    """Write the current versions of replaced files that stay."""
    rows = (
        exp.select(*(column(name, "replaced") for name in (*own, *VERSION_COLUMNS)))
        .from_(parquet("replaced"))
        .join("turns", on=_lies(), join_type="anti")
        .where('replaced."_valid_to" IS NULL')
    )
    return written(rows, writing)


@lru_cache(maxsize=1024)
def _copy_closed(own: tuple[str, ...], writing: Writing) -> str:
    """Write the versions of replaced files that are closed, now or before."""
    rows = (
        exp.select(
            *(column(name, "replaced") for name in own),
            column("_valid_from", "replaced"),
            'coalesce(turns.moment, replaced."_valid_to") AS "_valid_to"',
            'coalesce(turns.deletes, replaced."_is_deleted") AS "_is_deleted"',
            'coalesce(turns.batch_id, replaced."_batch_id") AS "_batch_id"',
            column(HASH_COLUMN, "replaced"),
            dialect=DIALECT,
        )
        .from_(parquet("replaced"))
        .join("turns", on=_lies(), join_type="left")
        .where('turns.closes OR replaced."_valid_to" IS NOT NULL')
    )
    return written(rows, writing)


def _lies() -> exp.Condition:
    """A version of a replaced file is one that closes."""
    return exp.and_(exp.EQ(this=place("replaced"), expression=exp.column("old_at", "turns")), "turns.closes")
