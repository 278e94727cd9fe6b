"""What dashboards show: every refresh with its cut, and what a dashboard's plug-in remembers for the next."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006_refreshes"
down_revision = "0005_alerts"

SCHEMA = "control"
MOMENT = sa.TIMESTAMP().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "refreshes",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("workstream", sa.Text, nullable=False),
        sa.Column("layer", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("as_of", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=False),
        # By table: its version, its newest batch, and when it was made.
        sa.Column("cut", JSON, nullable=False),
        sa.Column("moved", JSON, nullable=False),
        sa.Column("figures", JSON, nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("error", sa.Text),
        schema=SCHEMA,
    )
    op.create_index("refreshes_of", "refreshes", ["workstream", "layer", "name", "id"], schema=SCHEMA)
    op.create_table(
        "refresh_memory",
        sa.Column("workstream", sa.Text, primary_key=True),
        sa.Column("layer", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("remembered", JSON, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        schema=SCHEMA,
    )
