"""docs/how-to/dbt.md, word for word: what it shows can be declared, and is what the tests' projects have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from platform_core.control.dbt_targets import target_fault
from platform_core.specs.dbt import DbtSpec
from platform_core.specs.environment import EnvironmentSpec
from tests.dbt.conftest import PROJECTS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "dbt.md"


def examples(title: str) -> list[Any]:
    """The YAML blocks whose first line is this comment."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [yaml.safe_load(block) for block in blocks if block.startswith(f"# {title}\n")]


def test_the_entries_can_be_declared() -> None:
    declared = [
        DbtSpec(workstream="sales", **entry) for page in examples("control/dbt.yaml") for entry in page["projects"]
    ]
    assert [spec.name for spec in declared] == ["sales", "board", "daily", "top"]
    assert declared[1].staging == "staging_board"
    assert (declared[2].select, declared[2].exclude) == (("tag:daily",), ("top",))


def test_the_environment_can_be_declared() -> None:
    [page] = examples("dagster_home/environments/prod.yaml")
    spec = EnvironmentSpec(name="prod", lake={"root": "lake"}, secrets={"type": "environment"}, **page)
    assert spec.dbt.target == "warehouse"
    assert spec.databases[spec.dbt.database or ""].password is not None


@pytest.mark.parametrize("name", ["spark", "databricks"])
def test_the_environments_of_spark_and_databricks_have_what_the_profile_needs(name: str) -> None:
    [page] = examples(f"dagster_home/environments/{name}.yaml")
    spec = EnvironmentSpec(**{"name": name, "lake": {"root": "lake"}, "secrets": {"type": "environment"}, **page})
    [profile] = examples("profiles.yml of a project")
    assert target_fault(profile["sales"]["outputs"][spec.dbt.target or ""], spec) is None


def test_the_project_says_what_spark_needs() -> None:
    [page] = examples("dbt_project.yml of a project")
    tried = yaml.safe_load((PROJECTS / "sales" / "dbt_project.yml").read_text())
    for kind, config in page.items():
        assert config.items() <= tried[kind].items()


def test_the_profile_is_that_of_a_project_which_the_tests_run() -> None:
    [page] = examples("profiles.yml of a project")
    tried = yaml.safe_load((PROJECTS / "sales" / "profiles.yml").read_text())
    for output in tried["sales"]["outputs"].values():
        del output["threads"]
    assert page == tried


def test_the_source_reads_a_mart_of_another_project() -> None:
    [page] = examples("models/sources.yml of the project board")
    [source] = page["sources"]
    [tried] = yaml.safe_load((PROJECTS / "board" / "models" / "sources.yml").read_text())["sources"]
    assert (source["schema"], source["config"], source["tables"]) == (tried["schema"], tried["config"], tried["tables"])


def test_a_database_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValueError, match="database 'warehouse' is not one of 'databases': none is declared"):
        EnvironmentSpec(
            name="prod", lake={"root": "lake"}, secrets={"type": "environment"}, dbt={"database": "warehouse"}
        )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PGPASSWORD": {"secret": "platform/warehouse"}}, "begins with DBT_ENV_SECRET_"),
        ({"EDP_LAKE_ROOT": "/elsewhere"}, "does not begin with EDP_"),
        ({"lower": "x"}, "upper case letters"),
    ],
)
def test_variables_that_would_leak_or_mislead_are_refused(variables: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnvironmentSpec(
            name="prod", lake={"root": "lake"}, secrets={"type": "environment"}, dbt={"variables": variables}
        )
