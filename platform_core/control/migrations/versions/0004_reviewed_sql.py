"""Reviewed SQL changes that were applied, and the overrides that they made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_reviewed_sql"
down_revision = "0003_ddl_history"

SCHEMA = "control"
# The text is kept as it is written; a column of type JSON would be a number's in SQLite.
JSON = sa.Text().with_variant(sa.JSON(), "postgresql")
MOMENT = sa.TIMESTAMP().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sql_changes",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("checksum", sa.Text, nullable=False),
        sa.Column("statements", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires", sa.Date, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("applied_at", MOMENT, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        schema=SCHEMA,
    )
    # A value that the environment holds in the place of what git says; an empty field: the row as a whole.
    op.create_table(
        "overrides",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("location", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("field", sa.Text, primary_key=True),
        sa.Column("git_value", JSON),
        sa.Column("value", JSON),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("expires", sa.Date, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        schema=SCHEMA,
    )
