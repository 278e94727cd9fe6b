"""The control tables of applied metadata: one a kind of spec, and those that tell how they came to be as they are."""

from __future__ import annotations

import sqlalchemy as sa

from platform_core.control.store.codec import JsonText, codec
from platform_core.control.store.kinds import KINDS, SpecKind
from platform_core.control.tables import SCHEMA, Moment

_METADATA = sa.MetaData(schema=SCHEMA)


def _provenance() -> list[sa.Column[object]]:
    """Columns of every row that no spec has: whose it is, and where its values come from.

    Their defaults are for a row that a person inserts.
    """
    return [
        sa.Column("hash", sa.Text, nullable=False, server_default=""),
        sa.Column("origin", sa.Text, nullable=False, server_default="sql"),
        sa.Column("git_commit", sa.Text),
        sa.Column("author", sa.Text, nullable=False, server_default=""),
        sa.Column("applied_at", Moment, nullable=False, server_default=sa.func.current_timestamp()),
        sa.Column("serial", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("plan", sa.Text, nullable=False, server_default=""),
    ]


def _spec_table(kind: SpecKind) -> sa.Table:
    columns: list[sa.Column[object]] = [sa.Column("location", sa.Text, primary_key=True)]
    names = codec(kind).names
    if "workstream" not in names:
        # So that every table can be asked for a workstream; what belongs to the whole location has none.
        columns.append(sa.Column("workstream", sa.Text))
    for column in codec(kind).columns:
        # Nothing but the identity is required of a row: a field that comes later starts empty.
        columns.append(sa.Column(column.name, column.type, primary_key=column.field in kind.identity))
    return sa.Table(kind.name, _METADATA, *columns, *_provenance())


SPEC_TABLES = {name: _spec_table(kind) for name, kind in KINDS.items()}
"""Control table by kind."""

PROVENANCE = tuple(column.name for column in _provenance())
"""Columns that tell where a row's values come from."""

state = sa.Table(
    "state",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("serial", sa.BigInteger, nullable=False),
    sa.Column("mark", sa.Text, nullable=False),
    sa.Column("environment", sa.Text),
    sa.Column("layout", JsonText, nullable=False),
    sa.CheckConstraint("id = 1", name="state_has_one_row"),
)

applies = sa.Table(
    "applies",
    _METADATA,
    sa.Column("serial", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False, unique=True),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("git_commit", sa.Text),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("applied_at", Moment, nullable=False),
    sa.Column("created", sa.Integer, nullable=False),
    sa.Column("changed", sa.Integer, nullable=False),
    sa.Column("deleted", sa.Integer, nullable=False),
    sa.Column("approval", sa.Text),
    sa.Column("restored", sa.BigInteger),
)

history = sa.Table(
    "history",
    _METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("serial", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("location", sa.Text, nullable=False),
    sa.Column("workstream", sa.Text),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("change", sa.Text, nullable=False),
    sa.Column("content", JsonText, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("git_commit", sa.Text),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("applied_at", Moment, nullable=False),
    sa.Column("approval", sa.Text),
    sa.Index("history_of_row", "kind", "address", "location", "id"),
)

locks = sa.Table(
    "locks",
    _METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("process_started", sa.Text, nullable=False),
)

sql_changes = sa.Table(
    "sql_changes",
    _METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("checksum", sa.Text, nullable=False),
    sa.Column("statements", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("expires", sa.Date, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("applied_at", Moment, nullable=False),
    sa.Column("serial", sa.BigInteger, nullable=False),
)

overrides = sa.Table(
    "overrides",
    _METADATA,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("location", sa.Text, primary_key=True),
    sa.Column("address", sa.Text, primary_key=True),
    sa.Column("field", sa.Text, primary_key=True),
    sa.Column("git_value", JsonText),
    sa.Column("value", JsonText),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("expires", sa.Date, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("serial", sa.BigInteger, nullable=False),
)
