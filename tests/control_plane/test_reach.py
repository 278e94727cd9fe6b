"""A change tells what lies downstream of it, in all locations."""

from __future__ import annotations

import json

from platform_core.control.plan.rendering import as_markdown, as_text
from tests.control_plane.conftest import Project, change_of

DBT = {
    "nodes": {
        "model.shop.daily": {
            "resource_type": "model",
            "name": "daily",
            "fqn": ["shop", "marts", "daily"],
            "depends_on": {"nodes": ["source.shop.crm.orders"]},
        }
    },
    "sources": {"source.shop.crm.orders": {"source_name": "crm", "schema": "bronze", "name": "orders"}},
}


def with_dbt(project: Project, *, parsed: bool = True) -> None:
    project.write("finance/control/dbt.yaml", "projects:\n  - {name: shop, project: shop, layer: marts}\n")
    project.write("finance/shop/dbt_project.yml", "name: shop\n")
    if parsed:
        project.write("finance/shop/target/manifest.json", json.dumps(DBT))


def slower(project: Project) -> None:
    project.edit("crm/control/ingestion.yaml", "lookback: 2 hours", "lookback: 3 hours")


def test_a_change_reaches_steps_dashboards_and_their_owners_across_locations(applied: Project) -> None:
    slower(applied)
    [change] = applied.plan().changes
    reach = change.reach
    assert reach.assets == ("finance.gold.margin",)
    assert reach.dashboards == ("finance.dashboard.board",)
    assert reach.locations == ("finance",)
    assert reach.owners == ("m.owner@example.com", "team:finance")


def test_a_change_reaches_dbt_models(applied: Project) -> None:
    with_dbt(applied)
    applied.apply()
    slower(applied)
    [change] = applied.plan().changes
    assert change.reach.dbt_models == ("finance.marts.daily",)


def test_a_change_reaches_what_reads_a_view(applied: Project) -> None:
    applied.write("crm/ddl/crm/0001_open.sql", "CREATE VIEW silver.open AS SELECT id FROM bronze.customers\n")
    applied.write("crm/sql/count.sql", "SELECT count(*) AS n FROM silver.open\n")
    step = "{name: count, layer: gold, kind: sql, sql: sql/count.sql}"
    applied.write("crm/control/processing.yaml", f"steps:\n  - {step}\n")
    applied.apply()
    applied.edit("crm/control/ingestion.yaml", "mode: full", 'mode: full\n    description: "all of them"')
    [change] = applied.plan().changes
    assert change.reach.assets == ("crm.gold.count",)


def test_a_dbt_project_that_was_never_parsed_is_told(applied: Project) -> None:
    with_dbt(applied, parsed=False)
    assert any("dbt project finance.shop is not parsed" in note for note in applied.plan().notes)


def test_a_connection_reaches_the_tables_that_are_read_from_it(applied: Project) -> None:
    applied.edit("crm/control/variables.yaml", "${env.state}/crm.db", "/srv/crm.db")
    reach = change_of(applied.plan(), "crm.crm").reach
    assert reach.assets == ("crm.bronze.customers", "crm.bronze.orders", "finance.gold.margin")
    assert reach.dashboards == ("finance.dashboard.board",)


def test_a_location_that_is_planned_alone_still_reaches_the_others(applied: Project) -> None:
    slower(applied)
    assert applied.plan("crm").changes[0].reach.assets == ("finance.gold.margin",)


def test_a_location_that_only_the_tables_know_is_reached(applied: Project) -> None:
    applied.edit(
        "workspace.yaml",
        "  - python_module: {module_name: finance.definitions, location_name: finance, working_directory: .}\n",
        "",
    )
    slower(applied)
    assert applied.plan("crm").changes[0].reach.assets == ("finance.gold.margin",)


def test_the_plan_as_text_ends_in_its_counts(applied: Project) -> None:
    slower(applied)
    lines = as_text(applied.plan()).splitlines()
    assert lines == [
        "~ ingestion  crm.orders                      crm/control/ingestion.yaml:9",
        "    lookback: 2 hours -> 3 hours  (crm/control/ingestion.yaml:13)",
        "    reaches: 1 asset (finance.gold.margin), 1 dashboard (finance.dashboard.board) in finance; "
        "owners: m.owner@example.com, team:finance",
        "",
        "Plan: 0 to create, 1 to update, 0 to delete, 10 unchanged",
    ]


def test_the_plan_as_markdown_is_a_table_whose_texts_stay_texts(applied: Project) -> None:
    applied.edit("crm/control/ingestion.yaml", "lookback: 2 hours", 'lookback: 2 hours\n    description: "a | b *c*"')
    text = as_markdown(applied.plan())
    assert text.startswith("### Plan for `dev`\n\n**0 to create, 1 to update, 0 to delete, 10 unchanged**")
    assert r'description: "" -\> a \| b \*c\*' in text
    assert "`crm.orders`" in text
