"""What a reviewed change makes of the rows must pass as control files; else nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from platform_core.errors import ConfigError
from tests.reviewed_sql.conftest import Changes


def refused(changes: Changes, sql: str) -> str:
    tables = ("location", "workstream", "connection", "ingestion", "refresh", "history", "applies", "state")
    before = [changes.project.sql(f"SELECT * FROM control.{table} ORDER BY 1, 2, 3") for table in tables]
    with pytest.raises(ConfigError) as found:
        changes.apply(sql, approve="tested")
    assert [changes.project.sql(f"SELECT * FROM control.{table} ORDER BY 1, 2, 3") for table in tables] == before
    assert changes.overrides() == []
    return str(found.value)


FAULTS = {
    "a value that is none of those known": (
        "UPDATE ingestion SET mode = 'weekly' WHERE name = 'orders'",
        "0001_change.sql:4: afterwards ingestion crm.orders mode: ",
    ),
    "a span that is none": (
        "UPDATE ingestion SET lookback = 'soon' WHERE name = 'orders'",
        "0001_change.sql:4: afterwards ingestion crm.orders lookback: ",
    ),
    "a rule over several fields": (
        "UPDATE ingestion SET mode = 'full', cursor = NULL WHERE name = 'orders'",
        "0001_change.sql:4: afterwards ingestion crm.orders",
    ),
    "a plug-in that there is not": (
        "UPDATE connection SET type = 'sqlitte' WHERE name = 'crm'",
        "0001_change.sql:4: afterwards connection crm.crm type: unknown source 'sqlitte'",
    ),
    "a connection that there is not": (
        "UPDATE ingestion SET source = 'erp' WHERE name = 'orders'",
        "0001_change.sql:4: afterwards ingestion crm.orders source: unknown connection 'erp'",
    ),
    "a reference from another location": (
        "DELETE FROM ingestion WHERE name = 'orders'",
        "0001_change.sql:4: afterwards processing finance.gold.margin depends_on",
    ),
    "a workstream that there is not": (
        "UPDATE ingestion SET workstream = 'sales' WHERE name = 'orders'",
        "0001_change.sql:4: afterwards ingestion sales.orders workstream: location 'crm' has no workstream 'sales'",
    ),
    "a location that there is not": (
        "UPDATE refresh SET location = 'sales'",
        "0001_change.sql:4: afterwards refresh finance.board location: there is no location 'sales'",
    ),
    "a location without its rows": (
        "DELETE FROM location WHERE name = 'crm'",
        "there is no location 'crm'",
    ),
    "the last workstream of a location": (
        "DELETE FROM workstream WHERE name = 'crm'",
        "location 'crm' has no workstream 'crm'",
    ),
    "an empty row": (
        "INSERT INTO ingestion (location, workstream, name) VALUES ('crm', 'crm', 'leads')",
        "0001_change.sql:4: afterwards ingestion crm.leads",
    ),
    "a row that is there": (
        "INSERT INTO ingestion (location, workstream, name) VALUES ('crm', 'crm', 'orders')",
        "0001_change.sql:4: the database refuses the statement: there is such a row already",
    ),
    "a name that is none": (
        "UPDATE ingestion SET name = 'a b/../c' WHERE name = 'orders'",
        "0001_change.sql:4: afterwards ingestion crm.a b/../c table: ",
    ),
    "a schedule that is none": (
        "UPDATE workstream SET schedule = {} WHERE name = 'crm'",
        "0001_change.sql:4: afterwards workstream crm schedule.cron: ",
    ),
}


@pytest.mark.parametrize(("sql", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_with_statement_row_and_field(
    changes: Changes, json_cast: Callable[[str], str], sql: str, said: str
) -> None:
    assert said in refused(changes, sql.replace("{}", json_cast('{"cron": "whenever"}')))


def test_the_statement_that_wrote_the_field_is_the_one_that_is_told(changes: Changes) -> None:
    said = refused(
        changes,
        """\
        UPDATE ingestion SET parallel = 2 WHERE name = 'orders';
        UPDATE ingestion SET mode = 'weekly' WHERE name = 'orders';
        UPDATE ingestion SET description = 'x' WHERE name = 'orders';
        """,
    )
    assert "0001_change.sql:5: afterwards ingestion crm.orders mode: " in said


def test_a_column_of_another_type_is_refused(changes: Changes) -> None:
    said = refused(changes, "UPDATE ingestion SET parallel = 'many' WHERE name = 'orders'")
    assert "0001_change.sql:4: " in said
    assert "many" not in said


def test_a_flag_is_true_or_false(changes: Changes) -> None:
    if changes.project.schema:
        # PostgreSQL reads the text as what it says.
        changes.apply("UPDATE ingestion SET snapshot_history = 'true' WHERE name = 'customers'", approve="tested")
        assert changes.value("snapshot_history", "customers") is True
        return
    said = refused(changes, "UPDATE ingestion SET snapshot_history = 'false' WHERE name = 'customers'")
    assert "ingestion crm.customers snapshot_history: expected true or false" in said


@pytest.mark.parametrize("text", ["{", "[1,]", '{"a": 1} x'])
def test_what_is_no_json_is_refused(changes: Changes, json_cast: Callable[[str], str], text: str) -> None:
    said = refused(changes, f"UPDATE ingestion SET options = {json_cast(text)} WHERE name = 'orders'")
    assert "0001_change.sql:4: " in said


def test_a_key_that_stands_twice_is_refused(changes: Changes, json_cast: Callable[[str], str]) -> None:
    text = '{"email": {"personal": true}, "email": {"personal": false}}'
    said = refused(changes, f"UPDATE ingestion SET columns = {json_cast(text)} WHERE name = 'orders'")
    assert "ingestion crm.orders columns: is no JSON, or names a key twice" in said


def test_values_stay_out_of_messages(changes: Changes) -> None:
    said = refused(changes, "UPDATE ingestion SET parallel = 'canary-4711' WHERE name = 'orders'")
    assert "canary" not in said


def test_a_row_without_a_name_is_refused(changes: Changes) -> None:
    said = refused(changes, "UPDATE connection SET location = NULL")
    assert "a column that names the row is empty" in said


def test_what_was_wrong_before_does_not_stand_in_the_way_of_a_hotfix(changes: Changes) -> None:
    (changes.project.folder / "finance/sql/margin.sql").unlink()
    changes.apply("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'")
    assert changes.value("lookback") == "5 hours"


def test_a_hotfix_is_possible_while_control_files_are_broken(changes: Changes) -> None:
    changes.project.write("crm/control/ingestion.yaml", "source: [\n")
    changes.apply("UPDATE ingestion SET lookback = '5 hours' WHERE name = 'orders'")
    assert changes.value("lookback") == "5 hours"


def test_the_values_of_a_variable_are_told_to_be_in_their_places_already(
    changes: Changes, json_cast: Callable[[str], str]
) -> None:
    value = json_cast('{"dev": "other.db"}')
    changes.file(f"UPDATE variable SET \"values\" = {value} WHERE name = 'database'")
    [planned] = changes.plan()
    assert "values of variables are filled in already where they are used" in planned.plan.notes[0]


def test_a_row_that_others_have_broken_hides_no_fault_of_a_change(changes: Changes) -> None:
    changes.project.sql("UPDATE control.ingestion SET mode = 'weekly' WHERE name = 'customers'")
    said = refused(changes, "UPDATE ingestion SET source = 'erp' WHERE name = 'orders'")
    assert "0001_change.sql:4: afterwards ingestion crm.orders source: unknown connection 'erp'" in said
    assert "weekly" not in said
    assert "customers" not in said
