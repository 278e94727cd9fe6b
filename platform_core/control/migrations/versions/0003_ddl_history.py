"""Which DDL migrations of the workstreams were applied to which environment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003_ddl_history"
down_revision = "0002_applied_metadata"

SCHEMA = "control"
MOMENT = sa.TIMESTAMP().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "ddl_history",
        sa.Column("environment", sa.Text, primary_key=True),
        sa.Column("workstream", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("checksum", sa.Text, nullable=False),
        sa.Column("digests", JSON, nullable=False),
        sa.Column("statements", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("approved", sa.Text),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("applied_at", MOMENT),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("error", sa.Text),
        schema=SCHEMA,
        # `edp ddl` makes it where it is the first to need it.
        if_not_exists=True,
    )
