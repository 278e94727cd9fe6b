"""The tables of the control database as queries see them; ``migrations/`` makes them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from platform_core.specs.person import ANYONES, Person

SCHEMA = "control"
"""Schema of the tables in PostgreSQL, which other programs share; SQLite has none."""


class Moment(sa.types.TypeDecorator[dt.datetime]):
    """A moment in UTC; SQLite, which knows no zones, keeps it without one."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        if value is None:
            return None
        moment = value.astimezone(dt.UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


_METADATA = sa.MetaData(schema=SCHEMA)


def _json() -> sa.types.TypeEngine[Any]:
    return sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def _of_a_table() -> tuple[sa.Column[str], ...]:
    return tuple(sa.Column(name, sa.Text, primary_key=True) for name in ("workstream", "layer", "name"))


migrations = sa.Table(
    "migrations",
    _METADATA,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("checksum", sa.Text, nullable=False),
    sa.Column("applied_at", Moment, nullable=False),
)

leases = sa.Table(
    "leases",
    _METADATA,
    *_of_a_table(),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("token", sa.Text),
    sa.Column("host", sa.Text),
    sa.Column("boot", sa.Text),
    sa.Column("pid", sa.BigInteger),
    sa.Column("process_started", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("acquired_at", Moment),
    sa.Column("renewed_at", Moment),
    sa.Column("expires_at", Moment),
)

loads = sa.Table(
    "loads",
    _METADATA,
    *_of_a_table(),
    sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("taken_over", sa.Boolean, nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("finished_at", Moment),
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
    sa.Column("seconds", _json()),
    sa.Column("more", _json()),
)

approvals = sa.Table(
    "approvals",
    _METADATA,
    *_of_a_table(),
    sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("approved_by", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("approved_at", Moment, nullable=False),
    sa.Column("used_by", sa.BigInteger),
    sa.Column("used_at", Moment),
)


def of_table(table: sa.Table) -> sa.ColumnElement[bool]:
    """The condition that a row is of one table of the lake; its values are :func:`identity`."""
    return sa.and_(
        table.c.workstream == sa.bindparam("of_workstream"),
        table.c.layer == sa.bindparam("of_layer"),
        table.c.name == sa.bindparam("of_name"),
    )


def of_person(table: sa.Table, person: Person | None) -> sa.ColumnElement[bool]:
    """The condition that a row is of a table of one person's, or of one that is nobody's own."""
    if person is None:
        return sa.not_(table.c.workstream.startswith(ANYONES, autoescape=True))
    return table.c.workstream.startswith(person.prefix, autoescape=True)


def identity(ref: tuple[str, str, str]) -> dict[str, Any]:
    """Values of :func:`of_table`."""
    return dict(zip(("of_workstream", "of_layer", "of_name"), ref, strict=True))


def columns_of(ref: tuple[str, str, str]) -> dict[str, Any]:
    """Values of the columns that name a table of the lake, for a new row."""
    return dict(zip(("workstream", "layer", "name"), ref, strict=True))
