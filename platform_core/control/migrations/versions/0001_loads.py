"""Leases, the load log, and approvals of stopped loads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001_loads"
down_revision = None

SCHEMA = "control"
MOMENT = sa.TIMESTAMP().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    # Who loads a table now: one row a table, kept for ever because its epoch must never go back.
    op.create_table(
        "leases",
        *_table_of_the_lake(),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("token", sa.Text),
        sa.Column("host", sa.Text),
        sa.Column("boot", sa.Text),
        sa.Column("pid", sa.BigInteger),
        sa.Column("process_started", sa.Text),
        sa.Column("run_id", sa.Text),
        sa.Column("acquired_at", MOMENT),
        sa.Column("renewed_at", MOMENT),
        sa.Column("expires_at", MOMENT),
        schema=SCHEMA,
    )
    # What every load did; a load's batch id is the epoch of its lease.
    op.create_table(
        "loads",
        *_table_of_the_lake(),
        sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("taken_over", sa.Boolean, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("error", sa.Text),
        sa.Column("rows_read", sa.BigInteger),
        sa.Column("inserted", sa.BigInteger),
        sa.Column("updated", sa.BigInteger),
        sa.Column("deleted", sa.BigInteger),
        sa.Column("unchanged", sa.BigInteger),
        sa.Column("late", sa.BigInteger),
        sa.Column("quarantined", sa.BigInteger),
        sa.Column("bytes_landed", sa.BigInteger),
        sa.Column("bytes_written", sa.BigInteger),
        sa.Column("watermark_from", sa.Text),
        sa.Column("watermark_to", sa.Text),
        sa.Column("version", sa.BigInteger),
        sa.Column("committed", sa.Boolean),
        sa.Column("stopped_deletes", sa.BigInteger),
        sa.Column("stopped_current", sa.BigInteger),
        sa.Column("seconds", JSON),
        sa.Column("more", JSON),
        schema=SCHEMA,
    )
    op.create_index("loads_by_start", "loads", ["started_at"], schema=SCHEMA)
    # Whom a take-over marks as crashed; the log grows, these stay few.
    running = sa.text("status = 'running'")
    op.create_index(
        "loads_running",
        "loads",
        ["workstream", "layer", "name"],
        schema=SCHEMA,
        sqlite_where=running,
        postgresql_where=running,
    )
    # A person's word that one stopped load may pass, once.
    op.create_table(
        "approvals",
        *_table_of_the_lake(),
        sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("approved_by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("approved_at", MOMENT, nullable=False),
        sa.Column("used_by", sa.BigInteger),
        sa.Column("used_at", MOMENT),
        schema=SCHEMA,
    )


def _table_of_the_lake() -> tuple[sa.Column[str], ...]:
    return tuple(sa.Column(name, sa.Text, primary_key=True) for name in ("workstream", "layer", "name"))
