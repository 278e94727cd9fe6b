"""What statements for the lake may say, and what each of them makes of its tables and views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlglot import exp

from platform_core.control.ddl_alter import ALTERATIONS, altered
from platform_core.control.ddl_catalog import Catalog, Maker, Shape, column_of
from platform_core.control.ddl_columns import check_column_names, column_from, text_of
from platform_core.control.ddl_files import Statement
from platform_core.control.ddl_names import lake_name, own_name
from platform_core.control.ddl_parsing import SqlFault, body_of
from platform_core.control.ddl_properties import checked_properties
from platform_core.specs.ddl import (
    CommentColumn,
    CommentTable,
    CommentView,
    CreateTable,
    CreateView,
    DropTable,
    DropView,
    Meaning,
    TableColumn,
)
from platform_core.specs.sql import SqlError, parameters, qualified, referenced_tables
from platform_core.specs.table import TableRef

_DIALECT = "duckdb"
_ALLOWED = "CREATE TABLE, CREATE VIEW, ALTER TABLE, COMMENT ON, DROP TABLE, DROP VIEW"

Widens = Callable[[object, object], bool]
"""Whether every value of the first lake type has its place in the second."""

Columns = Callable[[str, Catalog], tuple[TableColumn, ...] | None]
"""Columns of a view's SELECT; None where a table that it reads was not built yet. Raises SqlFault."""


@dataclass(frozen=True, kw_only=True)
class LakeRules:
    """What checking a statement needs of the rooms that know the lake's types and its engine."""

    widens: Widens
    columns: Columns

    def meaning(self, statement: Statement, *, workstream: str, catalog: Catalog) -> Meaning:
        """What a statement does; the catalog then shows the schema after it.

        Raises:
            SqlFault: it may not be said here, or does not fit the schema; line 0 means its first line.
        """
        node = statement.node
        match node:
            case exp.Create(kind="TABLE"):
                return _create_table(node, workstream, catalog)
            case exp.Create(kind="VIEW"):
                return self._create_view(node, statement.sql, workstream, catalog)
            case exp.Drop(kind="TABLE"):
                return _drop_table(node, workstream, catalog)
            case exp.Drop(kind="VIEW"):
                return _drop_view(node, workstream, catalog)
            case exp.Comment():
                return _comment(node, workstream, catalog)
            case exp.Alter(kind="TABLE"):
                meaning = altered(node, workstream=workstream, catalog=catalog, widens=self.widens)
                self._check_readers(own_name(node.this, workstream), catalog)
                return meaning
        said = " ".join(statement.sql.split()[:2]).upper()
        if said == "ALTER TABLE":
            raise SqlFault(
                "this ALTER TABLE is not known, or says several things at once",
                "write a statement for each change; ADD COLUMN, and DROP COLUMN, may be repeated behind commas",
                f"known: {ALTERATIONS}",
            )
        raise SqlFault(f"a migration of the lake cannot say {said}", f"allowed: {_ALLOWED}")

    def _create_view(self, node: exp.Create, sql: str, workstream: str, catalog: Catalog) -> Meaning:
        if isinstance(node.this, exp.Schema):
            raise SqlFault("a view has no list of columns here", "name the columns in its SELECT: SELECT a AS b")
        comment = ""
        for each in _properties(node):
            if not isinstance(each, exp.SchemaCommentProperty):
                raise SqlFault(
                    f"a view of the lake cannot be {each.sql(dialect=_DIALECT)}", "write CREATE VIEW … AS SELECT …"
                )
            comment = text_of(each.this)
        ref = _made_here(own_name(node.this, workstream), catalog)
        before = catalog.find(ref)
        if before is not None and not before.is_view:
            raise SqlFault(f"'{ref}' is a table, so it cannot be a view", "choose another name")
        if before is not None and node.args.get("exists"):
            raise SqlFault("IF NOT EXISTS hides what a migration does", "write CREATE OR REPLACE VIEW, or CREATE VIEW")
        if before is not None and not node.args.get("replace"):
            raise SqlFault(f"view '{ref}' exists already", "write CREATE OR REPLACE VIEW")
        try:
            body = qualified(body_of(sql, dialect=_DIALECT), workstream=workstream)
            reads = referenced_tables(body, workstream=workstream)
            given = parameters(body)
        except SqlError as error:
            raise SqlFault(error.message, line=max(error.line - 1, 0) + _line_of_body(sql)) from None
        if given:
            raise SqlFault(f"a view has no parameters: ${given[0]}", "put the value in")
        _check_reads(ref, reads, catalog)
        columns = self.columns(body, catalog)
        catalog.put(ref, Shape(is_view=True, columns=columns, reads=reads, sql=body))
        self._check_readers(ref, catalog)
        unknown = "its columns were not checked: a table that it reads was not built yet"
        return Meaning(
            change=CreateView(table=ref, sql=body, reads=reads, comment=comment),
            summary=f"{'replace' if before else 'create'} view {ref} over {', '.join(map(str, reads)) or 'no table'}",
            notes=() if columns is not None else (unknown,),
        )

    def _check_readers(self, ref: TableRef, catalog: Catalog) -> None:
        """Views that read what was changed must still be right, and those that read these."""
        for view in catalog.readers(ref):
            shape = catalog.view(view)
            try:
                columns = self.columns(shape.sql, catalog)
            except SqlFault as fault:
                raise SqlFault(
                    f"view '{view}' reads '{ref}' and would fail: {fault.message}",
                    *fault.hints,
                    f"drop {view} before, and create it again behind",
                ) from None
            catalog.put(view, Shape(is_view=True, columns=columns, reads=shape.reads, sql=shape.sql))
            self._check_readers(view, catalog)


def touched(statement: Statement, *, workstream: str) -> TableRef | None:
    """The table or view that a statement is about, whatever the schema; None where it names none of its own."""
    node = statement.node
    try:
        match node:
            case exp.Create(kind="TABLE" | "VIEW"):
                named = node.this.this if isinstance(node.this, exp.Schema) else node.this
                return own_name(named, workstream)
            case exp.Drop(kind="TABLE" | "VIEW"):
                return own_name(_one(node), workstream)
            case exp.Alter(kind="TABLE"):
                return own_name(node.this, workstream)
            case exp.Comment() if node.args.get("kind") == "COLUMN":
                return _column_of_comment(node.this, workstream)[0]
            case exp.Comment():
                return own_name(node.this, workstream)
    except SqlFault:
        return None
    return None


def _create_table(node: exp.Create, workstream: str, catalog: Catalog) -> Meaning:
    if node.args.get("replace"):
        raise SqlFault("CREATE OR REPLACE TABLE would drop the rows", "write DROP TABLE and CREATE TABLE")
    if node.args.get("exists"):
        raise SqlFault("IF NOT EXISTS hides what a migration does", "write CREATE TABLE: it is made once, and recorded")
    if node.expression is not None:
        raise SqlFault("a migration makes empty tables", "let a step write the rows: its SQL is the SELECT")
    if not isinstance(node.this, exp.Schema):
        raise SqlFault("CREATE TABLE needs its columns", "CREATE TABLE gold.stations (station_id BIGINT NOT NULL, …)")
    ref = _made_here(own_name(node.this.this, workstream), catalog)
    found = catalog.find(ref)
    if found is not None and found.columns is not None:
        what = "view" if found.is_view else "table"
        raise SqlFault(
            f"{what} '{ref}' exists already", f"columns: {', '.join(found.names)}", "change it with ALTER TABLE"
        )
    columns = tuple(column_from(each) for each in node.this.expressions)
    check_column_names([column.name for column in columns])
    partition_by, comment, properties = _table_properties(node, columns)
    catalog.put(ref, Shape(columns=columns, partition_by=partition_by, properties=properties))
    parts = f", partitioned by {', '.join(partition_by)}" if partition_by else ""
    plural = "column" if len(columns) == 1 else "columns"
    return Meaning(
        change=CreateTable(
            table=ref, columns=columns, partition_by=partition_by, comment=comment, properties=properties
        ),
        summary=f"create table {ref} ({len(columns)} {plural}{parts})",
    )


def _table_properties(
    node: exp.Create, columns: tuple[TableColumn, ...]
) -> tuple[tuple[str, ...], str, dict[str, str]]:
    partition_by: tuple[str, ...] = ()
    comment = ""
    given: dict[str, str] = {}
    for each in _properties(node):
        match each:
            case exp.FileFormatProperty() if each.name.upper() == "DELTA":
                continue
            case exp.PartitionedByProperty():
                partition_by = _partition_columns(each, columns)
            case exp.SchemaCommentProperty():
                comment = text_of(each.this)
            case exp.Property() if isinstance(each.this, exp.Literal):
                given[each.name] = text_of(each.args["value"])
            case _:
                raise SqlFault(
                    f"a table of the lake cannot be {each.sql(dialect=_DIALECT)}",
                    "behind the columns may stand: PARTITIONED BY (…), COMMENT '…', TBLPROPERTIES ('…' = '…')",
                )
    return partition_by, comment, checked_properties(given)


def _partition_columns(node: exp.PartitionedByProperty, columns: tuple[TableColumn, ...]) -> tuple[str, ...]:
    import pyarrow as pa

    named = node.this.expressions if isinstance(node.this, (exp.Schema, exp.Tuple)) else [node.this]
    shape = Shape(columns=columns)
    found = []
    for each in named:
        if not isinstance(each, (exp.Identifier, exp.Column)):
            raise SqlFault("PARTITIONED BY names columns, not expressions", "add a column for it")
        column = next((known for known in columns if known.name.lower() == each.name.lower()), None)
        if column is None:
            raise SqlFault(f"PARTITIONED BY: no column '{each.name}'", f"columns: {', '.join(shape.names)}")
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
            raise SqlFault(f"PARTITIONED BY: column '{column.name}' is {column.type}", "partition by a plain value")
        found.append(column.name)
    if len(found) == len(columns):
        raise SqlFault("PARTITIONED BY names every column", "at least one column must be in the files")
    return tuple(dict.fromkeys(found))


def _drop_table(node: exp.Drop, workstream: str, catalog: Catalog) -> Meaning:
    ref = _made_here(own_name(_one(node), workstream), catalog)
    if catalog.makers.get(ref) is not None:
        raise SqlFault(f"'{ref}' is written by what makes it, which would make it again", "remove the step first")
    exists = bool(node.args.get("exists"))
    if catalog.find(ref) is None and exists:
        return Meaning(change=DropTable(table=ref, exists=True), summary=f"drop table {ref}, which is not there")
    catalog.table(ref)
    if readers := catalog.readers(ref):
        raise SqlFault(f"view '{readers[0]}' reads '{ref}'", f"drop {readers[0]} before")
    catalog.remove(ref)
    return Meaning(
        change=DropTable(table=ref, exists=exists), summary=f"drop table {ref}", destroys=f"table {ref} and its history"
    )


def _drop_view(node: exp.Drop, workstream: str, catalog: Catalog) -> Meaning:
    ref = own_name(_one(node), workstream)
    exists = bool(node.args.get("exists"))
    if catalog.find(ref) is None and exists:
        return Meaning(change=DropView(table=ref, exists=True), summary=f"drop view {ref}, which is not there")
    catalog.view(ref)
    if readers := catalog.readers(ref):
        raise SqlFault(f"view '{readers[0]}' reads '{ref}'", f"drop {readers[0]} before")
    catalog.remove(ref)
    return Meaning(change=DropView(table=ref, exists=exists), summary=f"drop view {ref}", destroys=f"view {ref}")


def _one(node: exp.Drop) -> exp.Expression:
    named = node.args.get("tables") or [node.this]
    if len(named) != 1 or named[0] is None:
        raise SqlFault("DROP names one table or view at a time", "write a statement for each")
    if node.args.get("cascade"):
        raise SqlFault("CASCADE hides what else goes", "drop the views that read it first, one by one")
    found: exp.Expression = named[0]
    return found


def _comment(node: exp.Comment, workstream: str, catalog: Catalog) -> Meaning:
    text = text_of(node.expression)
    kind = str(node.args.get("kind"))
    if kind == "COLUMN":
        ref, name = _column_of_comment(node.this, workstream)
        shape = catalog.table(ref)
        column = column_of(shape, name, of=ref)
        return Meaning(
            change=CommentColumn(table=ref, column=column.name, comment=text),
            summary=f"comment on column {ref}.{column.name}",
        )
    if kind not in ("TABLE", "VIEW"):
        raise SqlFault(f"COMMENT ON {kind} is not known here", "COMMENT ON TABLE, VIEW or COLUMN")
    ref = own_name(node.this, workstream)
    if kind == "VIEW":
        catalog.view(ref)
        return Meaning(change=CommentView(table=ref, comment=text), summary=f"comment on view {ref}")
    catalog.table(ref)
    return Meaning(change=CommentTable(table=ref, comment=text), summary=f"comment on table {ref}")


def _column_of_comment(node: exp.Expression, workstream: str) -> tuple[TableRef, str]:
    parts = [part.name for part in node.parts] if isinstance(node, exp.Column) else []
    if len(parts) not in (3, 4):
        raise SqlFault("COMMENT ON COLUMN needs the table", "COMMENT ON COLUMN gold.stations.name IS '…'")
    *table, name = parts
    return lake_name(".".join(table), workstream), name


def _properties(node: exp.Create) -> list[exp.Expression]:
    if node.args.get("unique") or node.args.get("clone"):
        raise SqlFault("a table of the lake is made from its columns", "CREATE TABLE name (columns)")
    found = node.args.get("properties")
    return list(found.expressions) if found is not None else []


def _made_here(ref: TableRef, catalog: Catalog) -> TableRef:
    """A name that a migration may give; bronze is the ingestion's."""
    if ref.layer == "bronze" or catalog.makers.get(ref) is Maker.INGESTION:
        raise SqlFault(f"'{ref}': bronze tables are made by ingestion alone", "use silver, gold or a layer of your own")
    return ref


def _check_reads(ref: TableRef, reads: tuple[TableRef, ...], catalog: Catalog) -> None:
    for read in reads:
        if read == ref:
            raise SqlFault(f"view '{ref}' reads itself")
        if catalog.readable(read) is None:
            # Raises, with what is known.
            catalog.table(read)
        if ref in _behind(read, catalog):
            raise SqlFault(f"view '{ref}' reads '{read}', which reads '{ref}'", "take one of them away")


def _behind(ref: TableRef, catalog: Catalog) -> set[TableRef]:
    """Everything that a view reads, and what that reads."""
    found: set[TableRef] = set()
    waiting = [ref]
    while waiting:
        shape = catalog.readable(waiting.pop())
        for read in shape.reads if shape is not None else ():
            if read not in found:
                found.add(read)
                waiting.append(read)
    return found


def _line_of_body(sql: str) -> int:
    """Lines of the statement before its SELECT."""
    body = body_of(sql, dialect=_DIALECT)
    return sql.count("\n", 0, len(sql) - len(body))
