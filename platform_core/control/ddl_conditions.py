"""Conditions of CHECK constraints that delta-rs, DuckDB and Spark all understand, and understand alike."""

from __future__ import annotations

import re

from sqlglot import exp

from platform_core.control.ddl_catalog import Shape, column_of
from platform_core.control.ddl_parsing import SqlFault
from platform_core.specs.table import TableRef

_ALLOWED = (
    exp.And,
    exp.Or,
    exp.Not,
    exp.Paren,
    exp.EQ,
    exp.NEQ,
    exp.GT,
    exp.GTE,
    exp.LT,
    exp.LTE,
    exp.Is,
    exp.In,
    exp.Between,
    exp.Like,
    exp.Add,
    exp.Sub,
    exp.Mul,
    exp.Neg,
    exp.Column,
    exp.Identifier,
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.Cast,
    exp.DataType,
    exp.DataTypeParam,
    exp.Length,
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_CASTS = ("DATE", "TIMESTAMP", "INT", "BIGINT", "DOUBLE", "DECIMAL")
_WORDS = "comparisons, AND, OR, NOT, IN (…), BETWEEN, LIKE, IS NULL, + - *, length(…), CAST to a plain type"


def portable(condition: exp.Expression, shape: Shape, *, of: TableRef) -> str:
    """The text of a condition for Delta's log.

    Raises:
        SqlFault: it holds something that not every reader knows, or a column that the table lacks.
    """
    for node in condition.walk(bfs=False):
        if not isinstance(node, _ALLOWED):
            raise SqlFault(
                f"a CHECK constraint cannot hold {node.key.upper()}: not every engine that writes the table knows it",
                f"allowed: {_WORDS}",
            )
        if isinstance(node, exp.Column):
            _check_column(node, shape, of=of)
        if isinstance(node, exp.DataType) and node.this.value not in _CASTS:
            raise SqlFault(f"a CHECK constraint cannot cast to {node.sql()}", f"types: {', '.join(_CASTS)}")
    if not any(True for _ in condition.find_all(exp.Column)):
        raise SqlFault("a CHECK constraint names no column of the table")
    # Without quotes: delta-rs and Spark quote differently.
    return str(condition.sql(dialect="postgres"))


def _check_column(node: exp.Column, shape: Shape, *, of: TableRef) -> None:
    if node.table:
        raise SqlFault(f"a CHECK constraint names columns without their table: write {node.name}")
    column = column_of(shape, node.name, of=of)
    if not _PLAIN.fullmatch(column.name):
        raise SqlFault(
            f"a CHECK constraint cannot name column '{column.name}': engines quote such a name differently",
            "rename the column to lower case letters, digits and _",
        )
    node.set("this", exp.to_identifier(column.name, quoted=False))
