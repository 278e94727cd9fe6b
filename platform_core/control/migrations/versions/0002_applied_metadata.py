"""What was applied: the serial, every apply, every version of every row, and the lock that applies hold.

The tables of the specs themselves are not here: they are derived from the specs (``control/store/layout.py``).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_applied_metadata"
down_revision = "0001_loads"

SCHEMA = "control"
# The text is kept as it is written; a column of type JSON would be a number's in SQLite.
JSON = sa.Text().with_variant(sa.JSON(), "postgresql")
MOMENT = sa.TIMESTAMP().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    # One row: which apply was the last, and which columns the tables of the specs have.
    state = op.create_table(
        "state",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("mark", sa.Text, nullable=False),
        sa.Column("environment", sa.Text),
        sa.Column("layout", JSON, nullable=False),
        sa.CheckConstraint("id = 1", name="state_has_one_row"),
        schema=SCHEMA,
    )
    op.execute(state.insert().values(id=1, serial=0, mark="", layout=sa.literal_column("'{}'")))
    op.create_table(
        "applies",
        sa.Column("serial", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False, unique=True),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("release", sa.Text, nullable=False),
        sa.Column("git_commit", sa.Text),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("applied_at", MOMENT, nullable=False),
        sa.Column("created", sa.Integer, nullable=False),
        sa.Column("changed", sa.Integer, nullable=False),
        sa.Column("deleted", sa.Integer, nullable=False),
        sa.Column("approval", sa.Text),
        sa.Column("restored", sa.BigInteger),
        schema=SCHEMA,
    )
    op.create_table(
        "history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("workstream", sa.Text),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.Column("content", JSON, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("git_commit", sa.Text),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("applied_at", MOMENT, nullable=False),
        sa.Column("approval", sa.Text),
        schema=SCHEMA,
    )
    op.create_index("history_of_row", "history", ["kind", "address", "location", "id"], schema=SCHEMA)
    # A lock spans several transactions, so it outlives its holder: whoever finds it can see whose it is.
    op.create_table(
        "locks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sa.Column("process_started", sa.Text, nullable=False),
        schema=SCHEMA,
    )
