"""What changed in a Delta table between two versions: of every key the last change, deletes included."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp

from platform_core.errors import SourceError
from platform_core.sources.cursor_range import CursorRange
from platform_core.sources.delta_engine import Engine
from platform_core.sources.delta_tables import DeltaRoot, OpenTable, Scanned, delta_errors
from platform_core.sources.naming import check_columns, column, identifier
from platform_core.sources.statement import Statement

DELETED, VERSION, AT = "cdf_deleted", "cdf_version", "cdf_at"
CHANGE_FIELDS = (
    pa.field(DELETED, pa.bool_()),
    pa.field(VERSION, pa.int64()),
    pa.field(AT, pa.timestamp("us", tz="UTC")),
)
"""Columns that the change data feed adds."""

_TYPE, _COMMIT, _TIME = "_change_type", "_commit_version", "_commit_timestamp"
_CHANGES, _NEWEST, _RANK = "edp_changes", "edp_newest", "edp_rank"
_EARLIER = ("delete", "update_preimage")
"""Changes that leave no row behind; another one of the same key and commit comes after them."""

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_RELOAD = "  reload the table: its whole content is read then, and the feed from there on"


@dataclass(frozen=True)
class Position:
    """Up to where a table was read.

    Args:
        table: id of the table.
        version: the last version that was read.
    """

    table: str
    version: int

    def packed(self) -> bytes:
        """As it is kept between loads."""
        return json.dumps({"table": self.table, "version": self.version}).encode()

    @classmethod
    def unpacked(cls, state: bytes, *, where: str) -> Position:
        """From what was kept.

        Raises:
            SourceError: it is something else.
        """
        try:
            kept = json.loads(state)
            return cls(str(kept["table"]), int(kept["version"]))
        except (ValueError, KeyError, TypeError):
            raise SourceError(
                f"{where}: what was kept of the last load is not a version of a Delta table\n{_RELOAD}"
            ) from None


def change_schema(table: OpenTable) -> pa.Schema:
    """The table's columns, and those that the feed adds.

    Raises:
        SourceError: the feed is off, or the table has a column of such a name.
    """
    if not table.has_change_feed:
        raise SourceError(
            f"{table.where}: the change data feed of this table is off\n"
            "  set its property delta.enableChangeDataFeed = true, or leave out 'change_data_feed'"
        )
    for added in CHANGE_FIELDS:
        if added.name in {name.lower() for name in table.schema.names}:
            raise SourceError(
                f"{table.where}: the table has a column '{added.name}' of its own; the feed needs the name"
            )
    return pa.schema([*table.schema, *CHANGE_FIELDS])


def whole(table: OpenTable, names: list[str]) -> Iterator[pa.RecordBatch]:
    """The table's rows as if each had just been inserted: where a feed begins."""
    schema = change_schema(table)
    at = _time_of(table)
    constants = {DELETED: False, VERSION: table.version, AT: at}
    own = [name for name in names if name not in constants]
    # A batch without columns would have no number of rows.
    for batch in table.rows(own or table.schema.names[:1], CursorRange()):
        arrays = [
            pa.repeat(pa.scalar(constants[name], schema.field(name).type), batch.num_rows)
            if name in constants
            else batch.column(name)
            for name in names
        ]
        yield pa.record_batch(arrays, schema=pa.schema([schema.field(name) for name in names]))


def changed(
    table: OpenTable, names: list[str], *, since: Position, key: tuple[str, ...], engine: Engine, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Of every key that changed after a position the last change, up to the table's version.

    Only keys are held in memory; the changes are streamed twice.

    Raises:
        SourceError: the feed cannot be read without gaps.
    """
    where, first, last = table.where, since.version + 1, table.version
    check_columns(key, table.schema.names, where=where)
    if first > last:
        return
    own = dict.fromkeys([*(name for name in names if name in table.schema.names), *key])
    wanted = pa.schema([change_schema(table).field(name) for name in names])
    try:
        engine.add(_CHANGES, Scanned(lambda: _feed(table, own, since=since)))
        engine.execute(_newest(key))
        yield from engine.rows(_last_changes(names, key), wanted, batch_rows=batch_rows)
    except SourceError as error:
        raise SourceError(
            f"{error}\n  versions {first} to {last} of the feed were read; if files of them were vacuumed:\n{_RELOAD}"
        ) from None


def check_feed(root: DeltaRoot, path: str, table: OpenTable, *, since: Position) -> None:
    """Make sure that the feed tells everything that happened after a position.

    Raises:
        SourceError: the table is another one, was set back, its log no longer reaches back, the feed was off in
            between, or a commit deleted rows in a way that the feed does not tell.
    """
    where = table.where
    on: bool | None = None
    for version, actions in _commits(table, since=since):
        if on is None:
            on = _was_on(root, path, version, actions, where)
        for action in actions:
            if (metadata := action.get("metaData")) is not None:
                on = _is_on(metadata.get("configuration") or {})
        if not on:
            raise SourceError(f"{where}: the change data feed was off in version {version}\n{_RELOAD}")
        if _is_untold(actions):
            raise SourceError(
                f"{where}: version {version} deleted rows by deletion vectors without writing its feed\n{_RELOAD}"
            )


def added_only(table: OpenTable, *, since: Position) -> bool:
    """Whether nothing happened after a position but that rows were added; the feed need not be on.

    Raises:
        SourceError: the table is another one, was set back, or its log no longer reaches back.
    """
    for _, actions in _commits(table, since=since):
        files = [action[kind] for action in actions for kind in ("add", "remove") if kind in action]
        changing = [file for file in files if file.get("dataChange", True)]
        removed = any("remove" in action and action["remove"].get("dataChange", True) for action in actions)
        other = any("metaData" in action or "cdc" in action for action in actions)
        if removed or other or any(file.get("deletionVector") for file in changing):
            return False
    return True


def added(table: OpenTable, names: list[str], *, since: Position) -> pa.RecordBatchReader:
    """The rows that were added after a position, where nothing else happened."""
    if since.version == table.version:
        return table.schema.empty_table().select(names).to_reader()
    return _feed(table, names, since=since)


def _feed(table: OpenTable, names: Collection[str], *, since: Position) -> pa.RecordBatchReader:
    first, last = since.version + 1, table.version
    # delta-rs reads each name as an expression, and has no quotes for it.
    needed = [*names, _TYPE, _COMMIT, _TIME] if all(map(_PLAIN.fullmatch, names)) else None
    with delta_errors(f"{table.where}: versions {first} to {last} of its feed cannot be read\n{_RELOAD}"):
        return pa.RecordBatchReader.from_stream(
            table.handle.load_cdf(starting_version=first, ending_version=last, columns=needed)
        )


def _commits(table: OpenTable, *, since: Position) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The commits after a position, none left out."""
    where = table.where
    if table.id != since.table:
        raise SourceError(f"{where}: there is another table in its place since the last load\n{_RELOAD}")
    if table.version < since.version:
        raise SourceError(
            f"{where}: it is at version {table.version}, but version {since.version} has been read already\n{_RELOAD}"
        )
    for version in range(since.version + 1, table.version + 1):
        actions = table.log(version)
        if actions is None:
            raise SourceError(
                f"{where}: its log no longer holds version {version}, and versions after {since.version} are needed\n"
                f"{_RELOAD}\n  then load more often than the log is cleaned (delta.logRetentionDuration)"
            )
        yield version, actions


def _was_on(root: DeltaRoot, path: str, version: int, actions: list[dict[str, Any]], where: str) -> bool:
    """Whether the feed was on when the first of the versions was written."""
    if any("metaData" in action for action in actions):
        return True
    with delta_errors(f"{where}: version {version} cannot be opened any more\n{_RELOAD}"):
        return root.open(path, where=where, version=version).has_change_feed


def _is_on(configuration: dict[str, str]) -> bool:
    return str(configuration.get("delta.enableChangeDataFeed", "")).lower() == "true"


def _is_untold(actions: list[dict[str, Any]]) -> bool:
    """Without a feed of its own a commit is read by its files, whose deletion vectors would be overlooked."""
    if any("cdc" in action for action in actions):
        return False
    files = (action[kind] for action in actions for kind in ("add", "remove") if kind in action)
    return any(file.get("deletionVector") and file.get("dataChange", True) for file in files)


def _time_of(table: OpenTable) -> dt.datetime | None:
    """When the table's version was committed; None where the log no longer says."""
    newest = table.handle.history(1)
    if not newest or newest[0].get("version") != table.version or "timestamp" not in newest[0]:
        return None
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=int(newest[0]["timestamp"]))


def _newest(key: tuple[str, ...]) -> Statement:
    """A table of the keys with the rank of their last change."""
    keys = [column(name) for name in key]
    rank = exp.alias_(exp.func("max", _rank()), _RANK, quoted=True)
    query = exp.select(*keys, rank).from_(exp.to_table(_CHANGES)).group_by(*keys)
    statement = exp.Create(
        this=exp.to_table(_NEWEST),
        kind="TABLE",
        expression=query,
        properties=exp.Properties(expressions=[exp.TemporaryProperty()]),
    )
    return Statement(statement.sql(dialect="duckdb"), ())


def _last_changes(names: list[str], key: tuple[str, ...]) -> Statement:
    """Each key's last change."""
    same = [exp.NullSafeEQ(this=_of(_CHANGES, name), expression=_of(_NEWEST, name)) for name in key]
    latest = exp.EQ(this=exp.paren(_rank(_CHANGES)), expression=_of(_NEWEST, _RANK))
    added: dict[str, exp.Expression] = {
        DELETED: exp.In(this=_of(_CHANGES, _TYPE), expressions=_earlier()),
        VERSION: exp.cast(_of(_CHANGES, _COMMIT), "BIGINT"),
        AT: exp.cast(_of(_CHANGES, _TIME), "TIMESTAMPTZ"),
    }
    selected = [exp.alias_(added.get(name) or _of(_CHANGES, name), name, quoted=True) for name in names]
    query = exp.select(*selected).from_(exp.to_table(_CHANGES)).join(exp.to_table(_NEWEST), on=exp.and_(*same, latest))
    return Statement(query.sql(dialect="duckdb"), ())


def _rank(table: str | None = None) -> exp.Expression:
    """Later commits rank higher, and within one commit what leaves a row behind."""
    leaves = exp.Case().when(exp.In(this=_of(table, _TYPE), expressions=_earlier()), exp.Literal.number(0))
    doubled = exp.Mul(this=exp.cast(_of(table, _COMMIT), "BIGINT"), expression=exp.Literal.number(2))
    return exp.Add(this=doubled, expression=leaves.else_(exp.Literal.number(1)))


def _earlier() -> list[exp.Expression]:
    return [exp.Literal.string(kind) for kind in _EARLIER]


def _of(table: str | None, name: str) -> exp.Column:
    return exp.Column(this=identifier(name), table=identifier(table) if table else None)
