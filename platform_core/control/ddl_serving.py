"""What statements for a serving database (PostgreSQL) may say, and what each makes of its schema.

A workstream has a schema of its own there, named like it. What is checked here is written anew from the parsed tree,
so that what runs is what was checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlglot import exp
from sqlglot.errors import SqlglotError

from platform_core.control.ddl_catalog import Catalog, Shape, column_of
from platform_core.control.ddl_files import SERVING_DIALECT, Statement
from platform_core.control.ddl_parsing import SqlFault
from platform_core.specs.base import is_name
from platform_core.specs.ddl import Meaning, RunStatement
from platform_core.specs.table import TableRef

_ALLOWED = "CREATE TABLE, CREATE VIEW, CREATE INDEX, ALTER TABLE, COMMENT ON, DROP TABLE, DROP VIEW, DROP INDEX"
_CONSTRAINTS = (
    exp.NotNullColumnConstraint,
    exp.PrimaryKeyColumnConstraint,
    exp.UniqueColumnConstraint,
    exp.DefaultColumnConstraint,
    exp.CheckColumnConstraint,
    exp.GeneratedAsIdentityColumnConstraint,
    exp.Reference,
)
_TABLE_CONSTRAINTS = (
    exp.Constraint,
    exp.PrimaryKey,
    exp.UniqueColumnConstraint,
    exp.CheckColumnConstraint,
    exp.ForeignKey,
)
_OUTSIDE = re.compile(
    r"(pg_(?!typeof$)|lo_|dblink|set_config|current_setting|query_to_xml|table_to_xml|database_to_xml).*"
)
_STATEMENTS = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Command, exp.Copy, exp.Set, exp.Into, exp.Lock)

_WIDER = {
    "SMALLINT": ("INT", "BIGINT", "DECIMAL"),
    "INT": ("BIGINT", "DECIMAL", "DOUBLE PRECISION"),
    "BIGINT": ("DECIMAL",),
    "REAL": ("DOUBLE PRECISION",),
    "DATE": ("TIMESTAMP",),
}


@dataclass(frozen=True)
class ServingColumn:
    """A column of a serving table; its type as PostgreSQL writes it, None where it is not known."""

    name: str
    type: str | None
    nullable: bool = True


def meaning_in_database(
    statement: Statement,
    *,
    workstream: str,
    target: str,
    catalog: Catalog,
    schema: Callable[[str], str] = lambda workstream: workstream,
) -> Meaning:
    """What a statement does; the catalog then shows the schema after it.

    Args:
        target: name of the database, which begins the names in the catalog.
        schema: the schema of a workstream in the database: a person has one of their own.

    Raises:
        SqlFault: it may not be said, or does not fit the schema.
    """
    node = statement.node
    rules = _Rules(workstream, target, catalog)
    match node:
        case exp.Create(kind="TABLE"):
            summary, destroys = rules.create_table(node), ""
        case exp.Create(kind="VIEW"):
            summary, destroys = rules.create_view(node), ""
        case exp.Create(kind="INDEX"):
            summary, destroys = rules.create_index(node), ""
        case exp.Drop(kind="TABLE" | "VIEW" | "INDEX"):
            summary, destroys = rules.drop(node)
        case exp.Alter(kind="TABLE"):
            summary, destroys = rules.alter(node)
        case exp.Comment():
            summary, destroys = rules.comment(node), ""
        case _:
            said = " ".join(statement.sql.split()[:2]).upper()
            if said == "ALTER TABLE":
                raise SqlFault(
                    "this ALTER TABLE is not known, or says several things at once", "write a statement for each change"
                )
            raise SqlFault(f"a migration of a serving database cannot say {said}", f"allowed: {_ALLOWED}")
    _refuse_outside(node)
    sql = str(_placed(node, target=target, catalog=catalog, schema=schema).sql(dialect=SERVING_DIALECT, comments=False))
    return Meaning(change=RunStatement(sql=sql), summary=f"{target}: {summary}", destroys=destroys)


class _Rules:
    """Looks at one statement."""

    def __init__(self, workstream: str, target: str, catalog: Catalog) -> None:
        self._workstream = workstream
        self._target = target
        self._catalog = catalog

    def create_table(self, node: exp.Create) -> str:
        self._refuse_frills(node)
        if node.expression is not None or not isinstance(node.this, exp.Schema):
            raise SqlFault("a migration makes empty tables", "CREATE TABLE with columns; rows are served by a step")
        ref = self._own(node.this.this)
        self._refuse_existing(ref)
        columns: list[ServingColumn] = []
        for each in node.this.expressions:
            if isinstance(each, exp.ColumnDef):
                columns.append(self._column(each))
            elif not isinstance(each, _TABLE_CONSTRAINTS):
                raise SqlFault(f"a table cannot hold {each.key.upper()} here")
        shape = Shape(columns=tuple(columns))
        for each in node.this.expressions:
            self._check_columns_of(each, shape, ref)
        self._check_references(node, ref, shape)
        self._catalog.put(ref, shape)
        return f"create table {_shown(ref)} ({len(columns)} columns)"

    def create_view(self, node: exp.Create) -> str:
        self._refuse_frills(node, replace_is_fine=True)
        if isinstance(node.this, exp.Schema):
            raise SqlFault("a view has no list of columns here", "name the columns in its SELECT: SELECT a AS b")
        ref = self._own(node.this)
        before = self._catalog.find(ref)
        if before is not None and (not before.is_view or not node.args.get("replace")):
            self._refuse_existing(ref)
        body = node.expression
        if not isinstance(body, exp.Query):
            raise SqlFault("a view needs AS and a SELECT")
        reads = tuple(dict.fromkeys(self._read_tables(body)))
        names = self._columns_of_query(body, reads)
        self._catalog.put(
            ref, Shape(is_view=True, columns=tuple(ServingColumn(name, None) for name in names), reads=reads)
        )
        return f"{'replace' if before else 'create'} view {_shown(ref)}"

    def create_index(self, node: exp.Create) -> str:
        index = node.this
        if node.args.get("concurrently"):
            raise SqlFault("CONCURRENTLY cannot run inside a transaction", "leave it out: migrations are transactions")
        if not isinstance(index, exp.Index) or index.args.get("table") is None or not index.name:
            raise SqlFault("an index has a name and a table", "CREATE INDEX stations_by_city ON crm.stations (city)")
        self._refuse_exists_clause(node)
        ref = self._own(index.args["table"])
        self._check_columns_of(index, self._catalog.table(ref), ref)
        return f"create index {index.name} on {_shown(ref)}"

    def drop(self, node: exp.Drop) -> tuple[str, str]:
        named = node.args.get("tables") or [node.this]
        if len(named) != 1:
            raise SqlFault("DROP names one thing at a time", "write a statement for each")
        if node.args.get("cascade"):
            raise SqlFault("CASCADE hides what else goes", "drop the views that read it first, one by one")
        ref = self._own(named[0])
        kind = str(node.args["kind"]).lower()
        if kind == "index":
            return f"drop index {_shown(ref)}", f"index {_shown(ref)}"
        if self._catalog.find(ref) is None and node.args.get("exists"):
            return f"drop {kind} {_shown(ref)}, which is not there", ""
        if kind == "view":
            self._catalog.view(ref)
        else:
            self._catalog.table(ref)
        if readers := self._catalog.readers(ref):
            raise SqlFault(f"view '{_shown(readers[0])}' reads '{_shown(ref)}'", f"drop {_shown(readers[0])} before")
        self._catalog.remove(ref)
        return f"drop {kind} {_shown(ref)}", f"{kind} {_shown(ref)}"

    def comment(self, node: exp.Comment) -> str:
        kind = str(node.args.get("kind"))
        if kind == "COLUMN" and isinstance(node.this, exp.Column):
            parts = [part.name for part in node.this.parts]
            if len(parts) != 3:
                raise SqlFault("COMMENT ON COLUMN needs the table", f"{self._workstream}.stations.city")
            ref = self._ref(parts[0], parts[1])
            column = column_of(self._catalog.table(ref), parts[2], of=ref)
            return f"comment on column {_shown(ref)}.{column.name}"
        if kind not in ("TABLE", "VIEW"):
            raise SqlFault(f"COMMENT ON {kind} is not known here", "COMMENT ON TABLE, VIEW or COLUMN")
        ref = self._own(node.this)
        if kind == "TABLE":
            self._catalog.table(ref)
        else:
            self._catalog.view(ref)
        return f"comment on {kind.lower()} {_shown(ref)}"

    def alter(self, node: exp.Alter) -> tuple[str, str]:
        if node.args.get("exists"):
            raise SqlFault("IF EXISTS hides what a migration does", "leave it out")
        ref = self._own(node.this)
        said, destroyed = [], []
        for action in node.args.get("actions") or ():
            words, lost = self._action(action, ref)
            said.append(words)
            if lost:
                destroyed.append(lost)
        return f"change {_shown(ref)}: {', '.join(said)}", ", ".join(destroyed)

    def _action(self, action: exp.Expression, ref: TableRef) -> tuple[str, str]:
        shape = self._catalog.table(ref)
        columns = shape.columns or ()
        match action:
            case exp.ColumnDef():
                self._refuse_exists_clause(action)
                column = self._column(action)
                if column.name in shape.names:
                    raise SqlFault(f"table '{_shown(ref)}' has a column '{column.name}' already")
                self._catalog.change(ref, columns=(*columns, column))
                return f"add {column.name} {column.type}", ""
            case exp.RenameColumn():
                column = column_of(shape, action.this.name, of=ref)
                new = action.args["to"].name
                if new in shape.names:
                    raise SqlFault(f"table '{_shown(ref)}' has a column '{new}' already")
                self._change_column(ref, column, replace(column, name=new))
                return f"rename {column.name} to {new}", ""
            case exp.Drop() if action.args.get("kind") == "COLUMN":
                column = column_of(shape, (action.args.get("tables") or [action.this])[0].name, of=ref)
                self._refuse_cascade(action)
                self._catalog.change(ref, columns=tuple(each for each in columns if each is not column))
                return f"drop {column.name}", f"column {_shown(ref)}.{column.name}"
            case exp.Drop() if action.args.get("kind") == "CONSTRAINT":
                self._refuse_cascade(action)
                name = (action.args.get("tables") or [action.this])[0].name
                return f"drop constraint {name}", f"constraint {name} of {_shown(ref)}"
            case exp.AddConstraint():
                self._check_columns_of(action, shape, ref)
                self._check_references(action, ref, shape)
                return (
                    f"add constraint {', '.join(filter(None, (each.name for each in action.expressions)))}".rstrip(),
                    "",
                )
            case exp.AlterColumn():
                return self._alter_column(action, ref, shape)
        raise SqlFault(
            f"ALTER TABLE cannot say '{str(action.sql(dialect=SERVING_DIALECT))[:60]}' here",
            "known: ADD COLUMN, ALTER COLUMN, RENAME COLUMN, DROP COLUMN, ADD CONSTRAINT, DROP CONSTRAINT",
        )

    def _alter_column(self, action: exp.AlterColumn, ref: TableRef, shape: Shape) -> tuple[str, str]:
        column = column_of(shape, action.name, of=ref)
        where = f"{_shown(ref)}.{column.name}"
        if (type_ := action.args.get("dtype")) is not None:
            using = action.args.get("using")
            if using and not _is_cast_of(using, column.name):
                raise SqlFault("USING may only cast the column itself", f"USING {column.name}::{type_.sql()}")
            new = str(type_.sql(dialect=SERVING_DIALECT))
            self._change_column(ref, column, replace(column, type=new))
            if widens_in_database(column.type, new):
                return f"widen {column.name} to {new}", ""
            return f"change {column.name} from {column.type} to {new}", f"values of {where} that {new} does not have"
        if action.args.get("allow_null") is not None:
            nullable = bool(action.args["allow_null"])
            self._change_column(ref, column, replace(column, nullable=nullable))
            lost = f"the promise that {where} is never null" if nullable else ""
            return f"{'let' if nullable else 'never let'} {column.name} be null", lost
        if action.args.get("default") is not None or action.args.get("drop"):
            return f"default of {column.name}", ""
        raise SqlFault("ALTER COLUMN knows TYPE, SET and DROP NOT NULL, SET and DROP DEFAULT")

    def _change_column(self, ref: TableRef, old: ServingColumn, new: ServingColumn) -> None:
        columns = self._catalog.table(ref).columns or ()
        self._catalog.change(ref, columns=tuple(new if each is old else each for each in columns))

    def _column(self, node: exp.ColumnDef) -> ServingColumn:
        kind = node.args.get("kind")
        if kind is None:
            raise SqlFault(f"column '{node.name}' has no type")
        nullable = True
        for constraint in node.args.get("constraints") or ():
            inner = constraint.kind if isinstance(constraint, exp.ColumnConstraint) else constraint
            if not isinstance(inner, _CONSTRAINTS):
                raise SqlFault(f"column '{node.name}' cannot be {constraint.sql(dialect=SERVING_DIALECT)}")
            if isinstance(inner, (exp.NotNullColumnConstraint, exp.PrimaryKeyColumnConstraint)):
                nullable = bool(inner.args.get("allow_null"))
        if not is_name(node.name):
            raise SqlFault(f"column '{node.name}': lower case letters, digits and _, starting with a letter")
        return ServingColumn(node.name, str(kind.sql(dialect=SERVING_DIALECT)), nullable)

    def _own(self, node: Any) -> TableRef:
        parts = [part.name for part in node.parts] if isinstance(node, exp.Table) else []
        if len(parts) != 2:
            written = ".".join(parts) or str(node)
            raise SqlFault(
                f"'{written}' must be written schema.name", f"the schema of this workstream is {self._workstream}"
            )
        return self._ref(*parts)

    def _ref(self, schema: str, name: str) -> TableRef:
        if schema != self._workstream:
            raise SqlFault(
                f"'{schema}.{name}' is not in the schema of workstream '{self._workstream}'",
                f"a migration of '{self._workstream}' changes schema {self._workstream} alone",
            )
        if not is_name(name):
            raise SqlFault(f"'{schema}.{name}': names are lower case letters, digits and _, and start with a letter")
        return TableRef(self._target, schema, name)

    def _refuse_frills(self, node: exp.Create, *, replace_is_fine: bool = False) -> None:
        self._refuse_exists_clause(node)
        if node.args.get("replace") and not replace_is_fine:
            raise SqlFault("CREATE OR REPLACE TABLE is not known to PostgreSQL", "write DROP TABLE and CREATE TABLE")
        found = node.args.get("properties")
        if found is not None and found.expressions:
            words = found.expressions[0].sql(dialect=SERVING_DIALECT)
            raise SqlFault(f"a migration cannot say {words} of a table or view", "leave it out")

    @staticmethod
    def _refuse_exists_clause(node: exp.Expression) -> None:
        if node.args.get("exists"):
            raise SqlFault("IF NOT EXISTS hides what a migration does", "leave it out: it is made once, and recorded")

    @staticmethod
    def _refuse_cascade(node: exp.Expression) -> None:
        if node.args.get("cascade"):
            raise SqlFault("CASCADE hides what else goes", "drop what leans on it first")

    def _refuse_existing(self, ref: TableRef) -> None:
        if (found := self._catalog.find(ref)) is not None:
            what = "view" if found.is_view else "table"
            raise SqlFault(f"{what} '{_shown(ref)}' exists already", f"columns: {', '.join(found.names)}")

    def _read_tables(self, body: exp.Expression) -> Iterator[TableRef]:
        named = {cte.alias for cte in body.find_all(exp.CTE)}
        for table in body.find_all(exp.Table):
            parts = [part.name for part in table.parts]
            if len(parts) == 1 and parts[0] in named:
                continue
            if len(parts) != 2 or isinstance(table.this, exp.Func):
                raise SqlFault(f"'{'.'.join(parts)}' must be written schema.name")
            ref = TableRef(self._target, parts[0], parts[1])
            if self._catalog.readable(ref) is None:
                self._catalog.table(ref)
            yield ref

    def _columns_of_query(self, body: exp.Query, reads: tuple[TableRef, ...]) -> list[str]:
        from sqlglot.optimizer.qualify import qualify

        known: dict[str, dict[str, dict[str, str]]] = {}
        for ref in reads:
            shape = self._catalog.readable(ref)
            known.setdefault(ref.layer, {})[ref.name] = dict.fromkeys(shape.names if shape else (), "TEXT")
        try:
            done = qualify(body.copy(), dialect=SERVING_DIALECT, schema=known, quote_identifiers=False, identify=False)
        except SqlglotError as error:
            said = str(error).splitlines()[0]
            tables = [
                f"{_shown(ref)}: {', '.join(shape.names)}" for ref in reads if (shape := self._catalog.readable(ref))
            ]
            raise SqlFault(f"the view's SELECT does not fit its tables: {said}", *tables) from None
        return list(done.named_selects)

    def _check_columns_of(self, node: exp.Expression, shape: Shape, ref: TableRef) -> None:
        """Columns that a condition, key or index of a table names must be there."""
        if any(True for _ in node.find_all(exp.Query)):
            raise SqlFault("a condition or key cannot hold a SELECT")
        references = list(node.find_all(exp.Reference))
        beyond = {id(inner) for each in references for inner in each.walk()}
        for column in node.find_all(exp.Column):
            if id(column) not in beyond:
                column_of(shape, column.name, of=ref)
        for key in node.find_all(exp.PrimaryKey, exp.ForeignKey):
            for named in key.expressions:
                if isinstance(named, exp.Identifier):
                    column_of(shape, named.name, of=ref)

    def _check_references(self, node: exp.Expression, own: TableRef, shape: Shape) -> None:
        for reference in node.find_all(exp.Reference):
            target = reference.this
            table = target.this if isinstance(target, exp.Schema) else target
            ref = self._own(table)
            found = shape if ref == own else self._catalog.table(ref)
            if isinstance(target, exp.Schema):
                for named in target.expressions:
                    column_of(found, named.name, of=ref)


def widens_in_database(old: str | None, new: str) -> bool:
    """Whether PostgreSQL keeps every value when a column changes from one type to the other."""
    if old is None:
        return False
    before, after = _type(old), _type(new)
    if before is None or after is None:
        return False
    if (before.this, after.this) == (exp.DataType.Type.DECIMAL, exp.DataType.Type.DECIMAL):
        return _digits_fit(before, after)
    text = {exp.DataType.Type.VARCHAR, exp.DataType.Type.TEXT}
    if before.this in text and after.this in text:
        return _length(after) >= _length(before)
    names = [str(each.sql(dialect=SERVING_DIALECT)).partition("(")[0] for each in (before, after)]
    return names[1] in _WIDER.get(names[0], ()) and not after.expressions


def _placed(node: exp.Expression, *, target: str, catalog: Catalog, schema: Callable[[str], str]) -> exp.Expression:
    """The statement with each table in the schema where it lies.

    All that is changed is in the schema that ``schema`` gives. Only what the SELECT of a view reads may be a table that
    is everybody's, where the person has none.
    """
    placed = node.copy()
    body = placed.expression if isinstance(placed, exp.Create) and placed.args["kind"] == "VIEW" else None
    read = {id(each) for each in body.walk()} if body is not None else set()
    for each in placed.walk():
        name = each.args.get("db")
        if not isinstance(each, (exp.Table, exp.Column)) or name is None:
            continue
        if id(each) in read:
            table = each.name if isinstance(each, exp.Table) else each.table
            if catalog.find(TableRef(target, name.name, table)) is None:
                continue
        own = schema(name.name)
        if own != name.name:
            each.set("db", exp.to_identifier(own, quoted=True))
    return placed


def _type(text: str) -> exp.DataType | None:
    try:
        return exp.DataType.build(text, dialect=SERVING_DIALECT)
    except SqlglotError:
        return None


def _digits_fit(before: exp.DataType, after: exp.DataType) -> bool:
    if not after.expressions:
        return True
    if not before.expressions:
        return False
    old, new = ([int(part.name) for part in each.expressions] + [0] for each in (before, after))
    return new[1] >= old[1] and new[0] - new[1] >= old[0] - old[1]


def _length(type_: exp.DataType) -> int:
    return int(type_.expressions[0].name) if type_.expressions else 1 << 31


def _is_cast_of(node: Any, column: str) -> bool:
    return isinstance(node, exp.Cast) and isinstance(node.this, exp.Column) and node.this.name == column


def _refuse_outside(node: exp.Expression) -> None:
    for each in node.walk():
        if isinstance(each, _STATEMENTS):
            raise SqlFault(f"a migration cannot say {each.key.upper()}", f"allowed: {_ALLOWED}")
        if isinstance(each, exp.Func):
            name = (each.name if isinstance(each, exp.Anonymous) else each.sql_name()).lower()
            if _OUTSIDE.fullmatch(name):
                raise SqlFault(f"function '{name}' reaches outside of the tables", "leave it out")


def _shown(ref: TableRef) -> str:
    return f"{ref.layer}.{ref.name}"
