"""The log of refreshes: which version of each table a dashboard was shown, and as of when.

Beside it lies what the plug-in of a dashboard remembers from one attempt to the next.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from platform_core.control.database import Database
from platform_core.control.tables import SCHEMA, Moment, columns_of, identity, of_person, of_table
from platform_core.plugins.interfaces import ShownTable
from platform_core.specs.person import Person
from platform_core.specs.table import TableRef

_METADATA = sa.MetaData(schema=SCHEMA)
_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_LONGEST_ERROR = 4_000
_PATIENCE = 10.0

refreshes = sa.Table(
    "refreshes",
    _METADATA,
    sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("workstream", sa.Text, nullable=False),
    sa.Column("layer", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("as_of", Moment, nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("ended_at", Moment, nullable=False),
    sa.Column("cut", _JSON, nullable=False),
    sa.Column("moved", _JSON, nullable=False),
    sa.Column("figures", _JSON, nullable=False),
    sa.Column("url", sa.Text),
    sa.Column("error", sa.Text),
)

memory = sa.Table(
    "refresh_memory",
    _METADATA,
    sa.Column("workstream", sa.Text, primary_key=True),
    sa.Column("layer", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("remembered", _JSON, nullable=False),
    sa.Column("changed_at", Moment, nullable=False),
)

RefreshStatus = Literal["succeeded", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class RefreshRow:
    """One attempt to refresh a dashboard that had its tables open; times are UTC.

    Args:
        dashboard: the dashboard.
        status: how it ended.
        run_id: the Dagster run; None outside of one.
        as_of: when the newest shown table was made.
        cut: what was shown of each table, by its full name.
        moved: tables that had a newer version when the refresh ended.
        figures: of the plug-in.
        url: where a person finds it; None if unknown.
        error: why it failed, without row values; None where it succeeded.
    """

    dashboard: TableRef
    status: RefreshStatus
    run_id: str | None
    as_of: dt.datetime
    started_at: dt.datetime
    ended_at: dt.datetime
    cut: Mapping[str, ShownTable]
    moved: tuple[str, ...] = ()
    figures: Mapping[str, int | float | str] = field(default_factory=dict)
    url: str | None = None
    error: str | None = None


class RefreshLog:
    """Refreshes in one control database; of a person's own dashboards in a personal environment."""

    def __init__(self, database: Database, *, person: Person | None = None) -> None:
        self._database = database
        self._person = person

    def record(self, row: RefreshRow) -> None:
        """Note how a refresh ended.

        Raises:
            ControlError: the database is away or refused; nothing was written.
        """
        values = {
            **columns_of(self._own(row.dashboard)),
            "status": row.status,
            "run_id": row.run_id,
            "as_of": row.as_of,
            "started_at": row.started_at,
            "ended_at": row.ended_at,
            "cut": {name: _as_json(shown) for name, shown in row.cut.items()},
            "moved": list(row.moved),
            "figures": dict(row.figures),
            "url": row.url,
            "error": row.error[:_LONGEST_ERROR] if row.error else None,
        }
        self._database.transact(lambda connection: connection.execute(refreshes.insert(), values), patience=_PATIENCE)

    def recent(self, dashboard: TableRef | None = None, *, limit: int = 20) -> list[RefreshRow]:
        """The newest attempts first, of one dashboard or of all; ControlError where the database is away."""
        query = sa.select(refreshes).order_by(refreshes.c.id.desc()).limit(limit)
        values: dict[str, Any] = {}
        if dashboard is None:
            query = query.where(of_person(refreshes, self._person))
        else:
            query, values = query.where(of_table(refreshes)), identity(self._own(dashboard))
        return self._read(query, values)

    def newest(self) -> dict[TableRef, RefreshRow]:
        """The last attempt of each dashboard; ControlError where the database is away."""
        last = sa.select(sa.func.max(refreshes.c.id)).group_by(
            refreshes.c.workstream, refreshes.c.layer, refreshes.c.name
        )
        return self._by_dashboard(last)

    def shown(self) -> dict[TableRef, RefreshRow]:
        """The last success of each dashboard: what it shows now; ControlError where the database is away."""
        last = (
            sa.select(sa.func.max(refreshes.c.id))
            .where(refreshes.c.status == "succeeded")
            .group_by(refreshes.c.workstream, refreshes.c.layer, refreshes.c.name)
        )
        return self._by_dashboard(last)

    def remembered(self, dashboard: TableRef) -> Mapping[str, Any]:
        """What the plug-in of a dashboard remembered last; ControlError where the database is away."""
        query = sa.select(memory.c.remembered).where(of_table(memory))
        found = self._database.transact(
            lambda connection: connection.execute(query, identity(self._own(dashboard))).scalar(), patience=_PATIENCE
        )
        return found or {}

    def remember(self, dashboard: TableRef, what: Mapping[str, Any]) -> None:
        """Keep what a plug-in remembers, in place of what it did before; ControlError where the database is away."""
        own = self._own(dashboard)

        def work(connection: sa.Connection) -> None:
            changes = {"remembered": dict(what), "changed_at": self._database.clock(connection)}
            changed = connection.execute(sa.update(memory).where(of_table(memory)).values(**changes), identity(own))
            if not changed.rowcount:
                connection.execute(memory.insert(), {**columns_of(own), **changes})

        self._database.transact(work, patience=_PATIENCE)

    def _by_dashboard(self, ids: sa.Select[Any]) -> dict[TableRef, RefreshRow]:
        query = sa.select(refreshes).where(refreshes.c.id.in_(ids), of_person(refreshes, self._person))
        return {row.dashboard: row for row in self._read(query, {})}

    def _read(self, query: sa.Select[Any], values: Mapping[str, Any]) -> list[RefreshRow]:
        rows = self._database.transact(lambda connection: connection.execute(query, values).all(), patience=_PATIENCE)
        found = [_row(row) for row in rows]
        if self._person is None:
            return found
        return [replace(row, dashboard=self._person.plain(row.dashboard)) for row in found]

    def _own(self, dashboard: TableRef) -> TableRef:
        return dashboard if self._person is None else self._person.table(dashboard)


def _row(row: sa.Row[Any]) -> RefreshRow:
    return RefreshRow(
        dashboard=TableRef(row.workstream, row.layer, row.name),
        status=row.status,
        run_id=row.run_id,
        as_of=row.as_of,
        started_at=row.started_at,
        ended_at=row.ended_at,
        cut={name: _shown(value) for name, value in row.cut.items()},
        moved=tuple(row.moved),
        figures=row.figures,
        url=row.url,
        error=row.error,
    )


def _as_json(shown: ShownTable) -> dict[str, Any]:
    return {
        "version": shown.version,
        "batch": shown.batch,
        "made_at": shown.made_at.isoformat() if shown.made_at else None,
    }


def _shown(value: Mapping[str, Any]) -> ShownTable:
    made_at = value.get("made_at")
    return ShownTable(
        version=int(value["version"]),
        batch=int(value["batch"]),
        made_at=dt.datetime.fromisoformat(made_at) if made_at else None,
    )
