"""Tables and views that the migrations of a location make, as their files say; what is applied is not looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from platform_core.control.ddl_files import DDL_FOLDER, Migration, Statement, read_migrations
from platform_core.control.report import Report
from platform_core.specs.ddl import LAKE
from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    from sqlglot import exp


@dataclass(frozen=True)
class Declared:
    """What migrations of the lake make.

    Args:
        tables: that some migration creates and none drops.
        views: and what each of them reads.
    """

    tables: frozenset[TableRef] = frozenset()
    views: Mapping[TableRef, tuple[TableRef, ...]] = field(default_factory=dict)

    def has(self, ref: TableRef) -> bool:
        """Whether there is a table or view of this name."""
        return ref in self.tables or ref in self.views

    def below(self, refs: Iterable[TableRef]) -> tuple[TableRef, ...]:
        """The tables, views replaced by the tables that they are made from; each once, in order."""
        found: dict[TableRef, None] = {}
        seen: set[TableRef] = set()
        waiting = list(refs)
        while waiting:
            ref = waiting.pop(0)
            if ref in seen:
                continue
            seen.add(ref)
            if ref in self.views:
                waiting[:0] = self.views[ref]
            else:
                found[ref] = None
        return tuple(found)


def declared_by_migrations(root: Path, workstreams: Iterable[str]) -> Declared:
    """What the migrations of a location make; files with a fault are passed over: ``edp ddl plan`` tells of them.

    Args:
        root: folder of the location's package.
        workstreams: names that the location declares.
    """
    if not (root / DDL_FOLDER).is_dir():
        return Declared()
    tables: set[TableRef] = set()
    views: dict[TableRef, tuple[TableRef, ...]] = {}
    for migration in read_migrations(root, location="", workstreams=list(workstreams), report=Report(root)):
        for statement in migration.statements if migration.target == LAKE else ():
            _take(migration, statement, tables, views)
    return Declared(frozenset(tables), views)


@cache
def declared_cached(root: Path, workstreams: tuple[str, ...]) -> Declared:
    """As :func:`declared_by_migrations`, but read once a process."""
    return declared_by_migrations(root, workstreams)


def _take(
    migration: Migration, statement: Statement, tables: set[TableRef], views: dict[TableRef, tuple[TableRef, ...]]
) -> None:
    # Locations without migrations need no SQL parser.
    from sqlglot import exp

    from platform_core.control.ddl_lake import touched

    node = statement.node
    ref = touched(statement, workstream=migration.workstream)
    if ref is None:
        return
    if isinstance(node, exp.Create) and node.args["kind"] == "TABLE":
        tables.add(ref)
    elif isinstance(node, exp.Create) and node.args["kind"] == "VIEW":
        views[ref] = _reads(node, workstream=migration.workstream)
    elif isinstance(node, exp.Drop):
        tables.discard(ref)
        views.pop(ref, None)


def _reads(node: exp.Create, *, workstream: str) -> tuple[TableRef, ...]:
    from platform_core.specs.sql import SqlError, referenced_tables

    try:
        return referenced_tables(node.expression.sql(dialect="duckdb"), workstream=workstream)
    except (SqlError, AttributeError):
        return ()
