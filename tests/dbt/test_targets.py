"""What `edp check` says of targets that an environment cannot build in, with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from platform_core.control.dbt_projects import check_dbt_targets
from platform_core.control.reading import read_control
from platform_core.control.report import Report
from platform_core.control.workspace import examine
from platform_core.settings import Settings
from platform_core.specs.environment import EnvironmentSpec

PROFILE = {
    "local": {"type": "duckdb"},
    "warehouse": {"type": "postgres"},
    "spark": {"type": "spark", "method": "session"},
    "cluster": {"type": "spark", "method": "thrift"},
    "databricks": {"type": "databricks"},
    "snow": {"type": "snowflake"},
}
DATABRICKS = {
    "host": "adb-1.azuredatabricks.net",
    "http_path": "/sql/1.0/warehouses/a",
    "catalog": "analytics",
    "token": {"secret": "platform/databricks"},
}
ABFSS = "abfss://lake@account.dfs.core.windows.net/lake"


def environment(**values: Any) -> EnvironmentSpec:
    return EnvironmentSpec(**{"name": "prod", "lake": {"root": "lake"}, "secrets": {"type": "environment"}, **values})


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A location with one dbt project of many targets."""
    control, project = tmp_path / "shop" / "control", tmp_path / "dbt"
    control.mkdir(parents=True)
    project.mkdir()
    (control.parent / "__init__.py").touch()
    (control / "location.yaml").write_text("location: shop\nworkstreams:\n  - {name: shop, owners: ['team:shop']}\n")
    (control / "dbt.yaml").write_text("projects:\n  - name: sales\n    project: ../dbt\n")
    (project / "dbt_project.yml").write_text("name: sales\nprofile: sales\n")
    (project / "profiles.yml").write_text(yaml.safe_dump({"sales": {"target": "local", "outputs": PROFILE}}))
    return control


def told(control: Path, spec: EnvironmentSpec) -> str:
    report = Report(control.parents[1])
    reading = read_control(control, environment="prod", state=control, report=report)
    check_dbt_targets(reading, spec, report)
    return "\n".join(str(issue) for issue in report.issues)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"dbt": {"target": "spark"}, "spark": {"type": "local"}},
        {"dbt": {"target": "databricks", "databricks": DATABRICKS}, "lake": {"root": ABFSS}},
        {
            "databases": {"pg": {"url": "postgresql+psycopg://dbt@db.example/analytics"}},
            "dbt": {"target": "warehouse", "database": "pg"},
        },
    ],
)
def test_a_target_that_has_what_it_needs_is_good(shop: Path, values: dict[str, Any]) -> None:
    assert told(shop, environment(**values)) == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dbt": {"target": "sprak"}}, "its profile has no target 'sprak', which environment 'prod' names"),
        ({"dbt": {"target": "snow"}}, "the platform cannot publish from adapter 'snowflake'"),
        ({"dbt": {"target": "spark"}}, "the environment names no Spark for this machine"),
        (
            {"dbt": {"target": "spark"}, "spark": {"type": "connect", "options": {"url": "sc://host"}}},
            "the environment names no Spark for this machine",
        ),
        ({"dbt": {"target": "cluster"}, "spark": {"type": "local"}}, "by method 'thrift', by which the lake cannot"),
        ({"dbt": {"target": "databricks"}}, "does not say where that is"),
        ({"dbt": {"target": "databricks", "databricks": DATABRICKS}}, "which cannot reach the lake"),
        ({"dbt": {"target": "warehouse"}}, "does not say which database that is"),
        ({"dbt": {"target": "spark"}, "spark": {"type": "local"}, "developer": True}, "builds in DuckDB"),
    ],
)
def test_a_target_that_lacks_something_is_told_at_its_entry(shop: Path, values: dict[str, Any], message: str) -> None:
    said = told(shop, environment(**values))
    assert "dbt.yaml:3: " in said
    assert message in said


def test_edp_check_looks_at_the_environment_and_the_projects_together(shop: Path) -> None:
    root = shop.parents[1]
    environments = root / "dagster_home" / "environments"
    environments.mkdir(parents=True)
    (root / "workspace.yaml").write_text("load_from: []\n")
    file = environments / "prod.yaml"
    lines = ["lake: {root: lake}", "secrets: {type: environment}", "dbt: {target: spark}"]
    file.write_text("\n".join(lines))
    settings = Settings(project=root, state=root / "state", environment="prod", home=root / "dagster_home")
    assert "names no Spark" in str(examine(settings, only=[str(shop)]).report.issues)
    file.write_text("\n".join([*lines, "spark: {type: local, options: {master: 'yarn'}}"]))
    [issue] = examine(settings, only=[str(shop)]).report.issues
    assert (issue.place.line, "must be local or local[threads]" in issue.message) == (4, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": None}, "needs either a token, or a client_id with its client_secret"),
        ({"client_id": "id", "client_secret": {"secret": "platform/x"}}, "needs either a token"),
        ({"token": None, "client_id": "id"}, "needs either a token"),
        ({"host": "https://adb-1.azuredatabricks.net"}, "should match pattern"),
    ],
)
def test_a_databricks_without_one_way_to_sign_in_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        environment(dbt={"databricks": {**DATABRICKS, **change}})
