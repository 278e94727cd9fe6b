"""Runs the statements of a reviewed change on the real tables, looks at what became of the rows, and takes it back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from platform_core.control.plan.declared import written_path
from platform_core.control.plan.difference import field_differences
from platform_core.control.report import excerpt
from platform_core.control.reviewed_sql.files import SqlChange, Statement
from platform_core.control.store.codec import Codec, Content, Row, SpecColumn, codec
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.rows import RowKey
from platform_core.control.store.tables import SPEC_TABLES
from platform_core.control.tables import SCHEMA
from platform_core.errors import ConfigError, Issue, Place

_WAIT = ("08", "53300", "57P", "57014", "55P03", "40001", "40P01", "25P03")
"""Classes of PostgreSQL's errors that say nothing about a statement: the transaction is tried again."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the statements of a change make of the rows.

    Args:
        rows: all rows as they are afterwards; those that a statement changed are written in one way.
        touched: line of the last statement that changed a row, by row and path in it, in the
            table and as a person writes it; the path () stands for the row.
        renewed: columns that were written, by row, whether that changed them or not.
        idle: lines of statements that met no row.
    """

    rows: Mapping[RowKey, Row]
    touched: Mapping[RowKey, Mapping[tuple[str, ...], int]]
    renewed: Mapping[RowKey, frozenset[str]]
    idle: tuple[int, ...]

    def line(self, key: RowKey, path: Sequence[str] = ()) -> int:
        """Line of the statement that changed a value last; 0: none of the change did."""
        lines = self.touched.get(key, {})
        asked = tuple(path)
        while asked and asked not in lines:
            below = [line for known, line in lines.items() if known[: len(asked)] == asked]
            if below:
                return max(below)
            asked = asked[:-1]
        return lines.get(asked, 0)


def run_statements(connection: sa.Connection, change: SqlChange, before: Mapping[RowKey, Row]) -> Outcome:
    """What a change would make of the rows; they are as they were when this returns.

    Args:
        connection: in a transaction, which stays usable.
        before: all rows.

    Raises:
        ConfigError: the database refuses a statement, or a value cannot be one of its column.
    """
    with _taken_back(connection):
        _name_schema(connection)
        rows = dict(before)
        touched: dict[RowKey, dict[tuple[str, ...], int]] = {}
        renewed: dict[RowKey, frozenset[str]] = {}
        idle = []
        for statement in change.statements:
            kind = statement.checked.kind
            met = _run(connection, change, statement)
            if not met:
                idle.append(statement.line)
            found = _read_kind(connection, change, statement, rows, set(met))
            for key, paths in _touched(kind, rows, found).items():
                written = [written_path(kind, path) for path in paths]
                touched.setdefault(key, {}).update(dict.fromkeys(((), *paths, *written), statement.line))
            for key in met:
                renewed[key] = renewed.get(key, frozenset()) | statement.checked.columns
            for key in [key for key in rows if key.kind == kind and key not in found]:
                del rows[key]
            rows.update(found)
    return Outcome(rows=rows, touched=touched, renewed=renewed, idle=tuple(idle))


def keep_statements(connection: sa.Connection, change: SqlChange) -> None:
    """Run a change once more and leave the rows as it makes them, for what is planned after it."""
    _name_schema(connection)
    for statement in change.statements:
        _run(connection, change, statement)


@contextmanager
def _taken_back(connection: sa.Connection) -> Iterator[None]:
    """A part of a transaction that leaves no trace."""
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        if savepoint.is_active:
            savepoint.rollback()


def _name_schema(connection: sa.Connection) -> None:
    """Names without a schema mean what they mean in the catalog, whatever the user's settings are."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL search_path = pg_catalog, {SCHEMA}, pg_temp")


def _run(connection: sa.Connection, change: SqlChange, statement: Statement) -> list[RowKey]:
    """Run a statement; the rows that it met."""
    kind = statement.checked.kind
    try:
        met = connection.exec_driver_sql(statement.checked.sql, execution_options={"no_parameters": True}).all()
    except sa.exc.DBAPIError as error:
        driver = error.orig
        code = str(getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None) or "")
        if error.connection_invalidated or not code or code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", *_WAIT)):
            raise
        told, label = _told(code), f"{type(driver).__name__} [{code}]"
    else:
        return [RowKey(kind, str(location), ".".join(map(str, names))) for location, *names in met]
    # Raised outside of the block: the driver's text quotes values, and does not pass.
    raise _fault(change, statement.line, f"the database refuses the statement: {told}", label)


def _told(code: str) -> str:
    """What an error is about, in words."""
    if "UNIQUE" in code or "PRIMARYKEY" in code or code == "23505":
        return "there is such a row already"
    if "NOTNULL" in code or code == "23502":
        return "a column that names the row is empty"
    if code.startswith("22"):
        return "a value does not fit the type of its column"
    if code.startswith("42804"):
        return "a value has another type than its column: JSON columns want CAST(… AS json)"
    if code.startswith("42"):
        return "it names a column or function that there is not, or types that do not fit together"
    return "look at its columns, values and types"


def _read_kind(
    connection: sa.Connection,
    change: SqlChange,
    statement: Statement,
    before: Mapping[RowKey, Row],
    met: Collection[RowKey],
) -> dict[RowKey, Row]:
    """The rows of the control table that a statement has changed.

    They are read without the conversions of the library: in SQLite a column may hold what its type does not allow.
    """
    kind = KINDS[statement.checked.kind]
    rows, table = codec(kind), SPEC_TABLES[statement.checked.kind]
    columns = [
        sa.cast(table.c[column.name], sa.Text)
        if column.is_json
        else sa.type_coerce(table.c[column.name], sa.types.NullType())
        for column in rows.columns
    ]
    found: dict[RowKey, Row] = {}
    for location, *values in connection.execute(sa.select(table.c.location, *columns)):
        row: Row = tuple(values)
        key = RowKey(kind.name, str(location), rows.address(row))
        if key in before and key not in met:
            # Most rows are none of the statement's business, whatever somebody has made of them.
            found[key] = before[key]
            continue
        found[key] = rows.normal(
            [
                _value(change, statement, rows, values, column, value)
                for column, value in zip(rows.columns, values, strict=True)
            ]
        )
    return found


def _value(
    change: SqlChange, statement: Statement, rows: Codec, row: Sequence[Any], column: SpecColumn, value: Any
) -> Any:
    """A value of a column as its type wants it."""

    def refuse(message: str, *hints: str) -> ConfigError:
        what = f"{rows.kind.name} {excerpt(rows.address(row))} {column.name}"
        return _fault(change, statement.line, f"{what}: {message}", *hints)

    if value is None:
        return None
    if column.is_json:
        return _json(value, refuse)
    if isinstance(column.type, sa.Boolean):
        if value is True or value is False or (isinstance(value, int) and value in (0, 1)):
            return bool(value)
        raise refuse("expected true or false", "written without quotes: true, false")
    if isinstance(column.type, sa.BigInteger):
        if isinstance(value, int):
            return value
        raise refuse("expected a whole number", "written without quotes")
    if isinstance(column.type, sa.Double):
        if isinstance(value, (int, float)):
            return float(value)
        raise refuse("expected a number", "written without quotes")
    if not isinstance(value, str):
        raise refuse("expected a text", "written in quotes")
    if "\x00" in value:
        raise refuse("holds the character U+0000")
    return value


def _json(value: Any, refuse: Any) -> str:
    def unknown(word: str) -> Any:
        raise ValueError(word)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)

    text = value if isinstance(value, str) else str(value)
    try:
        json.loads(text, parse_constant=unknown, object_pairs_hook=once)
    except ValueError:
        raise refuse(
            "is no JSON, or names a key twice", "a text in JSON has double quotes in the single ones"
        ) from None
    return text


def _touched(kind: str, before: Mapping[RowKey, Row], after: dict[RowKey, Row]) -> dict[RowKey, list[tuple[str, ...]]]:
    """Rows that differ, each with the paths that do; the order of keys stays what it was."""
    rows = codec(KINDS[kind])
    found: dict[RowKey, list[tuple[str, ...]]] = {}
    for key, row in after.items():
        old = before.get(key)
        if old is row or old == row:
            continue
        if old is not None:
            was = rows.content(rows.normal(old))
            now = ordered_like(was, rows.content(row))
            after[key] = rows.row(now)
            if after[key] == rows.row(was):
                # Written otherwise, and the same.
                after[key] = old
                continue
            found[key] = [path for path, _, _ in field_differences(was, now)]
        else:
            found[key] = []
    found.update({key: [] for key in before if key.kind == kind and key not in after})
    return found


def ordered_like(before: Content, after: Content) -> Content:
    """The content with the keys of nested mappings in the order that they had: jsonb sorts them, which nobody meant."""
    return {name: _ordered(before.get(name), value) for name, value in after.items()}


def _ordered(before: Any, after: Any) -> Any:
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*(name for name in before if name in after), *(name for name in after if name not in before)]
        return {name: _ordered(before.get(name), after[name]) for name in names}
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [_ordered(old, new) for old, new in zip(before, after, strict=True)]
    return after


def _fault(change: SqlChange, line: int, message: str, *hints: str) -> ConfigError:
    return ConfigError([Issue(Place(change.shown, line), message, hints)])
