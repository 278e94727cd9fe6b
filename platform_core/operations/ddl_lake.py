"""Migrations of the lake: what is there now, which columns a view has, and the change of one statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from sqlglot import exp

from platform_core.control.ddl_catalog import Catalog, Shape
from platform_core.control.ddl_files import Migration, Statement
from platform_core.control.ddl_lake import LakeRules, touched
from platform_core.control.ddl_parsing import SqlFault
from platform_core.errors import SchemaError, StepError
from platform_core.lake.columns import lake_schema, widened
from platform_core.lake.table_changes import is_made, make, read_table
from platform_core.lake.views import View, ViewReader, is_view_made, make_view, read_view
from platform_core.operations.platform import Platform
from platform_core.plugins.interfaces import TableReader
from platform_core.specs.ddl import (
    Change,
    CommentView,
    CreateTable,
    CreateView,
    DropTable,
    DropView,
    Meaning,
    RunStatement,
    TableColumn,
    arrow_fields,
)
from platform_core.specs.sql import referenced_tables
from platform_core.specs.table import TableRef


@dataclass(frozen=True)
class LakeTarget:
    """The lake of one environment, as migrations see it."""

    platform: Platform

    def live(self, ref: TableRef) -> Shape | None:
        """The table or view that is there now; None where there is none.

        Raises:
            StorageError: the store cannot be read.
        """
        return self._at(ref, self.platform.lake.table(ref))

    def shared(self, ref: TableRef) -> Shape | None:
        """The shared table or view, which a person's views may read; None where there is none.

        Raises:
            StorageError: the store cannot be read.
        """
        uri = self.platform.lake.shared_table(ref)
        return None if uri is None else self._at(ref, uri)

    def _at(self, ref: TableRef, uri: str) -> Shape | None:
        options = self.platform.lake.storage_options
        table = read_table(uri, storage_options=options)
        if table is not None:
            return Shape(
                columns=table.columns,
                partition_by=table.partition_by,
                constraints=table.constraints,
                properties=table.properties,
                locked=table.locked,
                features=table.features,
            )
        view = read_view(ref, uri, storage_options=options)
        return None if view is None else Shape(is_view=True, columns=None, reads=view.reads, sql=view.sql)

    def rules(self) -> LakeRules:
        """How statements are checked."""
        return LakeRules(widens=_widens, columns=self._columns)

    def meaning(self, statement: Statement, *, migration: Migration, catalog: Catalog) -> Meaning:
        """What a statement does; SqlFault where it may not be said, or does not fit."""
        return self.rules().meaning(statement, workstream=migration.workstream, catalog=catalog)

    def is_made(self, migration: Migration, statement: Statement) -> bool:
        """Whether a statement has made its change already, as the lake itself tells.

        Raises:
            MigrationError: another text of the same statement has.
            StorageError: the store cannot be read.
        """
        ref = touched(statement, workstream=migration.workstream)
        if ref is None:
            return False
        lake, stamp = self.platform.lake, migration.stamp(statement)
        uri, options = lake.table(ref), lake.storage_options
        drops = isinstance(statement.node, exp.Drop)
        if _of_view(statement):
            view_change = DropView(table=ref) if drops else CommentView(table=ref, comment="")
            return is_view_made(view_change, uri=uri, storage_options=options, stamp=stamp)
        change = DropTable(table=ref) if drops else CreateTable(table=ref, columns=())
        return is_made(change, uri=uri, storage_options=options, stamp=stamp)

    def make(self, change: Change, *, migration: Migration, statement: Statement) -> str:
        """Make a change; returns what became of it, in words.

        Raises:
            MigrationError: it does not fit what is there by now; nothing was changed.
            StorageError: the store refused.
        """
        if isinstance(change, RunStatement):
            raise TypeError("a statement of a database is not made in the lake")
        lake, stamp = self.platform.lake, migration.stamp(statement)
        uri, options = lake.table(change.table), lake.storage_options
        if isinstance(change, (CreateView, DropView, CommentView)):
            return "" if make_view(change, uri=uri, storage_options=options, stamp=stamp) else "made already"
        done = make(change, uri=uri, storage_options=options, stamp=stamp)
        if not done.committed:
            return "made already"
        rows = f", {done.rows:,} rows written anew" if done.rows else ""
        return f"version {done.version}{rows}" if done.version is not None else "moved aside"

    def _columns(self, sql: str, catalog: Catalog) -> tuple[TableColumn, ...] | None:
        """Columns of a view's SELECT, as the engine finds them over empty tables."""
        readers = self._readers(referenced_tables(sql, workstream=""), catalog)
        if readers is None:
            return None
        try:
            rows = self.platform.engine.select(sql, tables=readers, variables={}).read_all()
            kept = lake_schema(rows.schema, of="the view")
        except (StepError, SchemaError) as error:
            first, *more = str(error).splitlines()
            raise SqlFault(first, *(line.strip() for line in more)) from None
        return tuple(TableColumn(field.name, field.type) for field in kept)

    def _readers(self, refs: tuple[TableRef, ...], catalog: Catalog) -> dict[TableRef, TableReader] | None:
        found: dict[TableRef, TableReader] = {}
        for ref in refs:
            shape = catalog.readable(ref)
            if shape is None:
                catalog.table(ref)
                return None
            if shape.is_view:
                inputs = self._readers(shape.reads, catalog)
                if inputs is None:
                    return None
                found[ref] = ViewReader(_view(ref, shape), inputs, self._select)
            elif shape.columns is None:
                return None
            else:
                found[ref] = _Empty(pa.schema([*map(_plain, shape.columns)]))
        return found

    def _select(self, sql: str, tables: Mapping[TableRef, TableReader]) -> pa.RecordBatchReader:
        return self.platform.engine.select(sql, tables=tables, variables={})


@dataclass(frozen=True)
class _Empty(TableReader):
    """A table without rows."""

    columns: pa.Schema = field(repr=False)

    @property
    def version(self) -> int:
        return 0

    @property
    def schema(self) -> pa.Schema:
        return self.columns

    def read(self, *, columns: tuple[str, ...] | None = None) -> pa.RecordBatchReader:
        table = self.columns.empty_table()
        return (table if columns is None else table.select(list(columns))).to_reader()


def _plain(column: TableColumn) -> pa.Field:
    return arrow_fields((TableColumn(column.name, column.type),))[0]


def _view(ref: TableRef, shape: Shape) -> View:
    return View(table=ref, sql=shape.sql, reads=shape.reads, comment="", revision=0, mark=0, stamp="")


def _of_view(statement: Statement) -> bool:
    return str(statement.node.args.get("kind")) == "VIEW"


def _widens(old: object, new: object) -> bool:
    return widened(old, new) == new
