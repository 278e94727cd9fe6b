"""The table of the control database that remembers which migrations were applied."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import CreateSchema

from platform_core.control.migrations import take_lock
from platform_core.control.tables import SCHEMA, Moment

metadata = sa.MetaData(schema=SCHEMA)


def _json() -> sa.types.TypeEngine[Any]:
    return sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


ddl_history = sa.Table(
    "ddl_history",
    metadata,
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("workstream", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("checksum", sa.Text, nullable=False),
    sa.Column("digests", _json(), nullable=False),
    sa.Column("statements", sa.Integer, nullable=False),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("approved", sa.Text),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("applied_at", Moment),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("error", sa.Text),
)


def create(connection: sa.Connection) -> None:
    """Make the table where it is missing; of several processes at once one does."""
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    if sa.inspect(connection).has_table(ddl_history.name, schema=schema):
        return
    take_lock(connection)
    if schema is not None and not sa.inspect(connection).has_schema(schema):
        connection.execute(CreateSchema(schema))
    metadata.create_all(connection)
