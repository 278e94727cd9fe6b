"""Keeps the columns of the spec tables equal to the fields of the specs, in a database that already holds rows.

A new field is a new column, added here with its default. Whatever else may happen to a field (its type changes, it
goes) needs a revision in ``migrations/``, because only a person knows what becomes of the values.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateTable

from platform_core.control.migrations import take_lock
from platform_core.control.store.codec import ABSENT, codec, dumped
from platform_core.control.store.kinds import KINDS
from platform_core.control.store.tables import SPEC_TABLES, state
from platform_core.control.tables import SCHEMA
from platform_core.errors import MigrationError

Layout = dict[str, dict[str, str]]
"""Type by column by table."""


def layout_of_code() -> Layout:
    """The columns that the specs of this version of the code need."""
    return {
        name: {column.name: type(column.type).__name__ for column in table.columns}
        for name, table in SPEC_TABLES.items()
    }


def reconcile(connection: sa.Connection, *, shown: str) -> list[str]:
    """Add the tables and columns that the specs have and the database has not, within the connection's transaction.

    Args:
        shown: what a person calls the database.

    Returns:
        What was added: ``ingestion`` or ``ingestion.parallel``.

    Raises:
        MigrationError: the database has columns that this code does not know, or of another type.
    """
    wanted = layout_of_code()
    if _layout(connection) == wanted:
        return []
    take_lock(connection)
    found = _layout(connection)
    _refuse_newer(found, wanted, shown=shown)
    added = []
    for name, columns in wanted.items():
        if name not in found:
            connection.execute(CreateTable(SPEC_TABLES[name]))
            added.append(name)
            continue
        for column in columns.keys() - found[name].keys():
            _add_column(connection, name, column)
            added.append(f"{name}.{column}")
    connection.execute(state.update().values(layout=dumped(wanted)))
    return sorted(added)


def waiting_columns(connection: sa.Connection, *, shown: str) -> list[str]:
    """What :func:`reconcile` would add; nothing is changed. Errors as there."""
    wanted, found = layout_of_code(), _layout(connection)
    _refuse_newer(found, wanted, shown=shown)
    return sorted(
        {
            name if name not in found else f"{name}.{column}"
            for name, columns in wanted.items()
            for column in columns
            if column not in found.get(name, {})
        }
    )


def _layout(connection: sa.Connection) -> Layout:
    found: Layout = json.loads(connection.execute(sa.select(sa.cast(state.c.layout, sa.Text))).scalar_one())
    return found


def _refuse_newer(found: Layout, wanted: Layout, *, shown: str) -> None:
    for name, columns in found.items():
        for column, type_ in columns.items():
            here = wanted.get(name, {}).get(column)
            if here is None:
                raise MigrationError(
                    f"control database: it is newer than this code: it has {name}.{column}, which no spec of this code "
                    f"has\n  looked at: {shown}\n  run the version of the platform that added it, or a newer one; "
                    "a field that was taken out of the specs needs a migration that drops its column"
                )
            if here != type_:
                raise MigrationError(
                    f"control database: {name}.{column} is {type_} there and {here} in this code\n"
                    f"  looked at: {shown}\n  a field that changes its type needs a migration"
                )


def _add_column(connection: sa.Connection, table: str, name: str) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    column = SPEC_TABLES[table].c[name]
    # Alembic writes the statement itself and does not know that SQLite has no schemas.
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    added: sa.Column[Any] = sa.Column(name, column.type)
    Operations(MigrationContext.configure(connection)).add_column(table, added, schema=schema)
    default = {each.name: each.default for each in codec(KINDS[table]).columns}.get(name)
    if default is not None and default is not ABSENT:
        connection.execute(SPEC_TABLES[table].update().values({name: default}))
