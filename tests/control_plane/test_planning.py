"""A plan says what an apply would do, field by field, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from platform_core.control.plan.plan import Action, read_plan
from platform_core.errors import ConfigError, ControlError, PlanError
from tests.control_plane.conftest import Project, changed


def test_the_first_plan_creates_everything(project: Project) -> None:
    assert changed(project.plan()) == {
        "location crm": "create",
        "location finance": "create",
        "workstream crm": "create",
        "workstream finance": "create",
        "variable database": "create",
        "connection crm.crm": "create",
        "connection crm.lists": "create",
        "ingestion crm.customers": "create",
        "ingestion crm.orders": "create",
        "processing finance.gold.margin": "create",
        "refresh finance.board": "create",
    }


def test_what_is_applied_needs_no_plan(applied: Project) -> None:
    plan = applied.plan()
    assert plan.changes == ()
    assert plan.unchanged == 11


def test_a_plan_changes_nothing(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    first = applied.plan()
    assert changed(applied.plan()) == changed(first) == {"ingestion crm.orders": "update"}


def test_a_change_is_told_field_by_field_with_its_line(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 days\n    owners: [team:sales]")
    [change] = applied.plan().changes
    assert [(field.path, field.before, field.after, field.place) for field in change.fields] == [
        ("lookback", "2 hours", "3 days", "crm/control/ingestion.yaml:13"),
        ("owners", [], ["team:sales"], "crm/control/ingestion.yaml:14"),
    ]
    assert change.place == "crm/control/ingestion.yaml:9"


def test_a_mask_is_told_as_it_is_written(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "domain: email,", "domain: text,")
    [field] = applied.plan().changes[0].fields
    assert (field.path, field.before, field.after) == ("columns.email.domain", "email", "text")
    assert field.place == "crm/control/ingestion.yaml:7"


def test_the_order_of_declarations_is_no_change(applied: Project) -> None:
    file = applied.folder / "crm/control/connections.yaml"
    head, first, second = file.read_text().splitlines()
    file.write_text("\n".join([head, second, first]) + "\n")
    assert applied.plan().changes == ()


def test_what_left_git_is_deleted(applied: Project) -> None:
    (applied.folder / "finance/control/refresh.yaml").unlink()
    assert changed(applied.plan()) == {"refresh finance.board": "delete"}


def test_one_location_is_planned_alone(project: Project) -> None:
    plan = project.plan("crm")
    assert {change.location for change in plan.changes} == {"crm"}
    project.apply(plan)
    assert {change.location for change in project.plan().changes} == {"finance"}


def test_a_location_that_left_the_workspace_is_deleted_for_a_reason_only(applied: Project) -> None:
    applied.edit(
        "workspace.yaml",
        "  - python_module: {module_name: finance.definitions, location_name: finance, working_directory: .}\n",
        "",
    )
    plan = applied.plan()
    assert {(change.location, change.action) for change in plan.changes} == {("finance", Action.DELETE)}
    assert "location finance is gone" in plan.marks[0].message
    with pytest.raises(PlanError, match="location finance is gone"):
        applied.apply(plan)


def test_a_location_whose_files_are_elsewhere_keeps_its_rows(applied: Project) -> None:
    applied.edit(
        "workspace.yaml",
        "  - python_module: {module_name: finance.definitions, location_name: finance, working_directory: .}\n",
        "  - grpc_server: {location_name: accounts, host: accounts, port: 4000}\n",
    )
    applied.sql("UPDATE control.location SET location = 'accounts', name = 'accounts' WHERE name = 'finance'")
    plan = applied.plan("crm")
    assert plan.changes == ()
    assert "accounts" not in plan.locations


def test_wrong_control_files_are_not_planned(project: Project) -> None:
    project.edit("crm/control/ingestion.yaml", "mask: hash", "mask: hsah")
    with pytest.raises(ConfigError, match="unknown mask 'hsah'"):
        project.plan()


def test_a_plan_for_the_tables_of_another_environment_is_refused(applied: Project) -> None:
    applied.write_environment("prod")
    with pytest.raises(PlanError, match="the control tables hold environment 'dev', this is 'prod'"):
        applied.plan(environment="prod")


def test_tables_hold_no_folder_of_a_machine(applied: Project, tmp_path: Path) -> None:
    text = json.dumps([[str(value) for value in row] for row in applied.sql("SELECT * FROM control.connection")])
    assert str(tmp_path) not in text
    assert "${env.state}/crm.db" in text
    assert "${location.root}/lists" in text


def test_another_machine_finds_nothing_to_do(applied: Project, tmp_path: Path) -> None:
    elsewhere = Project(tmp_path / "elsewhere", applied.control, applied.password)
    elsewhere.control = (
        applied.control if applied.control else {"url": f"sqlite:///{applied.folder / 'state' / 'control.db'}"}
    )
    elsewhere.write_environment("dev")
    assert elsewhere.plan().changes == ()
    elsewhere.close()


def test_json_that_a_person_wrote_with_spaces_is_no_change(applied: Project) -> None:
    applied.sql("""UPDATE control.ingestion SET "key" = '[ "id" ]' WHERE name = 'orders'""")
    assert applied.plan().changes == ()


def test_a_value_that_a_person_changed_by_sql_is_planned_back(applied: Project) -> None:
    applied.sql("UPDATE control.ingestion SET lookback = '9 days' WHERE name = 'orders'")
    [field] = applied.plan().changes[0].fields
    assert (field.path, field.before, field.after) == ("lookback", "9 days", "2 hours")


def test_a_row_that_a_person_inserted_needs_its_identity_only(applied: Project) -> None:
    applied.sql(
        'INSERT INTO control.ingestion (location, workstream, name, source, object, mode, "key") '
        "VALUES ('crm', 'crm', 'leads', 'crm', 'leads', 'full', '[\"id\"]')"
    )
    found = {spec.table: spec for spec in applied.manifest("crm").ingestions}["leads"]
    assert (found.max_delete_ratio, found.parallel, found.columns) == (0.5, 1, {})
    assert changed(applied.plan()) == {"ingestion crm.leads": "delete"}


def test_a_row_that_is_no_spec_is_named(applied: Project) -> None:
    applied.sql("UPDATE control.ingestion SET mode = 'sometimes' WHERE name = 'orders'")
    with pytest.raises(ControlError, match=r"ingestion crm.orders is no IngestionSpec(.|\n)*wrong: mode"):
        applied.manifest("crm")
    assert changed(applied.plan()) == {"ingestion crm.orders": "update"}


def test_a_plan_survives_its_file(project: Project, tmp_path: Path) -> None:
    plan = project.plan()
    file = tmp_path / "plan.json"
    file.write_text(plan.as_json())
    assert read_plan(file) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "the plan cannot be read: No such file"),
        ("{}", "this is no plan of this version"),
        ("not json", "this is no plan of this version"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "plan.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PlanError, match=said):
        read_plan(file)


def test_an_edited_plan_is_refused(applied: Project, tmp_path: Path) -> None:
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")
    file = tmp_path / "plan.json"
    file.write_text(applied.plan().as_json().replace("3 hours", "4 hours"))
    with pytest.raises(PlanError, match="the plan was edited after it had been made"):
        read_plan(file)


def test_an_older_format_is_refused(tmp_path: Path, project: Project) -> None:
    file = tmp_path / "plan.json"
    file.write_text(project.plan().model_copy(update={"format": 0}).as_json())
    with pytest.raises(PlanError, match="the plan has format 0; this version reads 2"):
        read_plan(file)
