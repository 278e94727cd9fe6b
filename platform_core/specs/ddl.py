"""One change of a table or view, as data: what a migration's statement means, checked but not yet made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from platform_core.specs.table import TableRef

if TYPE_CHECKING:
    import pyarrow as pa

LAKE = "lake"
"""Target of migrations that change tables and views of the lake."""

STATEMENTS_PER_MIGRATION = 1000
"""More than any migration has: a statement's mark is one number of its migration's and its own."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a lake table.

    Args:
        type: as the lake keeps it.
        comment: empty where there is none.
    """

    name: str
    type: pa.DataType
    nullable: bool = True
    comment: str = ""

    def renamed(self, name: str) -> TableColumn:
        """The same column under another name."""
        return replace(self, name=name)


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Tells one statement of one migration from every other; committed with what it changes.

    Args:
        number: of the migration, within its workstream.
        statement: its position, counted from 1.
        digest: SHA-256 (hex) of the statement's text.
    """

    workstream: str
    number: int
    statement: int
    digest: str

    @property
    def mark(self) -> int:
        """Larger for every later statement of the workstream."""
        return self.number * STATEMENTS_PER_MIGRATION + self.statement

    def __str__(self) -> str:
        return f"{self.workstream}/{self.number:04d}#{self.statement}:{self.digest[:16]}"


@dataclass(frozen=True, kw_only=True)
class CreateTable:
    """A new, empty table."""

    table: TableRef
    columns: tuple[TableColumn, ...]
    partition_by: tuple[str, ...] = ()
    comment: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DropTable:
    """A table is put away; ``exists``: it need not be there."""

    table: TableRef
    exists: bool = False


@dataclass(frozen=True, kw_only=True)
class AddColumns:
    """New columns, null in every row: the files stay as they are."""

    table: TableRef
    columns: tuple[TableColumn, ...]


@dataclass(frozen=True, kw_only=True)
class RewriteColumns:
    """Other columns, for which every file is written anew, in one commit.

    Args:
        columns: all columns that the table has afterwards, in order.
        sources: for each of them the column whose values it takes; None: null.
    """

    table: TableRef
    columns: tuple[TableColumn, ...]
    sources: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class AllowNull:
    """A column may hold null from now on."""

    table: TableRef
    column: str


@dataclass(frozen=True, kw_only=True)
class AddConstraint:
    """Every row, now and later, fulfils a condition.

    Args:
        condition: SQL that delta-rs and Spark read alike.
    """

    table: TableRef
    name: str
    condition: str


@dataclass(frozen=True, kw_only=True)
class DropConstraint:
    """A condition holds no longer."""

    table: TableRef
    name: str


@dataclass(frozen=True, kw_only=True)
class CommentTable:
    """What a person reads about a table."""

    table: TableRef
    comment: str


@dataclass(frozen=True, kw_only=True)
class CommentColumn:
    """What a person reads about a column."""

    table: TableRef
    column: str
    comment: str


@dataclass(frozen=True, kw_only=True)
class SetProperties:
    """Properties of a table that Delta or people give a meaning."""

    table: TableRef
    properties: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class CreateView:
    """A named SELECT over tables and views of the lake.

    Args:
        table: the view's own name.
        sql: one SELECT in DuckDB's dialect, every table named in full.
        reads: what it reads, in the order of the text.
    """

    table: TableRef
    sql: str
    reads: tuple[TableRef, ...]
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class DropView:
    """A view is removed; ``exists``: it need not be there."""

    table: TableRef
    exists: bool = False


@dataclass(frozen=True, kw_only=True)
class CommentView:
    """What a person reads about a view."""

    table: TableRef
    comment: str


@dataclass(frozen=True, kw_only=True)
class RunStatement:
    """A statement that a serving database runs itself.

    Args:
        sql: written anew from what was checked.
    """

    sql: str


TableChange = (
    CreateTable
    | DropTable
    | AddColumns
    | RewriteColumns
    | AllowNull
    | AddConstraint
    | DropConstraint
    | CommentTable
    | CommentColumn
    | SetProperties
)
"""A change of a Delta table; each is one commit (:class:`DropTable`: one rename)."""

ViewChange = CreateView | DropView | CommentView

Change = TableChange | ViewChange | RunStatement


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a statement does.

    Args:
        change: as data.
        summary: in words, one line.
        destroys: what is lost by it, in words; empty: nothing, so that no approval is needed.
        notes: what a person should know: rewrites, what could not be checked.
    """

    change: Change
    summary: str
    destroys: str = ""
    notes: tuple[str, ...] = ()


def arrow_fields(columns: tuple[TableColumn, ...]) -> list[Any]:
    """Columns as Arrow fields, with nullability and comment."""
    import pyarrow as pa

    return [
        pa.field(
            column.name,
            column.type,
            nullable=column.nullable,
            metadata={"comment": column.comment} if column.comment else None,
        )
        for column in columns
    ]
