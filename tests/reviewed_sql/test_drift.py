"""What an environment holds that git does not say is told value by value, with who made it so."""

from __future__ import annotations

from platform_core.control.plan.declared import read_declared
from platform_core.control.reviewed_sql.drift import Cause, DriftedRow, find_drift
from tests.reviewed_sql.conftest import Changes

LOOKBACK = "UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'"


def drift(changes: Changes) -> list[DriftedRow]:
    project = changes.project
    return find_drift(read_declared(project.settings()), project.environment(), project.at_hand())


def causes(changes: Changes) -> dict[str, dict[str, Cause]]:
    return {str(row.key): {value.field: value.cause for value in row.values} for row in drift(changes)}


def test_an_environment_that_holds_what_git_says_has_no_drift(changes: Changes) -> None:
    assert drift(changes) == []


def test_an_override_is_told_with_owner_end_and_file(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    [row] = drift(changes)
    [value] = row.values
    assert (value.field, value.git, value.live, value.cause) == ("lookback", "2 hours", "5 hours", Cause.OVERRIDE)
    assert value.override is not None
    assert (value.override.owner, value.override.file, value.override.serial) == ("team:crm", "0001_change", 2)
    assert row.place == "crm/control/ingestion.yaml:9"
    assert not value.expired
    changes.expire()
    assert drift(changes)[0].values[0].expired


def test_a_commit_that_is_newer_than_what_is_applied_is_told(changes: Changes) -> None:
    changes.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    [row] = drift(changes)
    [value] = row.values
    assert (value.git, value.live, value.cause) == ("3 hours", "2 hours", Cause.OLDER)
    assert value.provenance is not None
    assert (value.provenance.serial, value.provenance.origin) == (1, "git")


def test_a_hand_in_the_database_is_told(changes: Changes) -> None:
    changes.project.sql("UPDATE control.ingestion SET parallel = 9 WHERE name = 'orders'")
    assert causes(changes) == {"ingestion crm.orders": {"parallel": Cause.BY_HAND}}


def test_each_value_of_a_row_has_its_own_cause(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 2 hours\n    delete_floor: 3")
    changes.project.sql("UPDATE control.ingestion SET parallel = 9 WHERE name = 'orders'")
    assert causes(changes) == {
        "ingestion crm.orders": {"lookback": Cause.OVERRIDE, "parallel": Cause.BY_HAND, "delete_floor": Cause.OLDER}
    }


def test_a_value_that_a_hand_put_over_an_override_is_by_hand(changes: Changes) -> None:
    changes.apply(LOOKBACK)
    changes.project.sql("UPDATE control.ingestion SET lookback = '9 hours' WHERE name = 'orders'")
    assert causes(changes) == {"ingestion crm.orders": {"lookback": Cause.BY_HAND}}


def test_rows_that_only_one_side_has_are_told(changes: Changes) -> None:
    columns = "location, workstream, name, source, object, mode"
    insert = f"INSERT INTO {{}} ({columns}) VALUES ('crm', 'crm', '{{}}', 'crm', 'x', 'append')"
    changes.apply(insert.format("ingestion", "leads"))
    changes.apply("DELETE FROM refresh WHERE name = 'board'")
    changes.project.sql(insert.format("control.ingestion", "prospects"))
    changes.project.sql("DELETE FROM control.connection WHERE name = 'lists'")
    changes.project.write("finance/control/upkeep.yaml", "policies:\n  - {name: compaction, operation: compact}\n")
    assert causes(changes) == {
        "ingestion crm.leads": {"": Cause.OVERRIDE},
        "ingestion crm.prospects": {"": Cause.BY_HAND},
        "connection crm.lists": {"": Cause.BY_HAND},
        "refresh finance.board": {"": Cause.OVERRIDE},
        "upkeep finance.compaction": {"": Cause.OLDER},
    }


def test_a_row_that_has_left_git_and_is_not_applied_yet_is_older(changes: Changes) -> None:
    (changes.project.folder / "finance/control/refresh.yaml").unlink()
    assert causes(changes) == {"refresh finance.board": {"": Cause.OLDER}}
