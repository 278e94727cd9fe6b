"""Columns of a lake table as a statement defines them."""

from __future__ import annotations

import re

from sqlglot import exp

from platform_core.control.ddl_parsing import SqlFault
from platform_core.control.ddl_types import lake_type_of
from platform_core.specs.ddl import TableColumn

_DIALECT = "duckdb"
_ENGINE_NAMES = ("file_row_number", "file_index")
_NOT_IN_NAMES = re.compile(r"[ ,;{}()\n\t=\"`]")
_LONGEST_NAME = 128
_LONGEST_COMMENT = 4_000


def column_from(node: exp.Expression) -> TableColumn:
    """A column as a statement defines it.

    Raises:
        SqlFault: it has a type or a constraint that the lake does not keep.
    """
    if not isinstance(node, exp.ColumnDef):
        raise SqlFault(
            f"a table of the lake has no {node.key.upper()} among its columns",
            "a condition is a statement of its own: ALTER TABLE … ADD CONSTRAINT <name> CHECK (…)",
        )
    kind = node.args.get("kind")
    if kind is None:
        raise SqlFault(f"column '{node.name}' has no type")
    nullable, comment = True, ""
    for constraint in node.args.get("constraints") or ():
        match constraint.kind:
            case exp.NotNullColumnConstraint():
                nullable = bool(constraint.kind.args.get("allow_null"))
            case exp.CommentColumnConstraint():
                comment = text_of(constraint.kind.this)
            case exp.CheckColumnConstraint():
                raise SqlFault(
                    f"column '{node.name}': a condition is a statement of its own",
                    "ALTER TABLE … ADD CONSTRAINT <name> CHECK (…)",
                )
            case _:
                raise SqlFault(
                    f"column '{node.name}': the lake keeps no {constraint.sql(dialect=_DIALECT)}",
                    "a column has a type, NOT NULL and COMMENT",
                )
    return TableColumn(_column_name(node.this), lake_type_of(kind), nullable=nullable, comment=comment)


def check_column_names(names: list[str]) -> None:
    """Refuse names that are doubled, or that a table cannot have.

    Raises:
        SqlFault: there is one.
    """
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.lower(), name)) != name or names.count(name) > 1:
            raise SqlFault(
                f"columns '{other}' and '{name}' differ in nothing but case"
                if other != name
                else f"column '{name}' stands twice"
            )
        if name.lower() in _ENGINE_NAMES:
            raise SqlFault(f"column '{name}': the engine needs that name", "choose another")
        if _NOT_IN_NAMES.search(name) or not name or len(name) > 128:
            raise SqlFault(
                f"column '{name[:60]}' has a name that Delta tables cannot have",
                "no spaces, quotes or any of , ; { } ( ) =, and at most 128 characters",
            )


def _column_name(node: exp.Expression) -> str:
    # SQL names are the same in any case; the lake's own are lower case.
    return str(node.name) if node.args.get("quoted") else str(node.name).lower()


def text_of(node: exp.Expression | None) -> str:
    """A comment or value, which is a text.

    Raises:
        SqlFault: it is something else, or very long.
    """
    if not isinstance(node, exp.Literal) or not node.is_string:
        raise SqlFault("a text is expected, in single quotes")
    text = str(node.this)
    if len(text) > _LONGEST_COMMENT:
        raise SqlFault(f"a text of {len(text):,} characters", f"at most {_LONGEST_COMMENT:,}")
    return text
