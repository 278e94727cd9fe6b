"""Lets through what changes rows of control tables, and nothing else, whatever it is dressed up as.

A statement is checked as the tree that it parses to, against lists of what is allowed: kinds of nodes, their parts,
functions, types, tables and columns. What is run is written anew from that tree, so that nothing that a database
reads otherwise than the parser reaches it: comments, quotes, dollar quotes, escapes, odd identifiers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from platform_core.control.ddl_parsing import SqlFault
from platform_core.control.report import excerpt
from platform_core.control.reviewed_sql.allowed import ALL_NODES, FUNCTIONS, PARTS, STATEMENTS, TYPES
from platform_core.control.store.codec import codec, identity_columns
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.tables import PROVENANCE
from platform_core.control.tables import SCHEMA

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_EXCLUDED = "excluded"
_PLACES = {"postgres": SCHEMA, "sqlite": None}
"""Schema of the control tables by dialect."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A statement that may be run.

    Args:
        kind: of the control table that it changes.
        columns: that it writes; of a DELETE none.
        sql: the statement, written anew; it gives the location and the identity of each row that it met.
    """

    kind: str
    columns: frozenset[str]
    sql: str


def checked(node: exp.Expression, *, dialect: str) -> Checked:
    """A statement as it may be run.

    Args:
        node: one statement, as it was parsed.
        dialect: ``sqlite`` or ``postgres``.

    Raises:
        SqlFault: it is none of INSERT, UPDATE and DELETE on a control table, or does more than that.
    """
    guard = _Guard(node.copy(), dialect)
    kind = guard.check()
    columns = frozenset(each.name if each.quoted else each.name.lower() for each in guard.written())
    guard.give_rows(kind)
    sql = guard.node.sql(dialect=dialect, comments=False)
    _check_stable(sql, dialect)
    return Checked(kind=kind, columns=columns, sql=sql)


class _Guard:
    """Looks at one statement."""

    def __init__(self, node: exp.Expression, dialect: str) -> None:
        self.node = node
        self.dialect = dialect

    def check(self) -> str:
        """Check all of it; the kind of control table that it changes."""
        parts = STATEMENTS.get(type(self.node))
        if parts is None:
            raise _refused(f"{_said(self.node)} has no place in a reviewed change", _ALLOWED)
        if self.node.args.get("returning"):
            raise _refused("RETURNING gives rows to nobody", "remove it; edp sql plan shows each row that changes")
        self._check_parts(self.node, parts)
        target = self._target()
        kind = self._table(target, known=(), written=True)
        for name, query in self._queries():
            self._check_reading(query, known=name)
        self._check_columns(kind)
        for each in self.node.walk():
            self._check_node(each)
        self._resolve(target)
        return kind

    def give_rows(self, kind: str) -> None:
        """Let the statement say which rows it met."""
        target = self._target()
        # SQLite knows only the target there, and not by its alias; in PostgreSQL two tables may have the same column.
        owner = (target.alias or target.name) if self.dialect == "postgres" else None
        names = identity_columns(kind)
        columns = [exp.column(exp.to_identifier(name, quoted=True), table=owner) for name in names]
        self.node.set("returning", exp.Returning(expressions=columns))

    def _target(self) -> exp.Table:
        target = self.node.this
        if isinstance(self.node, exp.Insert):
            if not isinstance(target, exp.Schema):
                raise _refused("an INSERT names its columns", "write INSERT INTO <table> (<column>, …)")
            target = target.this
        if not isinstance(target, exp.Table):
            raise _refused("it is not clear which table is changed", _ALLOWED)
        return target

    def _queries(self) -> Iterator[tuple[tuple[str, ...], exp.Expression]]:
        """Everything that reads, with the names of the queries in front that it may read from."""
        names: list[str] = []
        if (front := self.node.args.get("with_")) is not None:
            for each in front.expressions:
                name = each.alias
                self._check_word(each.args["alias"].this)
                if not isinstance(each.this, (exp.Select, exp.SetOperation, exp.Values)):
                    raise _refused(f"WITH {excerpt(name)} does more than read", "a statement changes one control table")
                if name.lower() in {*KINDS, _EXCLUDED}:
                    raise _refused(f"'{excerpt(name)}' is a control table; give the query another name")
                yield tuple(names), each.this
                names.append(name.lower())
        target = self._target()
        for part, value in self.node.args.items():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, exp.Expression) and part != "with_" and each is not target:
                    yield tuple(names), each

    def _check_reading(self, node: exp.Expression, *, known: tuple[str, ...]) -> None:
        """Every table that is read is a control table, or a query in front of the statement."""
        target = self._target()
        if node.find(exp.With) is not None:
            raise _refused("WITH stands inside of a query", "write it in front of the statement")
        for table in node.find_all(exp.Table):
            if table is not target:
                self._table(table, known=known, written=False)

    def _table(self, table: exp.Table, *, known: Collection[str], written: bool) -> str:
        """The kind of control table that a table is."""
        if isinstance(table.this, exp.Func):
            # A function that gives rows; which ones may is checked with all functions.
            return ""
        if not isinstance(table.this, exp.Identifier):
            raise _refused("it is not clear which table is meant", _ALLOWED)
        self._check_word(table.this)
        name: str = table.name.lower()
        db = table.args.get("db")
        if table.args.get("catalog") is not None or (db is not None and db.name.lower() != SCHEMA):
            raise _refused(f"'{excerpt(table.sql(comments=False))}' lies in another schema", _ALLOWED)
        if db is None and name in known:
            return name
        if name not in KINDS or (table.this.quoted and table.name != name):
            shown = excerpt(table.name)
            raise _refused(
                f"'{shown}' is no control table that may be {'changed' if written else 'read'}",
                f"control tables: {', '.join(KINDS)}",
            )
        self._resolve(table)
        return name

    def _resolve(self, table: exp.Table) -> None:
        """Name a control table in full, so that no other of its name can be meant."""
        schema = _PLACES[self.dialect]
        table.set("this", exp.to_identifier(table.name.lower(), quoted=True))
        table.set("db", exp.to_identifier(schema, quoted=True) if schema else None)

    def _check_columns(self, kind: str) -> None:
        """Columns that are written are those of the spec, and the one that says whose the row is."""
        own = {"location", *codec(KINDS[kind]).names}
        for identifier in self.written():
            self._check_word(identifier)
            name = identifier.name
            found = name if identifier.quoted else name.lower()
            if found in PROVENANCE:
                raise _refused(f"'{found}' says where a row comes from, and is written by the platform", "leave it out")
            if found == "workstream" and found not in own:
                raise _refused(f"'workstream' of table {kind} is filled in by the platform", "leave it out")
            if found not in own:
                raise _refused(f"table {kind} has no column '{excerpt(name)}'", f"columns: {', '.join(sorted(own))}")

    def written(self) -> Iterator[exp.Identifier]:
        """Columns that it writes."""
        if isinstance(self.node, exp.Insert):
            yield from (_identifier(each) for each in self.node.this.expressions)
            conflict = self.node.args.get("conflict")
            if conflict is not None:
                yield from _assigned(conflict.expressions)
        elif isinstance(self.node, exp.Update):
            yield from _assigned(self.node.expressions)

    def _check_node(self, node: exp.Expression) -> None:
        kind = type(node)
        if kind in PARTS:
            self._check_parts(node, PARTS[kind])
        if kind is exp.Anonymous:
            name = str(node.this).lower()
            if name not in FUNCTIONS[self.dialect]:
                raise _unknown_function(name)
        elif kind is exp.Var:
            # Words that the parser keeps as they are: what to do on a conflict, a side of a join.
            if node.name.upper() not in ("DO NOTHING", "DO UPDATE"):
                raise _refused(f"'{excerpt(node.name)}' is not known here")
        elif kind is exp.DataType:
            if node.this not in TYPES:
                raise _refused(f"type {excerpt(node.sql(dialect=self.dialect))} is not known here", _TYPES_HINT)
        elif kind is exp.Identifier:
            self._check_word(node)
        elif kind not in ALL_NODES or (kind in STATEMENTS and node is not self.node):
            if isinstance(node, exp.Func):
                raise _unknown_function(node.sql_name().lower())
            raise _refused(f"{_said(node)} has no place in a reviewed change", _ALLOWED)

    def _check_parts(self, node: exp.Expression, allowed: frozenset[str]) -> None:
        for name, value in node.args.items():
            if value and name not in allowed:
                raise _refused(f"{_said(node)} has a part that has no place here: {_part(name)}", _ALLOWED)

    def _check_word(self, identifier: exp.Expression) -> None:
        if not isinstance(identifier, exp.Identifier):
            raise _refused("a name is written as one word", "letters, digits and _")
        if not _WORD.fullmatch(identifier.name):
            raise _refused(
                f"name '{excerpt(identifier.name)}' is not written in letters, digits and _", "no other is needed"
            )


_ALLOWED = "a change holds INSERT, UPDATE and DELETE on control tables: " + ", ".join(KINDS)
_TYPES_HINT = "types: text, varchar, smallint, int, bigint, double precision, numeric, boolean, json, jsonb"


def _assigned(expressions: list[Any]) -> Iterator[exp.Identifier]:
    for each in expressions:
        if not isinstance(each, exp.EQ):
            raise _refused("an UPDATE sets columns", "write SET <column> = <value>, …")
        left = each.this
        for column in left.expressions if isinstance(left, exp.Tuple) else [left]:
            yield _identifier(column)


def _identifier(node: exp.Expression) -> exp.Identifier:
    """The name of a column that is written."""
    if isinstance(node, exp.Identifier):
        return node
    if isinstance(node, exp.Column) and not node.args.get("table") and isinstance(node.this, exp.Identifier):
        return node.this
    raise _refused("a column that is written is named alone", "write SET <column> = <value>")


def _check_stable(sql: str, dialect: str) -> None:
    """Make sure that the text that is run reads as what was checked."""
    logger = logging.getLogger("sqlglot")
    before, logger.disabled = logger.disabled, True
    try:
        again = sqlglot.parse(sql, dialect=dialect)
    except SqlglotError:
        again = []
    finally:
        logger.disabled = before
    if len(again) != 1 or again[0] is None or again[0].sql(dialect=dialect, comments=False) != sql:
        raise _refused("is written in a way that cannot be read for sure", "write it in plain SQL")


def _said(node: exp.Expression) -> str:
    if isinstance(node, exp.Command):
        word: str = str(node.this)
        return excerpt(word.upper())
    words: str = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__)
    return words.upper()


def _part(name: str) -> str:
    return name.strip("_").replace("_", " ")


def _unknown_function(name: str) -> SqlFault:
    return _refused(
        f"function {excerpt(name)} is not among those that a reviewed change may call",
        "those compute and do nothing else: coalesce, concat, lower, replace, upper, json and jsonb functions, …",
    )


def _refused(message: str, *hints: str) -> SqlFault:
    return SqlFault(message, *hints)
