"""The tables of alerts and of the log of steps as queries see them; ``migrations/`` makes them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from platform_core.control.tables import SCHEMA, Moment

_METADATA = sa.MetaData(schema=SCHEMA)
_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

alerts = sa.Table(
    "alerts",
    _METADATA,
    sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("open_key", sa.Text, unique=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("workstream", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("content", _JSON, nullable=False),
    sa.Column("failing", _JSON, nullable=False),
    sa.Column("job", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("last_run_id", sa.Text),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("opened_at", Moment, nullable=False),
    sa.Column("seen_at", Moment, nullable=False),
    sa.Column("told_at", Moment, nullable=False),
    sa.Column("closed_at", Moment),
    sa.Column("closed_by", sa.Text),
)

deliveries = sa.Table(
    "alert_deliveries",
    _METADATA,
    sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("alert_id", _NUMBER, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("message", _JSON, nullable=False),
    sa.Column("recovers", sa.Boolean, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due_at", Moment, nullable=False),
    sa.Column("after_id", _NUMBER),
    sa.Column("token", sa.Text),
    sa.Column("claimed_until", Moment),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("sent_at", Moment),
    sa.Column("sent_as", sa.Text),
    sa.Column("error", sa.Text),
)

alert_runs = sa.Table(
    "alert_runs",
    _METADATA,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("seen_at", Moment, nullable=False),
)

step_log = sa.Table(
    "step_log",
    _METADATA,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("workstream", sa.Text),
    sa.Column("layer", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("started_at", Moment),
    sa.Column("ended_at", Moment),
    sa.Column("error_class", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("serial", sa.BigInteger),
    sa.Column("logged_at", Moment, nullable=False),
)
