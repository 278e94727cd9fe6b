"""An apply does exactly what was planned, or nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from platform_core.control.plan import applying
from platform_core.control.plan.plan import Plan
from platform_core.control.store.lock import HeldLock, current_lock, locked, unlock
from platform_core.control.store.rows import applied_serial
from platform_core.errors import PlanError
from tests.control_plane.conftest import AUTHOR, Project, changed


def retitled(project: Project, title: str) -> Plan:
    """A plan of one change."""
    file = project.folder / "finance/control/refresh.yaml"
    lines = [line for line in file.read_text().splitlines() if "description" not in line]
    file.write_text("\n".join([*lines, f"    description: {title}"]) + "\n")
    return project.plan()


def serial(project: Project) -> int:
    return project.store().read(applied_serial)[0]


def test_an_apply_does_what_was_planned_and_counts_on(project: Project) -> None:
    done = project.apply()
    assert (done.serial, done.created, done.changed, done.deleted) == (1, 11, 0, 0)
    assert project.apply(retitled(project, "New")).serial == 2
    assert project.plan().changes == ()


def test_each_row_tells_where_it_comes_from(project: Project) -> None:
    plan = project.plan()
    project.apply(plan)
    rows = project.sql(
        "SELECT location, workstream, name, origin, author, serial, plan, length(hash) FROM control.ingestion"
    )
    told = ("git", AUTHOR, 1, plan.digest, 64)
    assert sorted(rows) == [("crm", "crm", "customers", *told), ("crm", "crm", "orders", *told)]


def test_rows_that_do_not_change_keep_their_serial(applied: Project) -> None:
    applied.apply(retitled(applied, "New"))
    rows = applied.sql("SELECT name, serial FROM control.refresh UNION SELECT name, serial FROM control.location")
    assert sorted(rows) == [("board", 2), ("crm", 1), ("finance", 1)]


def test_an_apply_without_changes_counts_nothing(applied: Project) -> None:
    assert applied.apply().serial == 1
    assert serial(applied) == 1


def test_a_plan_is_applied_once(applied: Project) -> None:
    plan = retitled(applied, "New")
    applied.apply(plan)
    with pytest.raises(PlanError, match=r"the control tables have moved .* made at serial 1, they stand at 2"):
        applied.apply(plan)


def test_a_plan_is_refused_once_the_tables_have_moved(applied: Project) -> None:
    late = retitled(applied, "Late")
    applied.apply(retitled(applied, "Early"))
    with pytest.raises(PlanError, match="the control tables have moved"):
        applied.apply(late)
    assert applied.sql("SELECT description FROM control.refresh") == [("Early",)]


def test_a_plan_is_refused_for_a_database_that_only_has_the_same_serial(applied: Project) -> None:
    late = retitled(applied, "Late")
    applied.sql("UPDATE control.state SET mark = 'of a backup'")
    with pytest.raises(PlanError, match="the control tables have moved"):
        applied.apply(late)


def test_a_plan_is_refused_if_a_row_of_it_was_changed_by_sql(applied: Project) -> None:
    plan = retitled(applied, "New")
    applied.sql("UPDATE control.refresh SET title = 'By hand'")
    with pytest.raises(PlanError, match=r"refresh finance\.board is no longer what the plan saw"):
        applied.apply(plan)
    assert applied.sql("SELECT title, description FROM control.refresh") == [("By hand", "")]


def test_a_row_that_is_changed_by_sql_elsewhere_does_not_stop_a_plan(applied: Project) -> None:
    plan = retitled(applied, "New")
    applied.sql("UPDATE control.workstream SET description = 'By hand' WHERE name = 'crm'")
    assert applied.apply(plan).serial == 2


def test_a_row_that_somebody_created_meanwhile_is_not_overwritten(project: Project) -> None:
    plan = project.plan()
    project.sql("INSERT INTO control.workstream (location, workstream, name) VALUES ('crm', 'crm', 'crm')")
    with pytest.raises(PlanError, match="workstream crm is no longer what the plan saw"):
        project.apply(plan)


def test_a_plan_for_another_environment_is_refused(applied: Project) -> None:
    plan = retitled(applied, "New")
    applied.write_environment("prod")
    with pytest.raises(PlanError, match="the plan was made for environment 'dev', this is 'prod'"):
        applied.apply(plan, environment="prod")


@pytest.mark.parametrize(
    ("part", "said"),
    [("platform_release", r"made by release .* of the platform, this is 9\.9\.9"), ("specs_digest", "whose specs are")],
)
def test_a_plan_of_another_release_is_refused(
    applied: Project, monkeypatch: pytest.MonkeyPatch, part: str, said: str
) -> None:
    plan = retitled(applied, "New")
    monkeypatch.setattr(applying, part, lambda: "9.9.9")
    with pytest.raises(PlanError, match=said):
        applied.apply(plan)


def test_an_edited_plan_is_refused_without_its_file_too(applied: Project) -> None:
    plan = retitled(applied, "New")
    with pytest.raises(PlanError, match="edited"):
        applied.apply(plan.model_copy(update={"notes": ("harmless",)}))


def test_while_somebody_applies_nobody_else_does(applied: Project) -> None:
    plan = retitled(applied, "New")
    store = applied.store()
    with (
        locked(store.database, purpose="applying a plan", author="B. Busy") as lock,
        pytest.raises(PlanError) as refused,
    ):
        applied.apply(plan)
    told = str(refused.value)
    assert "locked by B. Busy, process" in told
    assert f"{dt.datetime.now(dt.UTC):since %Y-%m-%d}" in told
    assert f"edp unlock {lock.id}" in told
    assert applied.apply(plan).serial == 2


def test_a_refused_apply_gives_the_lock_back(applied: Project) -> None:
    plan = retitled(applied, "New")
    applied.sql("UPDATE control.refresh SET title = 'By hand'")
    with pytest.raises(PlanError):
        applied.apply(plan)
    assert applied.store().read(current_lock) is None


def test_the_lock_of_a_process_that_was_killed_is_taken_over(applied: Project) -> None:
    holder = applied.worker()
    id_ = holder.ask("hold")
    plan = retitled(applied, "New")
    with pytest.raises(PlanError, match=id_):
        applied.apply(plan)
    holder.kill()
    assert applied.apply(plan).serial == 2


def test_a_lock_is_taken_away_by_its_id_only(applied: Project) -> None:
    store = applied.store()
    plan = retitled(applied, "New")
    with pytest.raises(PlanError, match="nobody holds the lock"):
        unlock(store.database, "of nobody")
    with locked(store.database, purpose="a test", author=AUTHOR) as lock:
        with pytest.raises(PlanError, match=f"the lock on the control tables is another one: {lock.id}, held by"):
            unlock(store.database, "guessed")
        assert unlock(store.database, lock.id).author == AUTHOR
        assert applied.apply(plan).serial == 2


def test_whoever_lost_the_lock_changes_nothing(applied: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = retitled(applied, "New")
    store = applied.store()

    @contextmanager
    def unlocked_at_once(*arguments: Any, **more: Any) -> Iterator[HeldLock]:
        """As if a person took the lock away before the transaction began."""
        with locked(*arguments, **more) as lock:
            unlock(store.database, lock.id)
            yield lock

    monkeypatch.setattr(applying, "locked", unlocked_at_once)
    with pytest.raises(PlanError, match="the lock on the control tables was taken away"):
        applied.apply(plan)
    assert serial(applied) == 1


def test_a_plan_with_marks_needs_a_reason(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "email: {mask: hash, domain: email, personal: true}", "id: {}")
    plan = applied.plan()
    assert plan.needs_approval
    for nothing in (None, "", "  "):
        with pytest.raises(PlanError, match=r"ingestion crm\.customers: column 'email': mask hash is removed"):
            applied.apply(plan, approve=nothing)
    applied.apply(plan, approve="Agreed with the owner")
    assert applied.sql("SELECT approval FROM control.applies ORDER BY serial") == [(None,), ("Agreed with the owner",)]
    assert applied.sql("SELECT change, approval FROM control.history WHERE serial = 2") == [
        ("changed", "Agreed with the owner")
    ]


def test_what_is_renamed_is_deleted_and_created(applied: Project) -> None:
    applied.edit("finance/control/refresh.yaml", "name: board", "name: panel")
    plan = applied.plan()
    assert changed(plan) == {"refresh finance.board": "delete", "refresh finance.panel": "create"}
    applied.apply(plan)
    assert applied.sql("SELECT name FROM control.refresh") == [("panel",)]
