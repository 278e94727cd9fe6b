"""The project of two teams that the control plane's tests have, with reviewed SQL changes beside it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from platform_core.control.reviewed_sql.applying import Done, apply_changes
from platform_core.control.reviewed_sql.planning import PlannedChange, Scope, plan_changes
from platform_core.control.store.overrides import Override, read_overrides
from tests.control_plane.conftest import AUTHOR, Databases, Project, all_databases, databases

__all__ = ["all_databases", "databases"]

SOON = (dt.datetime.now(dt.UTC) + dt.timedelta(days=30)).date()


class Changes:
    """Reviewed SQL changes of a project whose metadata is applied, at serial 1."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._number = 0

    def file(self, sql: str, *, name: str | None = None, header: str | None = None) -> Path:
        """Write one more file."""
        self._number += 1
        found = name or f"{self._number:04d}_change"
        top = header if header is not None else self.header()
        return self.project.write(f"control_sql/dev/{found}.sql", top + dedent(sql) + "\n")

    def header(
        self, *, owner: str = "team:crm", expires: dt.date | str = SOON, reason: str = "the source is down"
    ) -> str:
        return f"-- owner: {owner}\n-- expires: {expires}\n-- reason: {reason}\n"

    def scope(self) -> Scope:
        found = Scope(self.project.settings(), self.project.environment(), self.project.at_hand())
        found.look()
        return found

    def plan(self) -> list[PlannedChange]:
        return plan_changes(self.scope(), author=AUTHOR)

    def apply(self, sql: str | None = None, *, approve: str | None = None, header: str | None = None) -> list[Done]:
        """Apply what waits, after one more file where there is one."""
        if sql is not None:
            self.file(sql, header=header)
        return apply_changes(self.scope(), author=AUTHOR, approval=approve)

    def overrides(self) -> list[Override]:
        return self.project.at_hand().read(read_overrides)

    def value(self, column: str, name: str = "orders", table: str = "ingestion") -> object:
        """A live value."""
        [(found,)] = self.project.sql(f'SELECT "{column}" FROM control.{table} WHERE name = :name', name=name)
        return found

    def expire(self) -> None:
        """Let the day pass on which overrides end."""
        self.project.sql("UPDATE control.overrides SET expires = :day", day=dt.date(2020, 1, 31).isoformat())


@pytest.fixture
def changes(databases: Databases, tmp_path: Path) -> Changes:
    """A project whose metadata is applied, and reviewed SQL changes of it."""
    return Changes(databases.project(tmp_path, state="applied"))


@pytest.fixture
def json_cast(changes: Changes) -> Callable[[str], str]:
    """How a JSON text is written into a column in this database's dialect."""
    return (lambda text: f"CAST('{text}' AS json)") if changes.project.schema else (lambda text: f"'{text}'")
