"""The outbox of alerts, the runs that were looked at for it, and the log of steps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005_alerts"
down_revision = "0004_reviewed_sql"

SCHEMA = "control"
MOMENT = sa.TIMESTAMP().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        # Equal to `key` while the alert is open: of one cause one alert is open at a time.
        sa.Column("open_key", sa.Text, unique=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("workstream", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("content", JSON, nullable=False),
        sa.Column("failing", JSON, nullable=False),
        sa.Column("job", sa.Text),
        sa.Column("run_id", sa.Text),
        sa.Column("last_run_id", sa.Text),
        sa.Column("times", sa.Integer, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.Column("told_at", MOMENT, nullable=False),
        sa.Column("closed_at", MOMENT),
        sa.Column("closed_by", sa.Text),
        schema=SCHEMA,
    )
    op.create_index("alerts_newest", "alerts", ["seen_at"], schema=SCHEMA)
    op.create_table(
        "alert_deliveries",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("alert_id", NUMBER, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("message", JSON, nullable=False),
        sa.Column("recovers", sa.Boolean, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("after_id", NUMBER),
        sa.Column("token", sa.Text),
        sa.Column("claimed_until", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("sent_at", MOMENT),
        sa.Column("sent_as", sa.Text),
        sa.Column("error", sa.Text),
        schema=SCHEMA,
    )
    op.create_index("alert_deliveries_due", "alert_deliveries", ["status", "due_at"], schema=SCHEMA)
    op.create_index("alert_deliveries_of", "alert_deliveries", ["alert_id"], schema=SCHEMA)
    op.create_table(
        "alert_runs",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("seen_at", MOMENT, nullable=False),
        schema=SCHEMA,
    )
    op.create_table(
        "step_log",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("workstream", sa.Text),
        sa.Column("layer", sa.Text),
        sa.Column("name", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("ended_at", MOMENT),
        sa.Column("error_class", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("serial", sa.BigInteger),
        sa.Column("logged_at", MOMENT, nullable=False),
        schema=SCHEMA,
    )
    op.create_index("step_log_of_table", "step_log", ["workstream", "layer", "name", "started_at"], schema=SCHEMA)
