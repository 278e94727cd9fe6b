"""Whatever a person writes into the control tables, the next plan tells of it and the next apply puts it right."""

from __future__ import annotations

import pytest

from platform_core.control.plan.declared import manifest_rows
from platform_core.control.plan.rendering import as_markdown, as_text
from platform_core.control.store.history import live_version
from platform_core.control.store.rows import read_rows
from platform_core.errors import ControlError
from tests.control_plane.conftest import Project, changed

WRITTEN = {
    "columns": ["[1]", "5", '"hash"', '{"email": 5}', '{"email": {"masking": "hash"}}', '{"email": {"masking": {}}}'],
    "key": ['"id"', '{"id": 1}', "5", '["name"]', "[1, null]"],
    "select": ["5", '{"id": 1}', '["id"]'],
    "options": ["[]"],
    "mode": ["weekly", "append"],
    "lookback": ["soon"],
    "cursor": ["", "updated_at; "],
}
JSON_COLUMNS = ("columns", "key", "select", "options")
NO_JSON = ["oops", "{", "", "[1,]"]


def write(project: Project, column: str, value: str) -> None:
    cast = "CAST(:value AS json)" if column in JSON_COLUMNS and project.schema else ":value"
    project.sql(f"UPDATE control.ingestion SET \"{column}\" = {cast} WHERE name = 'customers'", value=value)


def assert_put_right(project: Project) -> None:
    plan = project.plan()
    assert changed(plan)
    assert as_text(plan)
    assert as_markdown(plan)
    project.apply(plan, approve="put right")
    wanted = {}
    for location in ("crm", "finance"):
        wanted |= manifest_rows(project.manifest(location), state=project.folder / "state")
    assert project.store().read(read_rows) == wanted
    assert project.plan().changes == ()


@pytest.mark.parametrize("column", WRITTEN)
def test_a_value_of_another_shape_is_put_right(applied: Project, column: str) -> None:
    for value in WRITTEN[column]:
        write(applied, column, value)
        assert applied.store().read(lambda c: live_version(c, kind="ingestion", address="crm.customers")) is not None
        assert_put_right(applied)


@pytest.mark.parametrize("text", NO_JSON)
def test_a_text_that_is_no_json_is_refused_or_put_right(applied: Project, text: str) -> None:
    try:
        write(applied, "columns", text)
    except ControlError as refused:
        assert applied.schema, refused
        assert applied.plan().changes == ()
        return
    assert applied.store().read(lambda c: live_version(c, kind="ingestion", address="crm.customers")) is not None
    assert_put_right(applied)


def test_the_json_null_stands_for_what_is_left_out(applied: Project) -> None:
    before = applied.manifest("crm")
    write(applied, "options", "null")
    assert applied.plan().changes == ()
    assert applied.manifest("crm") == before


@pytest.mark.parametrize(
    ("kind", "columns", "values"),
    [
        ("ingestion", "location, workstream, name", "'crm', 'crm', 'leads'"),
        ("ingestion", "location, workstream, name, mode", "'crm', 'crm', 'leads', 'weekly'"),
        ("processing", "location, workstream, layer, name", "'finance', 'finance', 'gold', 'cost'"),
        ("refresh", "location, workstream, name", "'finance', 'finance', 'panel'"),
        ("connection", "location, workstream, name", "'crm', 'crm', 'shop'"),
        ("workstream", "location, name", "'crm', 'sales'"),
        ("upkeep", "location, workstream, name", "'crm', 'crm', 'weekly'"),
    ],
)
def test_a_row_that_lacks_what_it_needs_is_removed(applied: Project, kind: str, columns: str, values: str) -> None:
    applied.sql(f"INSERT INTO control.{kind} ({columns}) VALUES ({values})")
    assert_put_right(applied)


def test_a_row_that_a_person_deleted_comes_back(applied: Project) -> None:
    applied.sql("DELETE FROM control.location WHERE name = 'crm'")
    applied.sql("DELETE FROM control.ingestion")
    assert_put_right(applied)


def test_a_row_that_another_team_spoiled_keeps_nobody_from_planning(applied: Project) -> None:
    applied.sql("UPDATE control.processing SET depends_on = '5' WHERE name = 'margin'")
    applied.edit(
        "workspace.yaml",
        "  - python_module: {module_name: finance.definitions, location_name: finance, working_directory: .}\n",
        "",
    )
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    assert changed(applied.plan("crm")) == {"ingestion crm.orders": "update"}
