"""Every version of every row is kept, can be shown as of a day, and can be gone back to."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from platform_core.control.store.history import (
    live_version,
    read_applies,
    read_versions,
    rows_at,
    serial_at,
    version_at,
)
from platform_core.control.store.rows import read_rows
from platform_core.errors import PlanError
from tests.control_plane.conftest import AUTHOR, Project, changed


def lookback(project: Project, old: str, new: str) -> None:
    project.edit("crm/control/ingestion.yaml", f"lookback: {old}", f"lookback: {new}")
    project.apply()


def test_every_version_of_a_row_is_kept(applied: Project) -> None:
    lookback(applied, "2 hours", "3 hours")
    applied.write("crm/control/ingestion.yaml", "source: crm\ntables: []\n")
    applied.write("finance/sql/margin.sql", "SELECT 1 AS id FROM crm.bronze.orders\n")
    for name in ("processing", "refresh"):
        (applied.folder / f"finance/control/{name}.yaml").unlink()
    applied.apply()
    found = applied.store().read(lambda c: read_versions(c, kind="ingestion", address="crm.orders"))
    assert [(each.serial, each.change, each.content["lookback"], each.author) for each in found] == [
        (3, "deleted", "3 hours", AUTHOR),
        (2, "changed", "3 hours", AUTHOR),
        (1, "created", "2 hours", AUTHOR),
    ]


def test_a_row_is_shown_as_it_was_at_a_moment(applied: Project) -> None:
    before = dt.datetime.now(dt.UTC)
    time.sleep(0.01)
    lookback(applied, "2 hours", "3 hours")

    def at(moment: dt.datetime) -> object:
        found = applied.store().read(lambda c: version_at(c, kind="ingestion", address="crm.orders", moment=moment))
        return found.content["lookback"] if found else None

    assert at(dt.datetime(2020, 1, 1, tzinfo=dt.UTC)) is None
    assert at(before) == "2 hours"
    assert at(dt.datetime.now(dt.UTC)) == "3 hours"
    assert applied.store().read(lambda c: serial_at(c, before)) == 1


def test_a_row_is_shown_as_it_is_whoever_wrote_it(applied: Project) -> None:
    applied.sql("UPDATE control.ingestion SET lookback = '9 days', origin = 'sql', author = 'me' WHERE name = 'orders'")
    found = applied.store().read(lambda c: live_version(c, kind="ingestion", address="crm.orders"))
    assert found is not None
    assert (found.content["lookback"], found.origin, found.author) == ("9 days", "sql", "me")


def test_applies_are_listed_newest_first(applied: Project) -> None:
    lookback(applied, "2 hours", "3 hours")
    found = applied.store().read(lambda c: read_applies(c, limit=5))
    assert [(each.serial, each.created, each.changed, each.deleted) for each in found] == [(2, 0, 1, 0), (1, 11, 0, 0)]


def test_the_tables_are_what_history_says(applied: Project) -> None:
    lookback(applied, "2 hours", "3 hours")
    (applied.folder / "finance/control/refresh.yaml").unlink()
    applied.apply()
    for serial, rows in ((3, 10), (2, 11), (1, 11)):
        assert len(applied.store().read(lambda c, n=serial: rows_at(c, serial=n))) == rows
    assert applied.store().read(lambda c: rows_at(c, serial=3)) == applied.store().read(read_rows)


def test_going_back_is_a_plan_like_any_other(applied: Project) -> None:
    lookback(applied, "2 hours", "3 hours")
    (applied.folder / "finance/control/refresh.yaml").unlink()
    applied.apply()
    plan = applied.rollback(1)
    assert changed(plan) == {"ingestion crm.orders": "update", "refresh finance.board": "create"}
    assert plan.restores == 1
    done = applied.apply(plan)
    assert done.serial == 4
    assert applied.store().read(lambda c: rows_at(c, serial=1)) == applied.store().read(read_rows)
    assert applied.store().read(lambda c: read_applies(c, limit=1))[0].restored == 1


def test_git_still_holds_what_was_taken_back(applied: Project) -> None:
    lookback(applied, "2 hours", "3 hours")
    plan = applied.rollback(1)
    assert "git still holds what is taken back" in plan.notes[0]
    applied.apply(plan)
    assert changed(applied.plan()) == {"ingestion crm.orders": "update"}


def test_going_back_to_a_weaker_mask_needs_a_reason(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "mask: hash, domain: email", "mask: full")
    applied.apply()
    plan = applied.rollback(1)
    with pytest.raises(PlanError, match="mask hash gives away more than full"):
        applied.apply(plan)


def test_there_is_a_way_back_while_control_files_are_broken(applied: Project) -> None:
    lookback(applied, "2 hours", "3 hours")
    applied.write("crm/control/ingestion.yaml", "tables: [\n")
    plan = applied.rollback(1)
    assert changed(plan) == {"ingestion crm.orders": "update"}
    assert plan.changes[0].reach.assets == ("finance.gold.margin",)
    assert any("control files cannot be read" in note for note in plan.notes)


def test_there_is_no_way_back_to_an_apply_that_never_was(applied: Project) -> None:
    with pytest.raises(PlanError, match="there is no apply with serial 7; the newest is 1"):
        applied.rollback(7)
