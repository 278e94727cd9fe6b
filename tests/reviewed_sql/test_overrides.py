"""What a reviewed change sets holds against git until it expires, and git is told of it in every plan."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest

from platform_core.control.plan.plan import EndReason, MarkKind
from platform_core.control.plan.rendering import as_markdown, as_text
from platform_core.control.store.rows import applied_serial
from platform_core.errors import PlanError
from tests.control_plane.conftest import changed
from tests.reviewed_sql.conftest import SOON, Changes

LOOKBACK = "UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'"


def test_a_plan_leaves_an_override_alone_and_lists_it(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    plan = changes.project.plan()
    assert plan.changes == ()
    assert plan.is_empty
    [shown] = plan.overrides
    assert (shown.field, shown.git, shown.value, shown.owner) == ("lookback", "2 hours", "5 hours", "team:crm")
    told = (
        f"ingestion crm.orders lookback: 5 hours holds instead of 2 hours until {SOON} by team:crm "
        "(0001_change: the source is down)"
    )
    assert as_text(plan).splitlines()[0] == f"= {told}"
    assert as_text(plan).endswith("Plan: nothing to do, 11 unchanged, 1 overridden")
    assert "**Overridden** (left as it is until it expires)" in as_markdown(plan)
    assert json.loads(plan.as_json())["overrides"][0]["expires"] == f"{SOON}"


def test_other_fields_of_the_row_follow_git(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 2 hours\n    parallel: 2")
    plan = changes.project.plan()
    assert [field.path for change in plan.changes for field in change.fields] == ["parallel"]
    changes.project.apply(plan)
    assert (changes.value("lookback"), changes.value("parallel")) == ("5 hours", 2)
    assert len(changes.overrides()) == 1


def test_other_columns_of_the_table_follow_git(changes: Changes, json_cast: Callable[[str], str]) -> None:
    columns = (
        '{"email": {"personal": true, "masking": {"mask": "hash", "options": {"domain": "email"}}}, '
        '"name": {"personal": true, "masking": {"mask": "null"}}}'
    )
    changes.apply(f"UPDATE ingestion SET columns = {json_cast(columns)} WHERE name = 'customers'", approve="tested")
    assert [each.field for each in changes.overrides()] == ["columns.name.masking.mask"]
    changes.project.edit("crm/control/ingestion.yaml", "domain: email", "domain: text")
    [change] = changes.project.plan().changes
    assert [field.path for field in change.fields] == ["columns.email.domain"]


def test_after_its_last_day_the_plan_shows_the_change_back(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.expire()
    plan = changes.project.plan()
    assert changed(plan) == {"ingestion crm.orders": "update"}
    assert plan.overrides == ()
    [ended] = plan.ends
    assert ended.why is EndReason.EXPIRED
    assert "override of ingestion crm.orders lookback by 0001_change (team:crm) expired on 2020-01-31" in as_text(plan)
    changes.project.apply(plan)
    assert changes.value("lookback") == "2 hours"
    assert changes.overrides() == []


def test_once_git_says_the_same_the_override_vanishes(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 5 hours")
    plan = changes.project.plan()
    assert plan.changes == ()
    assert [each.why for each in plan.ends] == [EndReason.SETTLED]
    assert not plan.is_empty
    assert changes.project.apply(plan).serial == 3
    assert changes.overrides() == []
    # From now on git counts.
    changes.project.edit("crm/control/ingestion.yaml", "lookback: 5 hours", "lookback: 6 hours")
    assert changed(changes.project.plan()) == {"ingestion crm.orders": "update"}


def test_a_plan_says_where_git_has_moved_on(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    plan = changes.project.plan()
    assert plan.changes == ()
    [mark] = plan.marks
    assert (mark.kind, mark.approval) == (MarkKind.OVERRIDE, False)
    assert "ingestion crm.orders lookback is overridden by 0001_change, and git says something else" in mark.message
    assert plan.overrides[0].git == "3 hours"


def test_a_row_that_leaves_git_goes_and_the_plan_says_that_it_was_overridden(changes: Changes) -> None:
    changes.apply("UPDATE refresh SET title = 'Down' WHERE name = 'board'")
    (changes.project.folder / "finance/control/refresh.yaml").unlink()
    plan = changes.project.plan()
    assert changed(plan) == {"refresh finance.board": "delete"}
    [mark] = plan.changes[0].marks
    assert "it is overridden by 0001_change (team:crm" in mark.message
    with pytest.raises(PlanError, match="need a person's reason"):
        changes.project.apply(plan)
    changes.project.apply(plan, approve="no longer needed")
    assert changes.overrides() == []


def test_a_row_that_only_the_environment_has_stays_until_it_expires(changes: Changes) -> None:
    changes.apply(
        "INSERT INTO ingestion (location, workstream, name, source, object, mode) "
        "VALUES ('crm', 'crm', 'leads', 'crm', 'leads', 'append')"
    )
    plan = changes.project.plan()
    assert plan.is_empty
    assert "ingestion crm.leads is kept as it is until" in as_text(plan)
    changes.expire()
    plan = changes.project.plan()
    assert changed(plan) == {"ingestion crm.leads": "delete"}
    changes.project.apply(plan)
    assert changes.project.plan().is_empty


def test_a_row_that_the_environment_has_not_stays_away_until_it_expires(changes: Changes) -> None:
    changes.apply("DELETE FROM refresh WHERE name = 'board'")
    plan = changes.project.plan()
    assert plan.is_empty
    assert "refresh finance.board is removed until" in as_text(plan)
    changes.project.edit("finance/control/refresh.yaml", "title: Orders", "title: All orders")
    plan = changes.project.plan()
    assert plan.is_empty
    assert "refresh finance.board is overridden by 0001_change, and git says something else" in plan.marks[0].message
    changes.expire()
    assert changed(changes.project.plan()) == {"refresh finance.board": "create"}


def test_a_row_that_git_deletes_too_is_settled(changes: Changes) -> None:
    changes.apply("DELETE FROM refresh WHERE name = 'board'")
    (changes.project.folder / "finance/control/refresh.yaml").unlink()
    plan = changes.project.plan()
    assert (plan.changes, [each.why for each in plan.ends]) == ((), [EndReason.SETTLED])


def test_a_change_that_sets_what_git_says_ends_the_override(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.apply("UPDATE ingestion SET lookback = '2 hours' WHERE name = 'orders'")
    assert changes.overrides() == []
    assert changes.project.plan().is_empty


def test_a_change_that_sets_the_same_again_prolongs_the_override(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    later = SOON + dt.timedelta(days=60)
    changes.apply(LOOKBACK, header=changes.header(owner="team:finance", expires=later))
    [override] = changes.overrides()
    assert (override.git_value, override.owner, override.expires, override.file, override.serial) == (
        "2 hours",
        "team:finance",
        later,
        "0002_change",
        3,
    )


def test_a_change_of_another_field_leaves_earlier_overrides_to_their_owner(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.apply(
        "UPDATE ingestion SET parallel = 2 WHERE name = 'orders'", header=changes.header(owner="team:finance")
    )
    assert {each.field: (each.owner, each.file) for each in changes.overrides()} == {
        "lookback": ("team:crm", "0001_change"),
        "parallel": ("team:finance", "0002_change"),
    }


def test_a_hand_in_the_database_shows_as_before_also_on_a_row_with_an_override(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.project.sql("UPDATE control.ingestion SET parallel = 9, lookback = '9 hours' WHERE name = 'orders'")
    [change] = changes.project.plan().changes
    assert {field.path: (field.before, field.after) for field in change.fields} == {
        "parallel": (9, 1),
        "lookback": ("9 hours", "5 hours"),
    }
    changes.project.apply()
    assert (changes.value("lookback"), changes.value("parallel")) == ("5 hours", 1)


def test_a_rollback_restores_values_and_ends_later_overrides(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.apply("UPDATE ingestion SET parallel = 2 WHERE name = 'orders'")
    back = changes.project.rollback(2)
    assert [(each.why, each.path) for each in back.ends] == [(EndReason.ROLLED_BACK, ("parallel",))]
    assert changes.project.apply(back).serial == 4
    assert (changes.value("lookback"), changes.value("parallel")) == ("5 hours", 1)
    assert [each.field for each in changes.overrides()] == ["lookback"]
    assert changes.project.plan().is_empty
    changes.project.apply(changes.project.rollback(1))
    assert changes.value("lookback") == "2 hours"
    assert changes.overrides() == []
    # What was taken back does not wait again.
    assert changes.plan() == []


def test_what_git_and_an_override_make_together_is_checked(changes: Changes) -> None:
    changes.apply(
        "INSERT INTO connection (location, workstream, name, type, options) "
        "SELECT location, workstream, 'copy', type, options FROM connection WHERE name = 'crm'; "
        "UPDATE ingestion SET source = 'copy' WHERE name = 'orders'"
    )
    assert changes.project.plan().is_empty
    changes.project.sql("UPDATE control.overrides SET expires = '2020-01-31' WHERE kind = 'connection'")
    with pytest.raises(PlanError, match="what git says does not fit with overrides") as found:
        changes.project.plan()
    assert "ingestion crm.orders source: unknown connection 'copy'" in str(found.value)
    assert "ingestion crm.orders source by 0001_change, team:crm" in str(found.value)


def test_planning_one_location_leaves_overrides_of_others_alone(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    assert changes.project.plan("finance").overrides == ()
    assert len(changes.project.plan("crm").overrides) == 1


def test_an_apply_that_only_ends_overrides_is_one_with_a_serial(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 5 hours")
    changes.project.apply()
    assert changes.project.store().read(applied_serial)[0] == 3
    assert changes.project.apply().serial == 3
