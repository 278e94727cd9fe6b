"""One wrong line in one location: who is told, where it stands, and that the others work on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.workspaces import Workspace

pytestmark = pytest.mark.slow

PLACE = "shop/control/ingestion.yaml:3: unknown key 'mdoe'"
LOCATIONS = """{
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    ... on RepositoryLocation { repositories { assetNodes { assetKey { path } isExecutable } } }
    ... on PythonError { message }
  } } } }
}"""
"""What the UI asks for its page of code locations."""


@pytest.fixture(scope="module")
def broken(city_and_shop: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two locations; one holds a typing error."""
    workspace = city_and_shop(tmp_path_factory.mktemp("project"))
    assert workspace.edp("check").returncode == 0
    file = workspace.root / "shop/control/ingestion.yaml"
    file.write_text(file.read_text().replace("mode: full", "mdoe: full"))
    assert workspace.edp("setup").returncode == 0
    return workspace


def test_validating_all_definitions_fails_with_file_and_line(broken: Workspace) -> None:
    result = broken.dagster("definitions", "validate", "--workspace", "workspace.yaml", "--log-level", "warning")
    assert result.returncode == 1
    assert "Validation failed for code location shop" in result.stdout
    assert PLACE in result.stdout
    assert "Validation for 1 code locations failed." in result.stdout


def test_the_definitions_of_the_other_location_are_valid(broken: Workspace) -> None:
    result = broken.dagster("definitions", "validate", "--module-name", "city.definitions")
    assert result.returncode == 0
    assert "All code locations passed validation." in result.stdout


def test_the_ui_loads_the_other_location_and_shows_the_fault_of_this_one(broken: Workspace) -> None:
    result = broken.tool("dagster-graphql", "--workspace", "workspace.yaml", "--text", LOCATIONS)
    entries = json.loads(result.stdout)["data"]["workspaceOrError"]["locationEntries"]
    found = {entry["name"]: entry["locationOrLoadError"] for entry in entries}
    assert PLACE in found["shop"]["message"]
    nodes = found["city"]["repositories"][0]["assetNodes"]
    assert {tuple(node["assetKey"]["path"]) for node in nodes if node["isExecutable"]} == {
        ("city", "bronze", "readings"),
        ("city", "bronze", "stations"),
        ("city", "silver", "heat"),
        ("city", "silver", "places"),
        ("city", "dashboard", "warm"),
    }


def test_a_run_of_everything_builds_the_other_location_and_fails_with_the_fault(broken: Workspace) -> None:
    ran = broken.run()
    assert set(ran.statuses.values()) == {"ok"}
    assert {name.partition(".")[0] for name in ran.statuses} == {"city"}
    assert ran.code == 1
    assert not ran.answer["succeeded"]
    assert PLACE in ran.process.stderr
    assert ran.process.stderr.endswith("location 'shop' was left out: see above\n")
    assert "Traceback" not in ran.process.stderr
