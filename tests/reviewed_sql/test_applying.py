"""A reviewed SQL change is applied as it was planned, whole or not at all, and is traced like every apply."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from platform_core.control.plan.rendering import as_text
from platform_core.control.store.history import read_applies, read_versions
from platform_core.control.store.rows import applied_serial
from platform_core.errors import ConfigError, PlanError
from tests.control_plane.conftest import AUTHOR
from tests.reviewed_sql.conftest import SOON, Changes


def test_a_change_is_one_apply_with_the_next_serial(changes: Changes) -> None:
    [done] = changes.apply("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders';")
    assert (done.applied.serial, done.applied.created, done.applied.changed, done.applied.deleted) == (2, 0, 1, 0)
    assert changes.value("lookback") == "5 hours"
    [apply, _] = changes.project.store().read(lambda connection: read_applies(connection, limit=5))
    assert (apply.serial, apply.origin, apply.author) == (2, "sql", AUTHOR)
    assert apply.plan == done.planned.plan.digest
    assert changes.apply() == []


def test_a_row_tells_that_it_comes_from_a_reviewed_change(changes: Changes) -> None:
    changes.apply("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'")
    rows = changes.project.sql("SELECT name, origin, author, serial, length(hash) FROM control.ingestion")
    assert sorted(rows) == [("customers", "git", AUTHOR, 1, 64), ("orders", "sql", AUTHOR, 2, 64)]
    newest, *_ = changes.project.store().read(
        lambda connection: read_versions(connection, kind="ingestion", address="crm.orders")
    )
    assert (newest.serial, newest.origin, newest.change) == (2, "sql", "changed")
    assert newest.content["lookback"] == "5 hours"


def test_what_was_applied_is_remembered(changes: Changes) -> None:
    changes.apply("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'")
    [row] = changes.project.sql(
        "SELECT number, name, owner, reason, author, serial, statements FROM control.sql_changes"
    )
    assert row == (1, "0001_change", "team:crm", "the source is down", AUTHOR, 2, 1)
    [override] = changes.overrides()
    assert (override.field, override.git_value, override.value) == ("lookback", "2 hours", "5 hours")
    assert (override.owner, override.expires, override.file, override.serial) == ("team:crm", SOON, "0001_change", 2)


def test_changes_are_applied_in_order_each_with_its_serial(changes: Changes) -> None:
    changes.file("UPDATE ingestion SET parallel = 2 WHERE name = 'orders'")
    changes.file("UPDATE ingestion SET parallel = parallel * 3 WHERE name = 'orders'")
    assert [len(each.plan.changes) for each in changes.plan()] == [1, 1]
    assert [each.applied.serial for each in changes.apply()] == [2, 3]
    assert changes.value("parallel") == 6
    [override] = changes.overrides()
    assert (override.git_value, override.value, override.file) == (1, 6, "0002_change")


def test_a_plan_shows_rows_and_fields_and_changes_nothing(changes: Changes) -> None:
    changes.file(
        """\
        UPDATE ingestion SET lookback = '5 hours', parallel = 1 WHERE name = 'orders';

        DELETE FROM refresh
        WHERE name = 'board';
        """
    )
    before = changes.project.sql("SELECT * FROM control.ingestion ORDER BY name")
    [planned] = changes.plan()
    text = as_text(planned.plan)
    assert "~ ingestion  crm.orders                      control_sql/dev/0001_change.sql:4" in text
    assert "    lookback: 2 hours -> 5 hours" in text
    assert (
        "- refresh    finance.board                   control_sql/dev/0001_change.sql:6  deleted by this change" in text
    )
    assert "reaches: 1 asset (finance.gold.margin), 1 dashboard (finance.dashboard.board) in finance" in text
    assert changes.project.sql("SELECT * FROM control.ingestion ORDER BY name") == before
    assert changes.project.sql("SELECT count(*) FROM control.sql_changes") == [(0,)]
    assert changes.project.store().read(applied_serial)[0] == 1


def test_a_weaker_mask_needs_a_reason(changes: Changes, json_cast: Callable[[str], str]) -> None:
    columns = '{"email": {"personal": true}, "name": {"personal": true, "masking": {"mask": "full"}}}'
    changes.file(f"UPDATE ingestion SET columns = {json_cast(columns)} WHERE name = 'customers'")
    with pytest.raises(PlanError, match=r"column 'email': mask hash is removed"):
        changes.apply()
    assert changes.project.store().read(applied_serial)[0] == 1
    changes.apply(approve="the owner agreed")
    [apply, _] = changes.project.store().read(lambda connection: read_applies(connection, limit=5))
    assert apply.approval == "the owner agreed"


def test_values_are_written_as_control_files_would_write_them(changes: Changes) -> None:
    changes.apply("UPDATE ingestion SET lookback = '180 minutes' WHERE name = 'orders'")
    assert changes.value("lookback") == "3 hours"


def test_the_order_of_keys_is_not_changed_by_the_database(changes: Changes) -> None:
    statement = (
        "UPDATE ingestion SET columns = CAST(jsonb_set(CAST(columns AS jsonb), '{email,personal}', 'false') AS json)"
        if changes.project.schema
        else "UPDATE ingestion SET columns = json_set(columns, '$.email.personal', json('false'))"
    )
    changes.apply(f"{statement} WHERE name = 'customers'", approve="tested")
    assert [(each.field, each.value) for each in changes.overrides()] == [("columns.email.personal", None)]
    assert list(json.loads(str(live_columns(changes)))) == ["email", "name"]


def live_columns(changes: Changes) -> object:
    [(found,)] = changes.project.sql("SELECT CAST(columns AS TEXT) FROM control.ingestion WHERE name = 'customers'")
    return found


def test_a_row_can_be_made_from_another_control_table(changes: Changes) -> None:
    changes.apply(
        """\
        INSERT INTO ingestion (location, workstream, name, source, object, mode)
        SELECT location, workstream, 'leads', name, 'leads', 'append' FROM connection WHERE name = 'crm';
        """
    )
    assert [spec.table for spec in changes.project.manifest("crm").ingestions] == ["customers", "leads", "orders"]
    [override] = changes.overrides()
    assert (override.path, override.git_value, override.value["object"]) == ((), None, "leads")


def test_a_row_that_may_be_there_is_changed(changes: Changes) -> None:
    changes.apply(
        """\
        INSERT INTO ingestion (location, workstream, name, source, object, mode)
        VALUES ('crm', 'crm', 'orders', 'crm', 'orders', 'append')
        ON CONFLICT (location, workstream, name) DO UPDATE SET lookback = '4 hours';
        """
    )
    assert (changes.value("lookback"), changes.value("mode")) == ("4 hours", "incremental")


def test_a_statement_that_meets_no_row_is_told_and_counts_as_applied(changes: Changes) -> None:
    changes.file("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'nobody'")
    [planned] = changes.plan()
    assert planned.plan.notes == ("control_sql/dev/0001_change.sql:4: no row meets the condition",)
    assert [each.applied.serial for each in changes.apply()] == [2]
    assert changes.apply() == []


def test_a_row_that_was_changed_by_hand_is_left_alone(changes: Changes) -> None:
    changes.project.sql("UPDATE control.ingestion SET parallel = 7 WHERE name = 'orders'")
    changes.file("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'")
    with pytest.raises(ConfigError, match=r"0001_change.sql:4: ingestion crm.orders was changed by hand"):
        changes.apply()
    changes.project.apply()
    assert changes.apply()[0].applied.changed == 1


def test_a_plan_from_before_a_change_is_refused(changes: Changes) -> None:
    changes.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    plan = changes.project.plan()
    changes.apply("UPDATE ingestion SET parallel = 2 WHERE name = 'customers'")
    with pytest.raises(PlanError, match="the control tables have moved"):
        changes.project.apply(plan)


def test_while_somebody_applies_a_change_waits(changes: Changes) -> None:
    changes.project.worker().ask("hold")
    changes.file("UPDATE ingestion SET parallel = 2 WHERE name = 'customers'")
    with pytest.raises(PlanError, match=r"locked by Worker <worker@example.com>"):
        changes.apply()


def test_the_plan_of_a_change_is_no_plan_for_edp_apply(changes: Changes) -> None:
    changes.file("UPDATE ingestion SET parallel = 2 WHERE name = 'customers'")
    [planned] = changes.plan()
    with pytest.raises(PlanError, match="edp sql apply"):
        changes.project.apply(planned.plan)


def test_a_column_that_is_null_takes_its_default(changes: Changes) -> None:
    changes.apply("UPDATE ingestion SET parallel = 4 WHERE name = 'orders'")
    changes.apply("UPDATE ingestion SET parallel = NULL WHERE name = 'orders'")
    assert changes.value("parallel") == 1
    assert changes.overrides() == []


def test_rows_that_others_have_broken_stand_in_nobodys_way(changes: Changes) -> None:
    changes.project.sql("UPDATE control.ingestion SET mode = 'weekly' WHERE name = 'customers'")
    changes.apply("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'")
    assert changes.value("mode", "customers") == "weekly"
    assert changes.value("lookback") == "5 hours"
