"""Which other tables have to be there before what is expected of a table can be judged."""

from __future__ import annotations

from platform_core.specs.expectation import ExpectationSpec
from platform_core.specs.table import TableRef


def target_table(expectation: ExpectationSpec, table: TableRef) -> TableRef | None:
    """The table that an expectation looks values up in; None where it does not."""
    if expectation.references is None:
        return None
    return TableRef.parse(expectation.references.table, workstream=table.workstream)


def read_by(expectation: ExpectationSpec, table: TableRef) -> tuple[TableRef, ...]:
    """The tables that an expectation of ``table`` reads beside it.

    Raises:
        SqlError: its SELECT is none.
    """
    found: tuple[TableRef, ...] = ()
    if expectation.is_query:
        # Most tables need no SQL parser.
        from platform_core.specs.sql import referenced_tables

        found = referenced_tables(expectation.sql or "", workstream=table.workstream)
    elif (target := target_table(expectation, table)) is not None:
        found = (target,)
    return tuple(ref for ref in found if ref != table)
