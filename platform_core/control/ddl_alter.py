"""What ALTER TABLE makes of a lake table: the columns, conditions and properties that it has afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sqlglot import exp

from platform_core.control.ddl_catalog import Catalog, Maker, Shape, column_of
from platform_core.control.ddl_columns import check_column_names, column_from, text_of
from platform_core.control.ddl_conditions import portable
from platform_core.control.ddl_names import own_name
from platform_core.control.ddl_parsing import SqlFault
from platform_core.control.ddl_properties import checked_properties
from platform_core.control.ddl_types import lake_type_of
from platform_core.specs.base import is_name
from platform_core.specs.ddl import (
    AddColumns,
    AddConstraint,
    AllowNull,
    CommentColumn,
    DropConstraint,
    Meaning,
    RewriteColumns,
    SetProperties,
    TableColumn,
)
from platform_core.specs.table import TableRef

ALTERATIONS = (
    "ADD COLUMN, ALTER COLUMN … TYPE / SET NOT NULL / DROP NOT NULL / COMMENT, RENAME COLUMN, DROP COLUMN, "
    "ADD CONSTRAINT … CHECK, DROP CONSTRAINT, SET TBLPROPERTIES"
)


def altered(node: exp.Alter, *, workstream: str, catalog: Catalog, widens: Callable[[object, object], bool]) -> Meaning:
    """What an ALTER TABLE does; the catalog then shows the table after it.

    Raises:
        SqlFault: it may not be said, or does not fit the table.
    """
    ref = own_name(node.this, workstream)
    shape = catalog.table(ref)
    if node.args.get("exists"):
        raise SqlFault("IF EXISTS hides what a migration does", "leave it out")
    actions = _flat(node.args.get("actions") or ())
    first = actions[0] if actions else None
    if isinstance(first, exp.AlterSet) and len(actions) == 1:
        return _set_properties(first, ref, shape, catalog)
    if isinstance(first, exp.AlterColumn) and first.args.get("comment") is not None and len(actions) == 1:
        return _comment(first, ref, shape)
    _check_may_change(ref, catalog)
    if isinstance(first, exp.AddConstraint) and len(actions) == 1:
        return _add_constraint(first, ref, shape, catalog)
    if isinstance(first, exp.Drop) and first.args.get("kind") == "CONSTRAINT" and len(actions) == 1:
        return _drop_constraint(first, ref, shape, catalog)
    _check_columns_stay(ref, actions, catalog)
    if shape.locked:
        raise SqlFault(
            f"the columns of '{ref}' cannot be changed: it has {shape.locked}, which delta-rs cannot write",
            "change it with the engine that writes it (Spark), or rewrite it once without that feature",
        )
    if actions and all(isinstance(action, exp.ColumnDef) for action in actions):
        return _add_columns(actions, ref, shape, catalog)
    if (
        isinstance(first, exp.AlterColumn)
        and len(actions) == 1
        and first.args.get("allow_null")
        and first.args.get("drop")
    ):
        return _allow_null(first, ref, shape, catalog)
    return _Rewriting(ref, shape, widens).meaning(actions, catalog)


def _flat(actions: Sequence[exp.Expression]) -> list[exp.Expression]:
    """Actions, each by itself: ADD COLUMNS (a …, b …) is two."""
    found: list[exp.Expression] = []
    for action in actions:
        found += action.expressions if isinstance(action, exp.Schema) else [action]
    return found


def _check_may_change(ref: TableRef, catalog: Catalog) -> None:
    if ref.layer == "bronze" or catalog.makers.get(ref) is Maker.INGESTION:
        raise SqlFault(
            f"'{ref}' is written by ingestion: its columns follow the source, and its loads look at no constraint",
            "on bronze a migration may say COMMENT ON and SET TBLPROPERTIES",
            "new or wider columns: see 'schema' of the table in control/ingestion; conditions: a check of a step",
        )


def _check_columns_stay(ref: TableRef, actions: Sequence[exp.Expression], catalog: Catalog) -> None:
    if catalog.makers.get(ref) is not Maker.REPLACED:
        return
    if all(isinstance(action, exp.AlterColumn) and not action.args.get("dtype") for action in actions):
        return
    raise SqlFault(
        f"'{ref}' is replaced as a whole whenever what makes it runs: its columns are those of that query",
        "change the query; comments, NOT NULL and constraints of a migration stay as long as the columns do",
    )


def _add_columns(actions: Sequence[exp.Expression], ref: TableRef, shape: Shape, catalog: Catalog) -> Meaning:
    columns = _new_columns(actions, shape, of=ref)
    catalog.change(ref, columns=(*(shape.columns or ()), *columns))
    described = ", ".join(f"{column.name} {column.type}" for column in columns)
    return Meaning(change=AddColumns(table=ref, columns=columns), summary=f"add to {ref}: {described}")


def _new_columns(actions: Sequence[exp.Expression], shape: Shape, *, of: TableRef) -> tuple[TableColumn, ...]:
    columns = []
    for action in actions:
        if action.args.get("exists"):
            raise SqlFault("IF NOT EXISTS hides what a migration does", "leave it out")
        if action.args.get("position") is not None:
            raise SqlFault("a column comes last", "leave FIRST or AFTER out")
        column = column_from(action)
        if column.name.lower() in {name.lower() for name in shape.names}:
            raise SqlFault(f"table '{of}' has a column '{column.name}' already", f"columns: {', '.join(shape.names)}")
        if not column.nullable:
            raise SqlFault(
                f"column '{column.name}': rows that are there have no value for it, so it cannot be NOT NULL",
                "add it without NOT NULL, fill it, then ALTER COLUMN … SET NOT NULL",
            )
        columns.append(column)
    check_column_names([column.name for column in columns])
    return tuple(columns)


def _allow_null(action: exp.AlterColumn, ref: TableRef, shape: Shape, catalog: Catalog) -> Meaning:
    column = column_of(shape, action.name, of=ref)
    if column.nullable:
        raise SqlFault(f"column '{column.name}' of '{ref}' has no NOT NULL")
    catalog.change(ref, columns=_with(shape, column.name, replace(column, nullable=True)))
    return Meaning(
        change=AllowNull(table=ref, column=column.name),
        summary=f"let {ref}.{column.name} be null",
        destroys=f"the promise that {ref}.{column.name} is never null",
    )


def _comment(action: exp.AlterColumn, ref: TableRef, shape: Shape) -> Meaning:
    column = column_of(shape, action.name, of=ref)
    change = CommentColumn(table=ref, column=column.name, comment=text_of(action.args["comment"]))
    return Meaning(change=change, summary=f"comment on column {ref}.{column.name}")


def _add_constraint(action: exp.AddConstraint, ref: TableRef, shape: Shape, catalog: Catalog) -> Meaning:
    given = action.expressions
    only = given[0] if len(given) == 1 else None
    if not isinstance(only, exp.Constraint) or not only.name:
        raise SqlFault("a constraint has a name and a CHECK", "ADD CONSTRAINT positive CHECK (price > 0)")
    parts = only.expressions
    if len(parts) != 1 or not isinstance(parts[0], exp.CheckColumnConstraint):
        raise SqlFault("the lake keeps CHECK constraints alone", "keys and references are kept by nobody there")
    name = only.name.lower()
    if not is_name(name):
        raise SqlFault(f"constraint '{only.name}': lower case letters, digits and _, starting with a letter")
    if name in {known.lower() for known in shape.constraints}:
        raise SqlFault(f"'{ref}' has a constraint '{name}' already", "drop it first")
    condition = portable(parts[0].this, shape, of=ref)
    catalog.change(ref, constraints={**shape.constraints, name: condition})
    change = AddConstraint(table=ref, name=name, condition=condition)
    note = "every row of the table is checked before, and every later write"
    return Meaning(change=change, summary=f"add constraint {name} to {ref}: {condition}", notes=(note,))


def _drop_constraint(action: exp.Drop, ref: TableRef, shape: Shape, catalog: Catalog) -> Meaning:
    named = (action.args.get("tables") or [action.this])[0].name
    found = next((known for known in shape.constraints if known.lower() == named.lower()), None)
    if found is None:
        raise SqlFault(
            f"'{ref}' has no constraint '{named}'", f"constraints: {', '.join(sorted(shape.constraints)) or 'none'}"
        )
    left = {name: condition for name, condition in shape.constraints.items() if name != found}
    catalog.change(ref, constraints=left)
    return Meaning(
        change=DropConstraint(table=ref, name=found),
        summary=f"drop constraint {found} of {ref}",
        destroys=f"the promise that {shape.constraints[found]}",
    )


def _set_properties(action: exp.AlterSet, ref: TableRef, shape: Shape, catalog: Catalog) -> Meaning:
    given: dict[str, str] = {}
    for part in action.expressions:
        for each in part.expressions if isinstance(part, exp.Properties) else [part]:
            if not isinstance(each, exp.Property) or not isinstance(each.args.get("value"), exp.Literal):
                raise SqlFault("SET TBLPROPERTIES needs names and texts", "SET TBLPROPERTIES ('team' = 'mobility')")
            given[each.name] = each.args["value"].name
    if not given:
        raise SqlFault("ALTER TABLE … SET knows TBLPROPERTIES alone", f"known: {ALTERATIONS}")
    checked_properties(given)
    if shape.features:
        raise SqlFault(
            f"properties of '{ref}' can no longer be set: it has table features (such as columns without time zone), "
            "and delta-rs would then mark it with features that other readers refuse",
            "give the properties in CREATE TABLE",
        )
    catalog.change(ref, properties={**shape.properties, **given})
    names = ", ".join(f"{key} = {value}" for key, value in given.items())
    return Meaning(change=SetProperties(table=ref, properties=given), summary=f"set properties of {ref}: {names}")


def _with(shape: Shape, name: str, column: Any) -> tuple[Any, ...]:
    return tuple(column if each.name == name else each for each in shape.columns or ())


class _Rewriting:
    """Several changes of columns of one table, made by writing its files anew in one commit."""

    def __init__(self, ref: TableRef, shape: Shape, widens: Callable[[object, object], bool]) -> None:
        self._ref = ref
        self._shape = shape
        self._widens = widens
        self._columns: list[TableColumn] = list(shape.columns or ())
        self._sources: list[str | None] = [column.name for column in self._columns]
        self._said: list[str] = []
        self._destroyed: list[str] = []

    def meaning(self, actions: Sequence[exp.Expression], catalog: Catalog) -> Meaning:
        for action in actions:
            self._take(action)
        check_column_names([column.name for column in self._columns])
        catalog.change(self._ref, columns=tuple(self._columns))
        return Meaning(
            change=RewriteColumns(table=self._ref, columns=tuple(self._columns), sources=tuple(self._sources)),
            summary=f"change {self._ref}: {', '.join(self._said)}",
            destroys=", ".join(self._destroyed),
            notes=("every file of the table is written anew, in one commit",),
        )

    def _take(self, action: exp.Expression) -> None:
        match action:
            case exp.ColumnDef():
                column = _new_columns([action], Shape(columns=tuple(self._columns)), of=self._ref)[0]
                self._columns.append(column)
                self._sources.append(None)
                self._said.append(f"add {column.name} {column.type}")
            case exp.RenameColumn():
                self._rename(action)
            case exp.Drop() if action.args.get("kind") == "COLUMN":
                self._drop(action)
            case exp.AlterColumn() if action.args.get("dtype") is not None:
                self._retype(action)
            case exp.AlterColumn() if action.args.get("allow_null") is not None:
                self._nullability(action)
            case _:
                shown = action.sql(dialect="duckdb")[:60] if not isinstance(action, exp.Command) else action.name
                raise SqlFault(f"ALTER TABLE cannot say '{shown}' here, or not beside others", f"known: {ALTERATIONS}")

    def _position(self, name: str) -> int:
        column = column_of(Shape(columns=tuple(self._columns)), name, of=self._ref)
        return self._columns.index(column)

    def _rename(self, action: exp.RenameColumn) -> None:
        at = self._position(action.this.name)
        old, new = self._columns[at].name, action.args["to"].name.lower()
        self._refuse_partition(old, "renamed")
        self._refuse_constrained(old, "renamed")
        if new in {column.name.lower() for column in self._columns}:
            raise SqlFault(f"table '{self._ref}' has a column '{new}' already")
        self._columns[at] = self._columns[at].renamed(new)
        self._said.append(f"rename {old} to {new}")

    def _drop(self, action: exp.Drop) -> None:
        if action.args.get("cascade"):
            raise SqlFault("CASCADE hides what else goes", "leave it out")
        at = self._position((action.args.get("tables") or [action.this])[0].name)
        name = self._columns[at].name
        self._refuse_partition(name, "dropped")
        self._refuse_constrained(name, "dropped")
        if len(self._columns) == 1:
            raise SqlFault(f"'{name}' is the last column of '{self._ref}'", "drop the table")
        del self._columns[at], self._sources[at]
        self._said.append(f"drop {name}")
        self._destroyed.append(f"column {self._ref}.{name}")

    def _retype(self, action: exp.AlterColumn) -> None:
        if action.args.get("using"):
            raise SqlFault("USING is not known in the lake", "let a step write the other values")
        at = self._position(action.name)
        column = self._columns[at]
        new = lake_type_of(action.args["dtype"])
        if new == column.type:
            raise SqlFault(f"column '{column.name}' of '{self._ref}' is {new} already")
        self._refuse_partition(column.name, "changed")
        self._columns[at] = replace(column, type=new)
        if self._widens(column.type, new):
            self._said.append(f"widen {column.name} from {column.type} to {new}")
        else:
            self._refuse_constrained(column.name, "made narrower")
            self._said.append(f"narrow {column.name} from {column.type} to {new}")
            self._destroyed.append(f"values of {self._ref}.{column.name} that {new} does not have")

    def _nullability(self, action: exp.AlterColumn) -> None:
        at = self._position(action.name)
        column = self._columns[at]
        nullable = bool(action.args["allow_null"])
        if column.nullable == nullable:
            raise SqlFault(
                f"column '{column.name}' of '{self._ref}' is {'without' if nullable else ''} NOT NULL already"
            )
        self._columns[at] = replace(column, nullable=nullable)
        self._said.append(f"{'let' if nullable else 'never let'} {column.name} be null")
        if nullable:
            self._destroyed.append(f"the promise that {self._ref}.{column.name} is never null")

    def _refuse_partition(self, name: str, what: str) -> None:
        if name in self._shape.partition_by:
            raise SqlFault(
                f"'{self._ref}' is partitioned by '{name}', which therefore cannot be {what}",
                "make a table with other partitions, and let a step copy the rows",
            )

    def _refuse_constrained(self, name: str, what: str) -> None:
        for constraint, condition in self._shape.constraints.items():
            if re.search(rf"\b{re.escape(name)}\b", condition, re.IGNORECASE):
                raise SqlFault(
                    f"constraint '{constraint}' names '{name}', which therefore cannot be {what}: {condition}",
                    f"ALTER TABLE {self._ref.layer}.{self._ref.name} DROP CONSTRAINT {constraint} before, "
                    "and add it again behind",
                )
