"""One wrong line in one location: who is told, where it stands, and that the others work on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenarios.workspaces import Ran, Workspace

pytestmark = pytest.mark.slow

PLACE = "shop/control/ingestion.yaml:3: unknown key 'mdoe'"
LOCATIONS = """{
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    ... on RepositoryLocation { repositories { assetNodes { assetKey { path } isExecutable } } }
    ... on PythonError { errorChain { error { message } } }
  } } } }
}"""
"""What the UI asks for its page of code locations."""


@dataclass(frozen=True)
class Broken:
    """Two locations, one with a typing error, and what came of running everything.

    Args:
        ran: the run, the first thing ever done in this project.
    """

    workspace: Workspace
    ran: Ran


@pytest.fixture(scope="module")
def broken(city_and_shop: Callable[[Path], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Broken:
    workspace = city_and_shop(tmp_path_factory.mktemp("project"))
    file = workspace.root / "shop/control/ingestion.yaml"
    file.write_text(file.read_text().replace("mode: full", "mdoe: full"))
    return Broken(workspace, workspace.run())


def test_validating_all_definitions_fails_with_file_and_line_and_passes_the_other_location(broken: Broken) -> None:
    result = broken.workspace.dagster("definitions", "validate", "--workspace", "workspace.yaml")
    assert result.returncode == 1
    assert "Validation successful for code location city." in result.stdout
    assert "Validation failed for code location shop" in result.stdout
    assert PLACE in result.stdout


def test_the_ui_loads_the_other_location_and_shows_the_fault_of_this_one(broken: Broken, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    arguments = ("--workspace", "workspace.yaml", "--text", LOCATIONS, "--output", str(answer))
    result = broken.workspace.tool("dagster-graphql", *arguments)
    assert result.returncode == 0, result.stderr
    entries = json.loads(answer.read_text())["data"]["workspaceOrError"]["locationEntries"]
    found = {entry["name"]: entry["locationOrLoadError"] for entry in entries}
    assert any(PLACE in link["error"]["message"] for link in found["shop"]["errorChain"])
    nodes = found["city"]["repositories"][0]["assetNodes"]
    assert {tuple(node["assetKey"]["path"]) for node in nodes if node["isExecutable"]} == {
        ("city", "bronze", "readings"),
        ("city", "bronze", "stations"),
        ("city", "silver", "heat"),
        ("city", "silver", "places"),
        ("city", "dashboard", "warm"),
    }


def test_a_run_of_everything_builds_the_other_location_and_fails_with_the_fault(broken: Broken) -> None:
    ran = broken.ran
    assert set(ran.statuses.values()) == {"ok"}
    assert {name.partition(".")[0] for name in ran.statuses} == {"city"}
    assert ran.code == 1
    assert not ran.answer["succeeded"]
    assert PLACE in ran.process.stderr
    assert ran.process.stderr.endswith("location 'shop' was left out: see above\n")
    assert "Traceback" not in ran.process.stderr
