"""`edp ddl`: what it prints, and the codes it ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Call = Callable[..., Result]


@pytest.fixture
def migrations(project: Path) -> Path:
    """The project with two migrations."""
    folder = project / "cli_shop" / "ddl" / "shop"
    folder.mkdir(parents=True)
    (folder / "0001_targets.sql").write_text(
        "CREATE TABLE gold.targets (month DATE NOT NULL, revenue DECIMAL(12, 2));\n"
        "ALTER TABLE gold.targets ADD CONSTRAINT positive CHECK (revenue > 0);\n"
    )
    (folder / "0002_view.sql").write_text("CREATE VIEW gold.plan AS SELECT month, revenue FROM gold.targets;\n")
    return folder


def test_a_plan_says_what_will_be_done_and_ends_with_two(call: Call, migrations: Path) -> None:
    result = call("ddl", "plan")

    assert result.exit_code == 2
    assert result.output == (
        "+ shop/0001_targets\n"
        "    1. create table shop.gold.targets (2 columns)\n"
        "    2. add constraint positive to shop.gold.targets: revenue > 0\n"
        "       every row of the table is checked before, and every later write\n"
        "+ shop/0002_view\n"
        "    1. create view shop.gold.plan over shop.gold.targets\n"
        "\n"
        "Plan: 2 migrations, 3 statements to make\n"
    )


def test_apply_then_plan_then_status(call: Call, migrations: Path) -> None:
    result = call("ddl", "apply", "--author", "Ada <ada@example.com>")

    assert result.exit_code == 0, result.output
    assert result.output == (
        "shop/0001_targets: create table shop.gold.targets (2 columns) (version 0)\n"
        "shop/0001_targets: add constraint positive to shop.gold.targets: revenue > 0 (version 1)\n"
        "shop/0002_view: create view shop.gold.plan over shop.gold.targets\n"
        "applied 2 migrations, 3 statements\n"
    )
    again = call("ddl", "plan")
    assert (again.exit_code, again.output) == (0, "nothing to do\n")
    status = call("ddl", "status")
    assert status.exit_code == 0
    heading, *rows = status.output.splitlines()
    assert heading.split() == ["MIGRATION", "TARGET", "STATUS", "DONE", "APPLIED", "(UTC)", "AUTHOR", "SECONDS"]
    assert [row.split()[:4] for row in rows] == [
        ["shop/0001_targets", "lake", "applied", "2/2"],
        ["shop/0002_view", "lake", "applied", "1/1"],
    ]


def test_a_destructive_plan_says_that_it_needs_approval(call: Call, migrations: Path) -> None:
    call("ddl", "apply")
    (migrations / "0003_drop.sql").write_text("DROP VIEW gold.plan;\n")

    planned = call("ddl", "plan")
    refused = call("ddl", "apply")

    assert planned.exit_code == 2
    assert planned.output == (
        "! shop/0003_drop\n"
        "    1. drop view shop.gold.plan\n"
        "       loses view shop.gold.plan: needs --approve\n"
        "\n"
        "Plan: 1 migration, 1 statement to make; 1 to approve\n"
    )
    assert refused.exit_code == 1
    assert call("ddl", "apply", "--approve", "  ").exit_code == 1
    assert call("ddl", "apply", "--approve", "nobody reads it").exit_code == 0
    assert "shop/0003_drop was approved: nobody reads it" in call("ddl", "status").output


def test_json_is_whole(call: Call, migrations: Path) -> None:
    planned = json.loads(call("ddl", "plan", "--json").output)
    applied = json.loads(call("ddl", "apply", "--json", "--location", "shop").output)
    status = json.loads(call("ddl", "status", "--json").output)

    assert [each["name"] for each in planned["migrations"]] == ["0001_targets", "0002_view"]
    assert planned["migrations"][0]["statements"][1]["line"] == 2
    assert [(each["migration"], each["statements"]) for each in applied] == [
        ("shop/0001_targets", 2),
        ("shop/0002_view", 1),
    ]
    assert [each["status"] for each in status["migrations"]] == ["applied", "applied"]


def test_status_ends_with_one_where_files_and_history_do_not_fit(call: Call, migrations: Path) -> None:
    call("ddl", "apply")
    (migrations / "0002_view.sql").unlink()

    status = call("ddl", "status")

    assert status.exit_code == 1
    assert "cli_shop/ddl/shop/0002_view.sql: the file of migration 0002 is missing" in status.output


def test_what_an_ingestion_or_step_makes_is_known(call: Call, migrations: Path) -> None:
    (migrations / "0003_bronze.sql").write_text("CREATE TABLE bronze.orders (a INTEGER);\n")
    bronze = call("ddl", "plan")
    (migrations / "0003_bronze.sql").write_text("ALTER TABLE gold.forecast ADD COLUMN a INTEGER;\n")
    step = call("ddl", "plan")

    assert "bronze tables are made by ingestion alone" in str(bronze.exception)
    assert "table 'shop.gold.forecast' is declared, but was not built yet" in str(step.exception)


def test_an_unknown_location_is_refused(call: Call, migrations: Path) -> None:
    assert str(call("ddl", "plan", "--location", "shp").exception) == "unknown location 'shp'\n  known locations: shop"


def test_check_knows_tables_and_views_of_migrations(call: Call, project: Path, migrations: Path) -> None:
    (project / "cli_shop" / "q.sql").write_text("SELECT month FROM gold.plan")
    (project / "cli_shop" / "control" / "processing.yaml").write_text(
        "steps:\n  - {name: months, layer: gold, kind: sql, sql: q.sql}\n"
    )

    assert call("check").exit_code == 0, call("check").output
    (project / "cli_shop" / "q.sql").write_text("SELECT month FROM gold.plans")
    assert "unknown table 'gold.plans'" in call("check").output
