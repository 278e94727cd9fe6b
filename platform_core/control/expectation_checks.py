"""Checks what is expected of tables: conditions, queries, patterns, and columns as far as they are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from platform_core.control.documents import MAX_BYTES, PathPart
from platform_core.control.reading import Entry, Reading
from platform_core.control.report import Report, excerpt
from platform_core.specs.column_names import normalised
from platform_core.specs.expectation import ExpectationSpec
from platform_core.specs.expectation_tables import target_table
from platform_core.specs.ingestion import TECHNICAL_COLUMNS, IngestionSpec
from platform_core.specs.processing import ProcessingSpec
from platform_core.specs.table import TableRef

Columns = Mapping[TableRef, tuple[str, ...]]
"""All columns of a table, where its declaration tells them."""


def check_expectations(reading: Reading, report: Report) -> None:
    """Check every expectation of a location; tables that one reads are checked with all other references."""
    tables: list[Entry[Any]] = [*reading.ingestions, *reading.steps]
    asked = [entry for entry in tables if entry.spec.expectations]
    if not asked:
        return
    known = _known_columns(tables, asked, root=reading.root)
    for entry in asked:
        checker = _Checker(entry, known, report)
        for place, expectation in enumerate(entry.spec.expectations):
            checker.check(expectation, ("expectations", place))


class _Checker:
    """Looks at the expectations of one table."""

    def __init__(self, entry: Entry[Any], known: Columns, report: Report) -> None:
        self.entry = entry
        self.table: TableRef = entry.spec.ref
        self.known = known
        self.report = report

    def check(self, expectation: ExpectationSpec, path: tuple[PathPart, ...]) -> None:
        """Check one expectation, which stands at a path of the entry."""
        where = (*path, str(expectation.kind) if expectation.column is None else "column")
        self._columns(expectation.columns, self.table, where)
        if expectation.sql is not None and expectation.is_query:
            self._query(expectation.sql, (*path, "sql"))
        elif expectation.sql is not None:
            self._condition(expectation.sql, (*path, "sql"))
        if expectation.where is not None:
            self._condition(expectation.where, (*path, "where"))
        if expectation.matches is not None and (fault := pattern_fault(expectation.matches)):
            hint = "RE2 has no look-around and no back-references: https://github.com/google/re2/wiki/Syntax"
            self._complain((*path, "matches"), f"'matches' is no regular expression of RE2: {excerpt(fault)}", hint)
        if expectation.references is not None and (target := target_table(expectation, self.table)) is not None:
            self._columns((expectation.references.column,), target, (*path, "references", "column"))

    def _columns(self, names: Iterable[str], table: TableRef, path: tuple[PathPart, ...]) -> None:
        known = self.known.get(table)
        for name in names:
            if known is not None and name not in known and _lake_name(name) not in known:
                hints = self.report.choice(f"columns of {table}", name, known)
                self._complain(path, f"unknown column '{excerpt(name)}'", *hints)

    def _condition(self, text: str, path: tuple[PathPart, ...]) -> None:
        from sqlglot import exp

        from platform_core.specs.sql import SqlError, condition

        try:
            tree = condition(text)
        except SqlError as error:
            self._complain(path, f"'{path[-1]}': {error.message}")
            return
        except RecursionError:
            self._complain(path, f"'{path[-1]}' is nested too deeply")
            return
        known = self.known.get(self.table)
        for column in tree.find_all(exp.Column):
            # SQL names are the same in any case.
            if known is not None and column.name.lower() not in {name.lower() for name in known}:
                hints = self.report.choice(f"columns of {self.table}", column.name, known)
                self._complain(path, f"unknown column '{excerpt(column.name)}'", *hints)

    def _query(self, text: str, path: tuple[PathPart, ...]) -> None:
        from platform_core.specs.sql import SqlError, references

        try:
            tables, names = references(text, workstream=self.table.workstream)
        except SqlError as error:
            self._complain(path, f"'sql': {error.message}")
            return
        except RecursionError:
            self._complain(path, "'sql' is nested too deeply")
            return
        if names:
            self._complain(path, f"'sql': an expectation has no parameters, ${names[0]} is one")
        if self.table not in tables:
            self._complain(path, f"'sql' does not read {self.table}", "declare it on a table that it reads")

    def _complain(self, path: tuple[PathPart, ...], message: str, *hints: str) -> None:
        self.entry.complain(self.report, path, message, *hints)


def pattern_fault(pattern: str) -> str | None:
    """What RE2, as DuckDB has it, finds wrong with a pattern; None: nothing."""
    import duckdb

    with duckdb.connect() as connection:
        try:
            connection.execute("SELECT regexp_full_match('', $pattern)", {"pattern": pattern}).fetchall()
        except duckdb.Error as error:
            said = str(error).splitlines()[0]
            return said.partition("Error: ")[2] or said
    return None


def _known_columns(tables: Iterable[Entry[Any]], asked: Iterable[Entry[Any]], *, root: Path) -> Columns:
    wanted = {entry.spec.ref for entry in asked}
    for entry in asked:
        for expectation in entry.spec.expectations:
            if (target := target_table(expectation, entry.spec.ref)) is not None:
                wanted.add(target)
    found: dict[TableRef, tuple[str, ...]] = {}
    for entry in tables:
        if entry.spec.ref in wanted and (columns := _declared_columns(entry.spec, root)) is not None:
            found[entry.spec.ref] = columns
    return found


def _declared_columns(spec: IngestionSpec | ProcessingSpec, root: Path) -> tuple[str, ...] | None:
    """All columns of a table, if its declaration tells them."""
    if isinstance(spec, IngestionSpec):
        names = [_lake_name(name) for name in spec.select]
        return (*(name for name in names if name is not None), *TECHNICAL_COLUMNS) if names else None
    return None if spec.sql is None else _selected(root / spec.sql)


def _selected(file: Path) -> tuple[str, ...] | None:
    """Columns that a query gives; None where it does not name them all, or is wrong, which is said elsewhere."""
    from sqlglot import exp

    from platform_core.specs.sql import SqlError, select

    try:
        query = select(file.read_text(encoding="utf-8")) if file.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError, SqlError, RecursionError):
        return None
    if query is None or any(isinstance(each, exp.Star) or each.is_star for each in query.selects):
        return None
    names = tuple(query.named_selects)
    return names if all(names) else None


def _lake_name(name: str) -> str | None:
    try:
        return normalised(name)
    except ValueError:
        return None
